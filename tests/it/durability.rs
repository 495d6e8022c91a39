//! What disks and power cuts do to a log, seen from outside.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::client::Value;
use crate::support::cluster::TestCluster;
use crate::support::load::Load;
use crate::support::node::TestServer;
use crate::support::rounds;

/// `--wal-sync-mark` has the log write down where its last fsync ended.
const ALWAYS: [&str; 4] = ["--appendfsync", "always", "--wal-sync-mark", "yes"];

#[test]
fn always_loses_nothing_to_a_power_cut_of_every_node() {
    let mut directives = vec!["--cluster-shards", "2"];
    directives.extend(ALWAYS);
    let mut cluster = TestCluster::start(3, &directives);
    let load = Load::start(&cluster.ports());
    for round in 0..rounds(2, 10) {
        load.await_progress(200);
        (0..3).for_each(|index| cluster.node_mut(index).kill());
        for index in 0..3 {
            let cut = kvorum::wal::cut_to_last_sync(&cluster.node(index).wal_dir()).unwrap();
            eprintln!("round {round}: node {} loses {cut} bytes of unsynced log", index + 1);
        }
        (0..3).for_each(|index| cluster.node_mut(index).spawn());
        (0..3).for_each(|index| cluster.node_mut(index).await_ready());
        cluster.await_serving();
        load.await_progress(50);
    }
    let ledger = load.finish();
    ledger.verify(&mut cluster.client(0));
    cluster.assert_replicas_agree();
}

#[test]
fn always_loses_nothing_on_one_node_alone() {
    let mut server = TestServer::start(&ALWAYS);
    for round in 0..rounds(3, 10) {
        let mut client = server.client();
        let before = i64::try_from(round).unwrap() * 100;
        for number in 1..=100 {
            assert_eq!(client.line("INCR n"), Value::Integer(before + number));
        }
        server.kill();
        kvorum::wal::cut_to_last_sync(&server.wal_dir()).unwrap();
        server.restart();
    }
    let expected = (rounds(3, 10) * 100).to_string();
    assert_eq!(server.client().line("GET n"), Value::bulk(expected));
}

/// The segments of a log, oldest first.
fn segments(wal: &Path) -> Vec<PathBuf> {
    let is_mark = |path: &PathBuf| path.file_name().is_some_and(|name| name == "synced");
    let mut files: Vec<PathBuf> = fs::read_dir(wal)
        .unwrap_or_else(|error| panic!("{}: {error}", wal.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !is_mark(path))
        .filter(|path| fs::metadata(path).unwrap().len() > 4096)
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no segment in {}", wal.display());
    files
}

/// The segment that was written last, and where its last record ends, a multiple of 8: beyond that are zeros.
fn written_end(wal: &Path) -> (PathBuf, u64) {
    let mut ends = segments(wal).into_iter().map(|path| {
        let bytes = fs::read(&path).unwrap();
        let end = bytes
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1)
            .next_multiple_of(8);
        (path, u64::try_from(end).unwrap())
    });
    ends.rfind(|(_, end)| *end > 64).expect("something was written")
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

fn written_server(directives: &[&str]) -> TestServer {
    let server = TestServer::start(directives);
    let mut client = server.client();
    for number in 0..300 {
        assert_eq!(client.line(&format!("SET k{number} some-value-{number}")), Value::ok());
    }
    server
}

#[test]
fn a_torn_tail_is_dropped_and_nothing_else() {
    let mut server = written_server(&[]);
    for torn in [&b"\x7f"[..], b"\x20\x00\x00\x00\xaa\xbb\xcc", &[0xa5; 100]] {
        server.kill();
        let (path, end) = written_end(&server.wal_dir());
        overwrite(&path, end, torn);
        server.restart();
        let mut client = server.client();
        for number in 0..300 {
            let value = client.line(&format!("GET k{number}"));
            assert_eq!(value, Value::bulk(format!("some-value-{number}")));
        }
        assert_eq!(client.line("SET later 1"), Value::ok());
    }
}

#[test]
fn a_flipped_bit_in_the_middle_stops_the_node_with_a_reason() {
    // Synced all the time, so that the damage cannot be taken for a tail that never reached the disk.
    let mut server = written_server(&["--appendfsync", "always"]);
    server.kill();
    let (path, end) = written_end(&server.wal_dir());
    let middle = end / 2;
    let byte = fs::read(&path).unwrap()[usize::try_from(middle).unwrap()];
    overwrite(&path, middle, &[byte ^ 0x10]);
    server.spawn();
    let status = server.await_exit();
    assert!(!status.success(), "it must not serve what it cannot vouch for");
    let said = server.log_tail();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name), "which file: {said}");
    overwrite(&path, middle, &[byte]);
    server.restart();
    assert_eq!(server.client().line("GET k299"), Value::bulk("some-value-299"));
}

#[test]
fn a_log_under_endless_writes_stays_bounded() {
    const VALUE_BYTES: usize = 64 << 10;
    /// Twice of what makes a node write snapshots; the data written is more than this.
    const LOG_BYTES_MAX: u64 = 512 << 20;
    let server = TestServer::start(&["--appendfsync", "no"]);
    let mut client = server.client();
    let value = vec![b'x'; VALUE_BYTES];
    let total = rounds(704, 4096) << 20;
    for number in 0..total / VALUE_BYTES {
        client.send(&[b"SET", format!("k{}", number % 16).as_bytes(), &value]).unwrap();
        if number % 16 == 15 {
            (0..16).for_each(|_| assert_eq!(client.read().unwrap(), Value::ok()));
        }
    }
    let bytes: u64 = fs::read_dir(server.wal_dir())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    eprintln!("{} MiB written, {} MiB of log", total >> 20, bytes >> 20);
    assert!(bytes < LOG_BYTES_MAX, "{bytes} bytes of log for 1 MiB of data");
}
