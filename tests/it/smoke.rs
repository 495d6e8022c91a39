//! One node: the protocol on a real socket, and data that survives.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::client::{Client, Value, request};
use crate::support::node::{Doors, TestServer};
use crate::support::ports::Port;
use crate::support::{PATIENCE, let_pass, now_us, us, wait_for};

#[test]
fn commands_of_every_kind_answer() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    for (line, expected) in [
        ("PING", Value::Simple("PONG".into())),
        ("ECHO hi", Value::bulk("hi")),
        ("SET k v", Value::ok()),
        ("GET k", Value::bulk("v")),
        ("SET k w NX", Value::Null),
        ("SET k w XX GET", Value::bulk("v")),
        ("APPEND k x", Value::Integer(2)),
        ("STRLEN k", Value::Integer(2)),
        ("INCR n", Value::Integer(1)),
        ("INCRBY n 41", Value::Integer(42)),
        ("MSET a 1 b 2", Value::ok()),
        ("MGET a b none", Value::Array(vec![Value::bulk("1"), Value::bulk("2"), Value::Null])),
        ("EXISTS a b none", Value::Integer(2)),
        ("TYPE a", Value::Simple("string".into())),
        ("EXPIRE a 100", Value::Integer(1)),
        ("TTL a", Value::Integer(100)),
        ("PERSIST a", Value::Integer(1)),
        ("TTL a", Value::Integer(-1)),
        ("DEL a none", Value::Integer(1)),
        ("RPUSH l 1 2 3", Value::Integer(3)),
        ("LPOP l", Value::bulk("1")),
        ("LRANGE l 0 -1", Value::Array(vec![Value::bulk("2"), Value::bulk("3")])),
        ("SADD s m", Value::Integer(1)),
        ("HSET h f v", Value::Integer(1)),
        ("ZADD z 1.5 m", Value::Integer(1)),
        ("ZPOPMIN z", Value::Array(vec![Value::bulk("m"), Value::bulk("1.5")])),
        ("SELECT 1", Value::ok()),
        ("GET k", Value::Null),
        ("SELECT 0", Value::ok()),
        ("DBSIZE", Value::Integer(6)),
        ("CLUSTER KEYSLOT foo", Value::Integer(12182)),
        ("FLUSHALL", Value::ok()),
        ("DBSIZE", Value::Integer(0)),
    ] {
        assert_eq!(client.line(line), expected, "{line}");
    }
}

#[test]
fn errors_are_those_of_redis_and_the_connection_lives_on() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    for (line, error) in [
        ("NOSUCH a b", "ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' "),
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("SET k v EX", "ERR syntax error"),
        ("SET k v EX 0", "ERR invalid expire time in 'set' command"),
        ("SELECT 99", "ERR DB index is out of range"),
        ("HELLO 9", "NOPROTO unsupported protocol version"),
    ] {
        assert_eq!(client.line(line).error(), Some(error), "{line}");
    }
    client.line("SET k text");
    assert_eq!(client.line("INCR k").error(), Some("ERR value is not an integer or out of range"));
    let wrong_type = client.line("LPUSH k x");
    assert!(
        wrong_type.error().is_some_and(|text| text.starts_with("WRONGTYPE ")),
        "{wrong_type:?}"
    );
    assert_eq!(client.line("GET k"), Value::bulk("text"));
}

/// What one read brings is taken a few requests at a time: nothing of it may be lost, repeated or overtaken.
#[test]
fn a_pipeline_of_every_kind_of_request_is_answered_in_order() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let large = "v".repeat(300_000);
    assert_eq!(client.cmd(&["SET", "large", &large]), Value::ok());
    let mut bytes = Vec::new();
    for number in 0..100 {
        bytes.extend(request(&["INCR", "n"]));
        bytes.extend_from_slice(b"PING inline\r\n\r\n");
        // Beyond what a batch holds of replies, in the middle of what is taken together.
        bytes.extend(request(&["GET", "large"]));
        bytes.extend(request(&["SET", &format!("k{number}"), "x"]));
        bytes.extend(request(&["GET", &format!("k{number}")]));
    }
    bytes.extend(request(&["QUIT"]));
    bytes.extend_from_slice(b"INCR n\r\n");
    bytes.extend(request(&["INCR", "n"]));
    let sender = {
        let mut client = server.client();
        std::thread::spawn(move || {
            client.send_raw(&bytes).unwrap();
            client
        })
    };
    let mut client = sender.join().unwrap();
    for number in 1..=100 {
        assert_eq!(client.read().unwrap(), Value::Integer(number));
        assert_eq!(client.read().unwrap(), Value::bulk("inline"));
        assert_eq!(client.read().unwrap(), Value::bulk(&large));
        assert_eq!(client.read().unwrap(), Value::ok());
        assert_eq!(client.read().unwrap(), Value::bulk("x"));
    }
    assert_eq!(client.read().unwrap(), Value::ok());
    assert!(client.is_closed());
    assert_eq!(server.client().line("GET n"), Value::bulk("100"), "nothing after QUIT is done");
}

/// The limits of a client change between AUTH and the request behind it, and its rights with them.
#[test]
fn a_pipeline_may_authenticate_itself() {
    let server = TestServer::start(&["--requirepass", "secret"]);
    let mut client = server.client();
    let large = "v".repeat(100_000);
    let words: [&[&str]; 5] =
        [&["GET", "k"], &["AUTH", "secret"], &["SET", "k", &large], &["RESET"], &["GET", "k"]];
    client.send_raw(&words.map(request).concat()).unwrap();
    let noauth = Some("NOAUTH Authentication required.");
    assert_eq!(client.read().unwrap().error(), noauth);
    assert_eq!(client.read().unwrap(), Value::ok());
    assert_eq!(client.read().unwrap(), Value::ok());
    assert_eq!(client.read().unwrap(), Value::Simple("RESET".into()));
    assert_eq!(client.read().unwrap().error(), noauth);
}

/// Enough keys that commands look ahead in them, with others that are missing, expired or of another type.
#[test]
fn many_keys_answer_as_few_do() {
    const KEYS: i64 = 20_000;
    let server = TestServer::start(&[]);
    let mut client = server.client();
    for first in (0..KEYS).step_by(1000) {
        let pairs =
            (first..first + 1000).map(|number| request(&["SET", &format!("k{number}"), "0"]));
        client.send_raw(&pairs.flatten().collect::<Vec<u8>>()).unwrap();
        (0..1000).for_each(|_| assert_eq!(client.read().unwrap(), Value::ok()));
    }
    assert_eq!(client.line("LPUSH list x"), Value::Integer(1));
    // The node notes its size a few times a second.
    for _ in 0..20 {
        let mut bytes = Vec::new();
        for number in (0..KEYS).step_by(97) {
            let key = format!("k{number}");
            bytes.extend(request(&["GET", &key]));
            bytes.extend(request(&["INCR", &key]));
            bytes.extend(request(&["GET", &format!("none{number}")]));
            bytes.extend(request(&["GET", "list"]));
            bytes.extend(request(&["DECR", &key]));
        }
        client.send_raw(&bytes).unwrap();
        for _ in (0..KEYS).step_by(97) {
            assert_eq!(client.read().unwrap(), Value::bulk("0"));
            assert_eq!(client.read().unwrap(), Value::Integer(1));
            assert_eq!(client.read().unwrap(), Value::Null);
            assert!(client.read().unwrap().error().is_some_and(|it| it.starts_with("WRONGTYPE ")));
            assert_eq!(client.read().unwrap(), Value::Integer(0));
        }
    }
    assert_eq!(client.line("DBSIZE"), Value::Integer(KEYS + 1));
}

#[test]
fn hello_3_speaks_resp3() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let Value::Map(fields) = client.line("HELLO 3") else { panic!("HELLO 3 gives a map") };
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| *key == Value::bulk(name));
        found.unwrap_or_else(|| panic!("{name} is missing in {fields:?}")).1.clone()
    };
    assert_eq!(field("proto"), Value::Integer(3));
    for name in ["server", "version", "id", "mode", "role", "modules"] {
        field(name);
    }
    assert_eq!(client.line("GET none"), Value::Resp3Null, "RESP3 has one null");
}

#[test]
fn a_pipeline_is_answered_in_order_however_it_is_split() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let mut bytes = Vec::new();
    for number in 0..1000 {
        bytes.extend(request(&["SET", &format!("k{number}"), &format!("v{number}")]));
        bytes.extend(request(&["GET", &format!("k{number}")]));
        bytes.extend(request(&["PING"]));
    }
    for piece in [bytes.len(), 4093, 17] {
        for chunk in bytes.chunks(piece) {
            client.send_raw(chunk).unwrap();
        }
        for number in 0..1000 {
            assert_eq!(client.read().unwrap(), Value::ok());
            assert_eq!(client.read().unwrap(), Value::bulk(format!("v{number}")));
            assert_eq!(client.read().unwrap(), Value::Simple("PONG".into()));
        }
    }
    // Byte by byte, each in a packet of its own.
    for byte in request(&["GET", "k7"]) {
        client.send_raw(&[byte]).unwrap();
    }
    assert_eq!(client.read().unwrap(), Value::bulk("v7"));
}

#[test]
fn inline_commands_work_as_typed() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    client.send_raw(b"SET k \"two words\\n\"\r\nGET k\nPING\r\n").unwrap();
    assert_eq!(client.read().unwrap(), Value::ok());
    assert_eq!(client.read().unwrap(), Value::bulk("two words\n"));
    assert_eq!(client.read().unwrap(), Value::Simple("PONG".into()));
}

#[test]
fn any_bytes_are_a_key_and_a_value() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    for (key, value) in [
        (&b"\0\r\n\xff"[..], &b"\r\n$-1\r\n"[..]),
        (b"", b""),
        (b"{}", b"*1\r\n"),
        (b"big", &bytes),
    ] {
        assert_eq!(client.cmd(&[b"SET", key, value]), Value::ok());
        assert_eq!(client.cmd(&[b"GET", key]), Value::bulk(value));
    }
}

#[test]
fn hostile_bytes_end_one_connection_and_no_other() {
    let server = TestServer::start(&[]);
    let mut witness = server.client();
    for (bytes, error) in [
        (&b"*1\r\n+PING\r\n"[..], Some("ERR Protocol error: expected '$', got '+'")),
        (b"*9999999999\r\n", Some("ERR Protocol error: invalid multibulk length")),
        (b"*1\r\n$-5\r\n", Some("ERR Protocol error: invalid bulk length")),
        (b"*1\r\n$99999999999\r\n", Some("ERR Protocol error: invalid bulk length")),
        (b"SET k \"open\r\n", Some("ERR Protocol error: unbalanced quotes in request")),
        (b"*x\r\n", Some("ERR Protocol error: invalid multibulk length")),
    ] {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let mut client = server.client();
        client.send_raw(bytes).unwrap();
        assert_eq!(client.read().unwrap().error(), error, "{shown:?}");
        assert!(client.is_closed(), "{shown:?}");
    }
    let mut endless = server.client();
    // The server may close while this is still being sent; what counts is that it does not swallow it all.
    let _result = endless.send_raw(&vec![b'x'; 1 << 20]);
    let answer = endless.read();
    assert!(
        answer.as_ref().map_or(true, |value| value.error().is_some()),
        "an endless inline command is refused: {answer:?}"
    );
    // An empty array and an empty line are no commands.
    witness.send_raw(b"*0\r\n\r\n*-1\r\n").unwrap();
    assert_eq!(witness.line("PING"), Value::Simple("PONG".into()));
    // A client that leaves in the middle of a command.
    let mut leaver = server.client();
    leaver.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\nabc").unwrap();
    drop(leaver);
    assert_eq!(witness.line("EXISTS k"), Value::Integer(0));
}

#[test]
fn requirepass_guards_every_door() {
    let server = TestServer::start(&["--requirepass", "secret"]);
    for port in [server.port(), server.cluster_port()] {
        let mut client = Client::connect(port).unwrap();
        let refused = client.line("GET k");
        assert_eq!(refused.error(), Some("NOAUTH Authentication required."));
        assert!(
            client.line("AUTH wrong").error().is_some_and(|text| text.starts_with("WRONGPASS"))
        );
        assert_eq!(client.line("AUTH secret"), Value::ok());
        assert_eq!(client.line("GET k"), Value::Null);
    }
}

#[test]
fn a_stop_and_a_kill_lose_nothing() {
    for appendfsync in ["everysec", "always", "no"] {
        let mut server = TestServer::start(&["--appendfsync", appendfsync]);
        let mut client = server.client();
        for number in 0..200 {
            assert_eq!(client.line(&format!("SET k{number} v{number}")), Value::ok());
        }
        client.line("SET short 1 PX 100");
        client.line("SET long 1 EX 1000");
        for end in ["kill -9", "SIGTERM", "kill -9"] {
            client.line("RPUSH ends x");
            if end == "SIGTERM" {
                assert!(server.terminate().success(), "{end}");
            } else {
                server.kill();
            }
            let_pass(Duration::from_millis(100));
            server.restart();
            client = server.client();
            for number in 0..200 {
                let value = client.line(&format!("GET k{number}"));
                assert_eq!(value, Value::bulk(format!("v{number}")), "{appendfsync}, {end}");
            }
            assert_eq!(client.line("GET short"), Value::Null, "time passes while a node is down");
            assert!((900..=1000).contains(&client.line("TTL long").integer()));
        }
        assert_eq!(client.line("LRANGE ends 0 -1").array().len(), 3);
    }
}

/// Starts kvorum, which must end by itself: its exit code, and what it said on stderr.
fn start_in_vain(args: &[&str], folder: &Path) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvorum"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = now_us() + us(Duration::from_secs(10));
    while child.try_wait().unwrap().is_none() {
        if now_us() > deadline {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("{args:?} runs: {}", String::from_utf8_lossy(&output.stderr));
        }
        let_pass(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_wrong_start_ends_with_one_clear_line() {
    let running = TestServer::start(&[]);
    let busy_dir = running.dir();
    let busy_port = running.port().to_string();
    let free = Port::reserve().number().to_string();
    let folder = tempfile::tempdir().unwrap();
    let own_dir = folder.path().join("data");
    let (busy_dir, own_dir) = (busy_dir.to_str().unwrap(), own_dir.to_str().unwrap());
    let rest = ["--cluster-port", "0", "--peer-port", "0", "--admin-port", "0"];
    let with_rest =
        |port, dir| -> Vec<&str> { [&["--port", port, "--dir", dir][..], &rest].concat() };
    for (args, word) in [
        (vec!["--nosuch", "1"], "nosuch"),
        (vec!["--port", "abc"], "abc"),
        (vec!["--appendfsync", "sometimes"], "sometimes"),
        (vec!["/no/such/file.conf"], "/no/such/file.conf"),
        (with_rest(&busy_port, own_dir), &busy_port),
        (with_rest(&free, busy_dir), busy_dir),
    ] {
        let (code, said) = start_in_vain(&args, folder.path());
        assert_eq!(code, Some(1), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?} is named: {said}");
        let complaints = said.lines().filter(|line| !line.is_empty()).count();
        assert!(complaints >= 1, "{args:?} says why");
    }
    assert_eq!(running.client().line("PING"), Value::Simple("PONG".into()));
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let mut server = TestServer::start(&["--node-id", "n1"]);
    server.client().line("SET k v");
    server.kill();
    let (port, peer) = (server.port().to_string(), server.peer_port().to_string());
    let dir = server.dir();
    let mut args = vec!["--node-id", "n2", "--dir", dir.to_str().unwrap(), "--port", &port];
    args.extend(["--peer-port", &peer, "--cluster-port", "0", "--admin-port", "0"]);
    let (code, said) = start_in_vain(&args, &dir);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("n1"), "whose it is: {said}");
    server.restart();
    assert_eq!(server.client().line("GET k"), Value::bulk("v"));
}

#[test]
fn the_admin_door_says_that_the_node_is_ready() {
    let server = TestServer::start(&[]);
    assert!(server.admin("/healthz").is_ok());
    wait_for("ready node", PATIENCE, || server.admin("/readyz"));
    assert!(server.admin("/nosuch").is_err());
    let replicas =
        crate::support::shards::parse(&server.admin("/api/shards?hash=1").unwrap()).unwrap();
    assert!(!replicas.is_empty());
    assert!(replicas.iter().all(|replica| replica.role == "leader"), "{replicas:?}");
    let mut client = server.client();
    client.line("SET k v");
    let answer = server.admin("/api/leader?key=k").unwrap();
    let slot = client.line("CLUSTER KEYSLOT k").integer();
    assert!(answer.contains(&format!("\"slot\":{slot}")), "{answer}");
}

#[test]
fn two_test_servers_have_doors_of_their_own() {
    let (one, other) = (Doors::reserve(), Doors::reserve());
    let ports = [&one, &other]
        .map(|doors| [&doors.plain, &doors.cluster, &doors.peer, &doors.admin].map(Port::number));
    let mut all = ports.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 8);
}
