//! What strangers can do at the doors for clients and operators, and what they cannot.

use crate::support::client::{Client, Value};
use crate::support::node::{Doors, TestServer};
use crate::support::{PATIENCE, wait_for};

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
