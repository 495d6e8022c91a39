//! Three nodes as one store: any door, any client, and crashes that lose and repeat nothing.

use redis::AsyncCommands;

use crate::support::client::{Client, Value};
use crate::support::cluster::TestCluster;
use crate::support::load::Load;
use crate::support::rounds;

/// Commands that must be answered before and after each fault.
const PROGRESS: u64 = 120;

#[test]
fn any_door_reads_what_another_wrote() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "4"]);
    let mut clients: Vec<Client> = (0..3).map(|index| cluster.client(index)).collect();
    for number in 0..60 {
        let (writer, reader) = (number % 3, (number + 1) % 3);
        let (key, value) = (format!("k{number}"), format!("v{number}"));
        assert_eq!(clients[writer].cmd(&["SET", &key, &value]), Value::ok());
        assert_eq!(clients[reader].cmd(&["GET", &key]), Value::bulk(value), "at once, {key}");
    }
    for client in &mut clients {
        assert_eq!(client.line("DBSIZE"), Value::Integer(60));
        assert_eq!(client.line("EXISTS k0 k1 k2 k3 none"), Value::Integer(4));
        let found = client.line("MGET k59 none k0 k31 k7");
        let expected = [
            Value::bulk("v59"),
            Value::Null,
            Value::bulk("v0"),
            Value::bulk("v31"),
            Value::bulk("v7"),
        ];
        assert_eq!(found.array(), expected, "in the order asked");
        let mut keys: Vec<String> = client.line("KEYS *").array().iter().map(Value::text).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 60);
        assert_eq!(scan(client).len(), 60);
    }
    assert_eq!(clients[0].line("MSET a 1 b 2 c 3 d 4 e 5"), Value::ok());
    assert_eq!(clients[1].line("DEL a b c d e none"), Value::Integer(5));
    assert_eq!(clients[2].line("FLUSHALL"), Value::ok());
    assert_eq!(clients[0].line("DBSIZE"), Value::Integer(0));
    cluster.assert_replicas_agree();
}

/// Every key that SCAN visits, each once.
fn scan(client: &mut Client) -> Vec<String> {
    let mut cursor = "0".to_owned();
    let mut keys = Vec::new();
    loop {
        let answer = client.cmd(&["SCAN", &cursor, "COUNT", "7"]);
        cursor = answer.array()[0].text();
        keys.extend(answer.array()[1].array().iter().map(Value::text));
        if cursor == "0" {
            break;
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// A command that is wrong as a whole has no shard of its own, and its error must come from wherever it is sent.
#[test]
fn errors_of_syntax_come_through_every_door() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "3"]);
    for index in 0..3 {
        let mut client = cluster.client(index);
        let wrong = Some("ERR wrong number of arguments for 'mset' command");
        assert_eq!(client.line("MSET a 1 b 2 c").error(), wrong);
        let wrong = Some("ERR wrong number of arguments for 'msetnx' command");
        assert_eq!(client.line("MSETNX foo 1 b").error(), wrong);
    }
}

#[test]
fn a_pipeline_over_all_shards_keeps_its_order() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "4"]);
    for index in 0..3 {
        let mut client = cluster.client(index);
        for number in 0..300 {
            let key = format!("{index}:{}", number % 30);
            client.send(&["INCR", &key]).unwrap();
            client.send(&["GET", &key]).unwrap();
        }
        for number in 0..300 {
            let expected = number / 30 + 1;
            assert_eq!(client.read().unwrap(), Value::Integer(expected));
            assert_eq!(client.read().unwrap(), Value::bulk(expected.to_string()));
        }
    }
}

#[test]
fn the_cluster_door_redirects_and_the_plain_one_never() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "3"]);
    let leader = cluster.leader_of("k");
    let slot = cluster.client(0).line("CLUSTER KEYSLOT k").integer();
    let port = cluster.node(leader).cluster_port();
    for index in 0..3 {
        let mut plain = cluster.client(index);
        assert_eq!(plain.line("SET k v"), Value::ok());
        let mut door = Client::connect(cluster.node(index).cluster_port()).unwrap();
        let answer = door.line("GET k");
        if index == leader {
            assert_eq!(answer, Value::bulk("v"));
        } else {
            assert_eq!(answer.error(), Some(&format!("MOVED {slot} 127.0.0.1:{port}")[..]));
        }
    }
}

#[test]
fn plain_clients_of_the_redis_crate_use_any_door() {
    let cluster = TestCluster::start(3, &[]);
    for (index, port) in cluster.ports().into_iter().enumerate() {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
        let mut connection = client.get_connection().unwrap();
        let () = redis::cmd("SET").arg("who").arg(index).exec(&mut connection).unwrap();
        let (a, b): (i64, i64) =
            redis::pipe().cmd("INCR").arg("a").cmd("INCR").arg("b").query(&mut connection).unwrap();
        assert_eq!((a, b), (i64::try_from(index).unwrap() + 1, i64::try_from(index).unwrap() + 1));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connections = Vec::new();
        for port in cluster.ports() {
            let client =
                redis::Client::open(format!("redis://127.0.0.1:{port}/?protocol=resp3")).unwrap();
            connections.push(client.get_multiplexed_async_connection().await.unwrap());
        }
        for number in 0..90_usize {
            let (writer, reader) = (number % 3, (number + 2) % 3);
            let key = format!("async:{number}");
            let () = connections[writer].set(&key, number).await.unwrap();
            let value: usize = connections[reader].get(&key).await.unwrap();
            assert_eq!(value, number);
        }
    });
}

#[test]
fn the_cluster_client_of_the_redis_crate_finds_every_key() {
    use redis::Commands;

    let cluster = TestCluster::start(3, &["--cluster-shards", "6"]);
    let nodes: Vec<String> = (0..3)
        .map(|index| format!("redis://127.0.0.1:{}/", cluster.node(index).cluster_port()))
        .collect();
    let client = redis::cluster::ClusterClient::new(nodes).unwrap();
    let mut connection = client.get_connection().unwrap();
    for number in 0..100 {
        let key = format!("cluster:{number}");
        let () = connection.set(&key, number).unwrap();
        let value: i64 = connection.get(&key).unwrap();
        assert_eq!(value, number);
    }
    let mut plain = cluster.client(1);
    assert_eq!(plain.line("GET cluster:42"), Value::bulk("42"), "one keyspace behind both doors");
}

/// Runs the load, lets `crash` happen while it runs, and holds the cluster to the books.
fn crash_under_load(crash: impl Fn(&mut TestCluster, &Load)) {
    let mut cluster = TestCluster::start(3, &["--cluster-shards", "2"]);
    let load = Load::start(&cluster.ports());
    for _ in 0..rounds(1, 8) {
        load.await_progress(PROGRESS);
        crash(&mut cluster, &load);
        load.await_progress(PROGRESS);
    }
    let ledger = load.finish();
    cluster.await_serving();
    for index in 0..cluster.len() {
        ledger.verify(&mut cluster.client(index));
    }
    cluster.assert_replicas_agree();
}

#[test]
fn a_killed_leader_loses_and_repeats_nothing() {
    crash_under_load(|cluster, load| {
        let leader = cluster.leader_of("counter:0");
        cluster.node_mut(leader).kill();
        load.await_progress(PROGRESS);
        cluster.node_mut(leader).restart();
    });
}

#[test]
fn a_killed_follower_loses_and_repeats_nothing() {
    crash_under_load(|cluster, load| {
        let follower = cluster.follower_of("counter:0");
        cluster.node_mut(follower).kill();
        load.await_progress(PROGRESS);
        cluster.node_mut(follower).restart();
    });
}

#[test]
fn killing_all_nodes_at_once_loses_and_repeats_nothing() {
    crash_under_load(|cluster, _| {
        for index in 0..cluster.len() {
            cluster.node_mut(index).kill();
        }
        for index in 0..cluster.len() {
            cluster.node_mut(index).spawn();
        }
        for index in 0..cluster.len() {
            cluster.node_mut(index).await_ready();
        }
        cluster.await_serving();
    });
}

#[test]
fn rolling_restarts_lose_and_repeat_nothing() {
    crash_under_load(|cluster, load| {
        for index in 0..cluster.len() {
            assert!(cluster.node_mut(index).terminate().success(), "SIGTERM ends well");
            load.await_progress(PROGRESS);
            cluster.node_mut(index).restart();
            cluster.await_serving();
        }
    });
}

#[test]
fn connections_to_living_nodes_see_no_error() {
    let mut cluster = TestCluster::start(3, &["--cluster-shards", "2"]);
    let leader = cluster.leader_of("counter:0");
    let living: Vec<u16> =
        (0..3).filter(|&index| index != leader).map(|index| cluster.node(index).port()).collect();
    let load = Load::start(&living);
    load.await_progress(PROGRESS);
    cluster.node_mut(leader).kill();
    load.await_progress(PROGRESS);
    let ledger = load.finish();
    assert!(ledger.broken.is_empty(), "broken connections: {:?}", ledger.broken);
    assert!(!ledger.has_unknown(), "a leader's death is retried inside, applied once");
    ledger.verify(&mut Client::connect(living[0]).unwrap());
}
