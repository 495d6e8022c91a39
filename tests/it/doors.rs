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
