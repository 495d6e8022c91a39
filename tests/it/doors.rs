//! What strangers can do at the doors for clients and operators, and what they cannot.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;

use crate::support::client::{Client, Value, request};
use crate::support::node::{Doors, TestServer};
use crate::support::shards::has_snapshots;
use crate::support::{PATIENCE, now_us, wait_for};

/// Faults, row D1.
#[test]
fn idle_clients_leave_the_log_its_descriptors() {
    let mut server = TestServer::new::<&str>(Doors::reserve(), &[]);
    server.limit_descriptors(1024);
    server.spawn();
    server.await_ready();
    let mut writer = server.client();
    let maxclients = writer.line("CONFIG GET maxclients").array()[1].text();
    let maxclients: usize = maxclients.parse().unwrap();
    assert!((256..1000).contains(&maxclients), "{maxclients}");
    assert!(server.log_tail().contains("raise its limit (ulimit -n)"));
    let refused = writer.line("CONFIG SET maxclients 2000");
    let why = format!("specified number of clients, try with {maxclients}");
    assert!(refused.error().is_some_and(|text| text.ends_with(&why)), "{refused:?}");

    // This process has descriptors of its own, and may not have enough of them.
    kvorum::stdx::descriptors::raise_limit();
    let idle: Vec<Client> = (1..1010).map(|_| server.client()).collect();
    wait_for("all places are taken", PATIENCE, || {
        let info = writer.line("INFO clients").text();
        let is_full = info.contains(&format!("connected_clients:{maxclients}\r\n"));
        if is_full { Ok(()) } else { Err(info) }
    });

    // More than a segment of the log, which is 64 MiB long.
    let value = "v".repeat(1 << 20);
    for number in 0..70 {
        assert_eq!(writer.cmd(&["SET", &format!("k{number}"), &value]), Value::ok());
    }
    let metrics = server.admin("/metrics").unwrap();
    assert!(metrics.contains("\nkvorum_wal_failed 0\n"), "{metrics}");
    drop(idle);
}

/// Faults, row D1: with more than 47 threads it did not start with the usual limit.
#[test]
fn few_descriptors_and_many_threads_serve_somebody() {
    for (limit, threads) in [(1024, 64), (512, 20)] {
        let mut server = TestServer::new(Doors::reserve(), &["--io-threads", &threads.to_string()]);
        server.limit_descriptors(limit);
        server.spawn();
        server.await_ready();
        let mut client = server.client();
        let maxclients = client.line("CONFIG GET maxclients").array()[1].text();
        assert!((limit / 4..limit).contains(&maxclients.parse().unwrap()), "{limit}: {maxclients}");
        assert!(
            server.log_tail().contains(&format!("not {threads}: the process may not open more"))
        );
        kvorum::stdx::descriptors::raise_limit();
        let idle: Vec<Client> = (1..limit).map(|_| server.client()).collect();
        assert_eq!(client.cmd(&["SET", "k", "v"]), Value::ok());
        drop(idle);
    }
}

/// Faults, row D1: with 128 it did not start, where redis-server takes 33.
#[test]
fn hardly_any_descriptors_serve_somebody_and_a_refusal_says_how_many_do() {
    // This process has descriptors of its own, and may not have enough of them.
    kvorum::stdx::descriptors::raise_limit();
    let mut server = TestServer::new(Doors::reserve(), &["--cluster-shards", "1"]);
    let mut refused = |limit: u64| {
        server.limit_descriptors(limit);
        server.spawn();
        assert!(!server.await_exit().success(), "it starts with {limit}");
        let log = server.log();
        let line = log.lines().last().unwrap();
        let why =
            format!("the limit of {limit} open files is too low to serve anybody: raise it to ");
        let (_, least) = line.split_once(&why).unwrap_or_else(|| panic!("{line}"));
        least.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let least = refused(32);
    assert!(least < 128, "{least}");
    assert_eq!(refused(least - 1), least);
    for limit in [least, 128] {
        server.limit_descriptors(limit);
        server.spawn();
        server.await_ready();
        let mut client = wait_for("a place", PATIENCE, || {
            let mut client = server.client();
            let reply = client.try_cmd(&["SET", "k", "v"]).map_err(|error| error.to_string())?;
            if reply == Value::ok() { Ok(client) } else { Err(format!("{reply:?}")) }
        });
        let maxclients = client.line("CONFIG GET maxclients").array()[1].text();
        let expected = if limit == least { 1 } else { limit / 4 };
        assert_eq!(maxclients.parse(), Ok(expected));
        // Strangers take what they can get at every door, and get no more than that.
        let doors = [server.port(), server.cluster_port(), server.peer_port(), server.admin_port()];
        let strangers: Vec<Client> =
            (0..limit).flat_map(|_| doors.map(Client::connect)).filter_map(Result::ok).collect();
        assert!(!strangers.is_empty());
        // Two segments of the log and a snapshot.
        let value = "v".repeat(1 << 20);
        for number in 0..140 {
            let reply = client.cmd(&["SET", &format!("k{}", number % 8), &value]);
            assert_eq!(reply, Value::ok());
        }
        wait_for("a snapshot, and word of it", PATIENCE, || has_snapshots(&server));
        let metrics = server.admin("/metrics").unwrap();
        assert!(metrics.contains("\nkvorum_wal_failed 0\n"), "{metrics}");
        assert!(!server.log().contains("waits for a file descriptor"), "{}", server.log_tail());
        drop(strangers);
        assert!(server.terminate().success());
    }
}

/// Faults, row D4: without a word everybody could read and change all keys.
#[test]
fn open_doors_without_a_password_are_warned_of_at_the_start() {
    const REFUSED: &str = "no password is set: clients of other machines are refused";
    const OPEN: &str = "no password is set and protected-mode is off";
    let table: [(&[&str], &[&str], &[&str]); 4] = [
        (&["--bind", "0.0.0.0"], &[REFUSED], &[OPEN]),
        (&["--bind", "0.0.0.0", "--protected-mode", "no"], &[OPEN], &[REFUSED]),
        (&["--bind", "0.0.0.0", "--requirepass", "secret"], &[], &[OPEN, REFUSED]),
        (&[], &[], &[OPEN, REFUSED]),
    ];
    for (words, said, unsaid) in table {
        let server = TestServer::start(words);
        let log = server.log();
        said.iter().for_each(|text| assert_eq!(log.matches(text).count(), 1, "{words:?}: {log}"));
        unsaid.iter().for_each(|text| assert!(!log.contains(text), "{words:?}: {log}"));
        assert!(!log.contains("secret"), "{log}");
    }
}

/// Faults, row D3. The same bytes end a connection of redis-server 7.0.15.
#[test]
fn what_a_web_page_sends_is_no_command() {
    let server = TestServer::start(&[]);
    for door in [server.port(), server.cluster_port()] {
        for head in ["POST / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let mut page = Client::connect(door).unwrap();
            page.send_raw(format!("{head}SET pwned 1\r\n").as_bytes()).unwrap();
            if head.starts_with("GET") {
                let arity = "ERR wrong number of arguments for 'get' command";
                assert_eq!(page.read().unwrap().error(), Some(arity));
            }
            assert!(page.is_closed(), "{head}");
        }
    }
    assert_eq!(server.client().line("GET pwned"), Value::Null);
    assert_eq!(server.log_tail().matches("possible SECURITY ATTACK").count(), 1);
}

/// Faults, row D5.
#[test]
fn strangers_lock_nobody_out_and_have_to_leave() {
    let server = TestServer::start(&["--requirepass", "secret", "--maxclients", "20"]);
    let mut strangers: Vec<Client> = (0..60).map(|_| server.client()).collect();
    let mut operator = server.client();
    assert_eq!(operator.line("AUTH secret"), Value::ok());
    assert!(operator.line("CLIENT LIST").text().lines().count() <= 20);
    // They cannot push out whoever is known, nor stay by speaking, nor by reading nothing of what they are told.
    strangers.extend((0..60).map(|_| server.client()));
    let mut deaf = server.client();
    let speaking = thread::spawn(move || {
        let said = deaf.send_raw(&b"PING\r\n".repeat(2 << 20));
        (said, deaf)
    });
    let last = strangers.last_mut().unwrap();
    wait_for("the end of all strangers", PATIENCE, || {
        let _answer = last.try_cmd(&["PING"]);
        let info = operator.line("INFO clients").text();
        if info.contains("connected_clients:1\r\n") { Ok(()) } else { Err(info) }
    });
    let (said, _deaf) = speaking.join().unwrap();
    assert!(said.is_err(), "more than fits into the buffers of both ends");
}

/// Faults, row D5: a guess per connection was as fast as connections are.
#[test]
fn who_reconnects_guesses_no_faster_and_keeps_nobody_out_for_long() {
    let server = TestServer::start(&["--requirepass", "secret"]);
    let before = now_us();
    let guess = || {
        let mut guesser = server.client();
        guesser.send(&["AUTH", "guess"]).unwrap();
        guesser
    };
    let guessers: Vec<Client> = (0..40).map(|_| guess()).collect();
    let mut elsewhere = Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), server.port()).unwrap();
    assert_eq!(elsewhere.line("AUTH secret"), Value::ok());
    let (mut wrong, mut refused) = (0, 0);
    for mut guesser in guessers {
        match guesser.read().unwrap().error() {
            Some(text) if text.starts_with("WRONGPASS ") => wrong += 1,
            Some(text) if text.starts_with("TRYAGAIN ") => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    let seconds = (now_us() - before) / 1_000_000;
    assert!((1..=seconds).contains(&wrong), "{wrong} in {seconds} s");
    assert_eq!(wrong + refused, 40);
    // Whoever knows it waits for a turn at most, also where it is guessed.
    wait_for("a turn", PATIENCE, || match server.client().line("AUTH secret") {
        Value::Simple(_) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Faults, row D5: 130,000 guesses a second.
#[test]
fn guesses_are_counted_logged_and_slow_and_the_right_password_is_not() {
    const GUESSES: usize = 500;
    let server = TestServer::start(&["--requirepass", "secret"]);
    let mut guesser = server.client();
    let mut bytes = request(&["AUTH", "guess"]).repeat(GUESSES);
    bytes.extend(request(&["AUTH", "secret"]));
    guesser.send_raw(&bytes).unwrap();
    let mut operator = server.client();
    let before = now_us();
    assert_eq!(operator.line("AUTH secret"), Value::ok());
    let denied = |operator: &mut Client| {
        let stats = operator.line("INFO stats").text();
        let count = stats.lines().find_map(|line| line.strip_prefix("acl_access_denied_auth:"));
        count.unwrap().parse::<u64>().unwrap()
    };
    for _ in 0..2 {
        let error = guesser.read().unwrap();
        assert!(error.error().is_some_and(|text| text.starts_with("WRONGPASS ")), "{error:?}");
    }
    let seconds = || (now_us() - before) / 1_000_000 + 2;
    assert!((2..=seconds()).contains(&denied(&mut operator)));
    assert_eq!(server.log_tail().matches("a client gave a wrong password").count(), 1);
    assert!(!server.log_tail().contains("guess"));
    let metrics = server.admin("/metrics").unwrap();
    assert!(metrics.contains("\nkvorum_auth_failures_total "), "{metrics}");
    // What it has sent does not give it more than the ten seconds of any stranger.
    while guesser.read().is_ok() {}
    assert!((2..15).contains(&denied(&mut operator)));
}

/// Faults, row D7.
#[test]
fn the_data_directory_is_its_owners_alone() {
    let mut server = TestServer::start(&["--wal-sync-mark", "yes"]);
    assert_eq!(server.client().line("SET k v"), Value::ok());
    server.terminate();
    let mut folders = vec![server.dir()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(mode_of(&folder), 0o700, "{}", folder.display());
        for item in std::fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            assert_eq!(mode_of(&path), 0o600, "{}", path.display());
            files += 1;
        }
    }
    assert!(files >= 4, "{files}");
}

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
