//! The room from outside: files and flags in, options, answers and error lines out.

use std::error::Error;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use crate::resp::{Limits, RequestDecoder};

use super::file;
use super::limits::FILE_BYTES_MAX;
use super::values::Values;
use super::*;

/// The configuration of these flags, written as on a command line without quotes.
fn flags(line: &str) -> Result<Config, ConfigError> {
    load(&line.split_whitespace().collect::<Vec<_>>())
}

fn load(args: &[&str]) -> Result<Config, ConfigError> {
    match Config::load(args.iter().map(|arg| (*arg).to_owned()))? {
        Start::Run(config) => Ok(config),
        other @ (Start::Help | Start::Version) => panic!("{args:?} asks for {other:?}"),
    }
}

/// The configuration of a file with this text, then flags.
fn file_and_flags(text: &[u8], args: &[&str]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.conf");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let args: Vec<&str> = std::iter::once(path).chain(args.iter().copied()).collect();
    load(&args).map_err(|error| one_line(&error).replace(path, "x.conf"))
}

/// The error as the process prints it: with its causes, on one line.
fn one_line(error: &ConfigError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    assert!(!line.contains('\n'), "{line:?}");
    line
}

fn get(config: &Config, name: &str) -> String {
    match config.get(&[name]).as_slice() {
        [(_, value)] => value.clone(),
        other => panic!("{name} is answered by {other:?}"),
    }
}

/// Each text, as the file x.conf, is refused with its line.
fn check_error_lines(table: &[(&[u8], &str)]) {
    for (text, line) in table {
        let shown = String::from_utf8_lossy(text);
        assert_eq!(file_and_flags(text, &[]).map(|_| ()), Err((*line).to_owned()), "{shown}");
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn defaults_are_those_the_documentation_names() {
    let config = flags("").unwrap();
    let expected = [
        ("admin-hosts", ""),
        ("admin-port", "0"),
        ("appendfsync", "everysec"),
        ("appendonly", "yes"),
        ("bind", "127.0.0.1"),
        ("cluster-announce-cluster-port", "0"),
        ("cluster-announce-hostname", ""),
        ("cluster-announce-ip", ""),
        ("cluster-announce-port", "0"),
        ("cluster-nodes", ""),
        ("cluster-port", "7379"),
        ("cluster-secret", ""),
        ("cluster-shards", "auto"),
        ("databases", "16"),
        ("dir", "./data"),
        ("io-threads", "auto"),
        ("logfile", ""),
        ("loglevel", "notice"),
        ("maxclients", "10000"),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("node-id", "n1"),
        ("peer-port", "16379"),
        ("port", "6379"),
        ("protected-mode", "yes"),
        ("proto-max-bulk-len", "134217728"),
        ("read-consistency", "lease"),
        ("replication-factor", "3"),
        ("requirepass", ""),
        ("save", ""),
        ("tcp-backlog", "511"),
        ("tcp-keepalive", "300"),
        ("timeout", "0"),
        ("wal-sync-mark", "no"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(config.get(&["*"]), expected, "sorted by name, each once");
}

#[test]
fn default_options_are_the_default_texts() {
    let options = flags("").unwrap().options();
    let expected = Options {
        bind: vec![BindAddress { ip: [127, 0, 0, 1].into(), is_optional: false }],
        protected_mode: true,
        port: Some(6379),
        cluster_port: Some(7379),
        peer_port: 16_379,
        admin_port: None,
        admin_hosts: Vec::new(),
        tcp_backlog: 511,
        tcp_keepalive: Some(Duration::from_mins(5)),
        timeout: None,
        maxclients: 10_000,
        requirepass: Secret::new(""),
        proto_max_bulk_len: 128 * 1024 * 1024,
        node_id: "n1".into(),
        cluster_nodes: String::new(),
        cluster_shards: None,
        replication_factor: 3,
        cluster_secret: Secret::new(""),
        cluster_announce_hostname: None,
        cluster_announce_ip: None,
        cluster_announce_port: None,
        cluster_announce_cluster_port: None,
        dir: "./data".into(),
        appendfsync: AppendFsync::Everysec,
        read_consistency: ReadConsistency::Lease,
        wal_sync_mark: false,
        io_threads: None,
        maxmemory: 0,
        loglevel: LogLevel::Notice,
        logfile: None,
    };
    assert_eq!(*options, expected);
}

#[test]
fn every_option_follows_its_directive() {
    let line = "--bind 10.0.0.1 -::1 * -::* --protected-mode no --port 1 --cluster-port 2 --peer-port 3 --admin-port 4 --admin-hosts a.b * \
        --tcp-backlog 5 --tcp-keepalive 0 --timeout 6 --maxclients 7 --requirepass p \
        --proto-max-bulk-len 2mb --node-id b --cluster-nodes a=h:1 b=h:2 --cluster-shards 8 \
        --replication-factor 7 --cluster-secret s --cluster-announce-hostname h.example \
        --cluster-announce-ip 2001:DB8::1 --cluster-announce-port 9 \
        --cluster-announce-cluster-port 10 --dir /d --appendfsync Always --read-consistency QUORUM \
        --wal-sync-mark yes --io-threads 128 --loglevel debug --logfile /l";
    let bind = |ip: &str, is_optional| BindAddress { ip: ip.parse().unwrap(), is_optional };
    let expected = Options {
        bind: vec![
            bind("10.0.0.1", false),
            bind("::1", true),
            bind("0.0.0.0", false),
            bind("::", true),
        ],
        protected_mode: false,
        port: Some(1),
        cluster_port: Some(2),
        peer_port: 3,
        admin_port: Some(4),
        admin_hosts: vec!["a.b".into(), "*".into()],
        tcp_backlog: 5,
        tcp_keepalive: None,
        timeout: Some(Duration::from_secs(6)),
        maxclients: 7,
        requirepass: Secret::new("p"),
        proto_max_bulk_len: 2 * 1024 * 1024,
        node_id: "b".into(),
        cluster_nodes: "a=h:1 b=h:2".into(),
        cluster_shards: Some(8),
        replication_factor: 7,
        cluster_secret: Secret::new("s"),
        cluster_announce_hostname: Some("h.example".into()),
        cluster_announce_ip: Some("2001:db8::1".parse::<IpAddr>().unwrap()),
        cluster_announce_port: Some(9),
        cluster_announce_cluster_port: Some(10),
        dir: "/d".into(),
        appendfsync: AppendFsync::Always,
        read_consistency: ReadConsistency::Quorum,
        wal_sync_mark: true,
        io_threads: Some(128),
        maxmemory: 0,
        loglevel: LogLevel::Debug,
        logfile: Some("/l".into()),
    };
    assert_eq!(*flags(line).unwrap().options(), expected);
}

#[test]
fn words_of_choices_are_in_the_order_of_their_variants() {
    let sync = [AppendFsync::Everysec, AppendFsync::Always, AppendFsync::No];
    assert_eq!(AppendFsync::WORDS, ["everysec", "always", "no"]);
    assert_eq!(sync.map(Some), ["everysec", "always", "NO"].map(AppendFsync::from_word));
    let levels = [LogLevel::Debug, LogLevel::Verbose, LogLevel::Notice, LogLevel::Warning];
    let words = ["debug", "verbose", "notice", "warning"];
    assert_eq!(levels.map(Some), words.map(LogLevel::from_word));
    assert_eq!(LogLevel::from_word("nothing"), None);
}

#[test]
fn accepted_values_are_shown_in_one_form() {
    let table: &[(&str, &[&str], &str)] = &[
        ("bind", &["127.0.0.1 ::1"], "127.0.0.1 ::1"),
        ("bind", &["127.0.0.1", "-::1"], "127.0.0.1 -::1"),
        ("bind", &[" * "], "*"),
        ("port", &["0"], "0"),
        ("port", &["65535"], "65535"),
        ("proto-max-bulk-len", &["1MB"], "1048576"),
        ("proto-max-bulk-len", &["512mb"], "536870912"),
        ("maxmemory", &["600mb"], "629145600"),
        ("appendfsync", &["ALWAYS"], "always"),
        ("wal-sync-mark", &["Yes"], "yes"),
        ("cluster-shards", &["AUTO"], "auto"),
        ("cluster-shards", &["1024"], "1024"),
        ("cluster-nodes", &["n1=h:1,n2=h:2"], "n1=h:1 n2=h:2"),
        ("cluster-nodes", &["n1=h:1", "n2=h:2:3:z"], "n1=h:1 n2=h:2:3:z"),
        ("cluster-nodes", &["  n1=h:1 \t n2=h:2 "], "n1=h:1 n2=h:2"),
        ("cluster-announce-ip", &["0:0:0:0:0:0:0:1"], "::1"),
        ("cluster-announce-ip", &[""], ""),
        ("requirepass", &["with blank \" and 'quotes'"], "with blank \" and 'quotes'"),
        ("dir", &["/with blank"], "/with blank"),
        ("save", &[""], ""),
        ("appendonly", &["YES"], "yes"),
        ("databases", &["16"], "16"),
    ];
    for (name, words, shown) in table {
        let directive = find(name).unwrap();
        assert_eq!(directive.kind.accept(words).as_deref(), Ok(*shown), "{name} {words:?}");
        assert_eq!(directive.kind.accept(&[shown]).as_deref(), Ok(*shown), "{name} again");
    }
}

#[test]
fn refused_values_say_why_as_redis_does() {
    let long = "x".repeat(513);
    let path = "x".repeat(4096);
    let many = ["::1"; 17].join(" ");
    let name = "x".repeat(65);
    let nodes = format!("n1={}", "x".repeat(128 * 1024));
    let table: &[(&str, &[&str], &str)] = &[
        ("port", &["abc"], "argument couldn't be parsed into an integer"),
        ("port", &[""], "argument couldn't be parsed into an integer"),
        ("port", &["+1"], "argument couldn't be parsed into an integer"),
        ("port", &["01"], "argument couldn't be parsed into an integer"),
        ("port", &["9223372036854775808"], "argument couldn't be parsed into an integer"),
        ("port", &["-1"], "argument must be between 0 and 65535 inclusive"),
        ("port", &["65536"], "argument must be between 0 and 65535 inclusive"),
        ("port", &["1", "2"], "wrong number of arguments"),
        ("port", &[], "wrong number of arguments"),
        ("maxclients", &["0"], "argument must be between 1 and 4294967295 inclusive"),
        ("timeout", &["2147483648"], "argument must be between 0 and 2147483647 inclusive"),
        ("replication-factor", &["8"], "argument must be between 1 and 7 inclusive"),
        ("cluster-shards", &["1025"], "argument must be between 1 and 1024 inclusive"),
        ("io-threads", &["many"], "argument must be 'auto' or an integer"),
        ("proto-max-bulk-len", &["1x"], "argument must be a memory value"),
        ("proto-max-bulk-len", &["1"], "argument must be between 1048576 and 536870912 inclusive"),
        (
            "proto-max-bulk-len",
            &["18446744073709551615"],
            "argument must be between 1048576 and 536870912 inclusive",
        ),
        ("wal-sync-mark", &["on"], "argument must be 'yes' or 'no'"),
        ("appendfsync", &["foo"], "argument(s) must be one of the following: everysec, always, no"),
        ("dir", &[""], "argument must not be empty"),
        ("dir", &["a\0b"], "argument must not contain a NUL byte"),
        ("dir", &[&path], "argument must not be longer than 4095 bytes"),
        ("requirepass", &[&long], "argument must not be longer than 512 bytes"),
        ("bind", &[""], "argument must not be empty"),
        ("bind", &["localhost"], "argument must be a list of IP addresses"),
        ("bind", &["--::1"], "argument must be a list of IP addresses"),
        ("bind", &["127.0.0.1:6379"], "argument must be a list of IP addresses"),
        ("bind", &[&many], "at most 16 arguments are allowed"),
        ("node-id", &[""], "argument must be a node name of a-z A-Z 0-9 . _ -"),
        ("node-id", &["n 1"], "argument must be a node name of a-z A-Z 0-9 . _ -"),
        ("node-id", &[&name], "argument must be a node name of a-z A-Z 0-9 . _ -"),
        (
            "cluster-nodes",
            &["n1"],
            "argument must be a list of name=host:peerport[:weight[:zone]], each name once",
        ),
        (
            "cluster-nodes",
            &["=h:1"],
            "argument must be a list of name=host:peerport[:weight[:zone]], each name once",
        ),
        (
            "cluster-nodes",
            &["n1=h:1", "n1=h:2"],
            "argument must be a list of name=host:peerport[:weight[:zone]], each name once",
        ),
        ("cluster-nodes", &[&nodes], "argument must not be longer than 131072 bytes"),
        (
            "cluster-announce-hostname",
            &["a b"],
            "argument must be a host name of a-z A-Z 0-9 . _ -",
        ),
        ("cluster-announce-hostname", &[&long], "argument must not be longer than 255 bytes"),
        ("admin-hosts", &["a b:1"], "argument must be a host name of a-z A-Z 0-9 . _ -"),
        ("admin-hosts", &[&["h"; 65].join(" ")], "at most 64 arguments are allowed"),
        ("cluster-announce-ip", &["example.org"], "argument must be an IP address"),
        ("databases", &["8"], "there are always 16 databases"),
        (
            "save",
            &["3600", "1"],
            "there are no save points; the log and its own snapshots keep the data",
        ),
        ("appendonly", &["no"], "the log is always on; appendfsync says how durable it is"),
        ("maxmemory-policy", &["allkeys-lru"], "eviction is not supported yet"),
    ];
    for (name, words, reason) in table {
        let refused = find(name).unwrap().kind.accept(words).map_err(|reason| reason.to_string());
        assert_eq!(refused, Err((*reason).to_owned()), "{name} {words:?}");
    }
}

#[test]
fn wrong_files_are_told_in_one_line() {
    let table: &[(&[u8], &str)] = &[
        (
            b"\n# c\nfoo 1\n",
            "x.conf:3: unknown directive 'foo'; kvorum --help lists all directives",
        ),
        (b"prot 1", "x.conf:1: unknown directive 'prot'; did you mean 'port'?"),
        (b"APENDFSYNC no", "x.conf:1: unknown directive 'APENDFSYNC'; did you mean 'appendfsync'?"),
        (b"\"\" 1", "x.conf:1: unknown directive ''; kvorum --help lists all directives"),
        (
            b"x\x1b[1m\xc3\xa9 1",
            "x.conf:1: unknown directive 'x?[1m\u{e9}'; kvorum --help lists all directives",
        ),
        (
            b"include other.conf",
            "x.conf:1: include is not supported; put all directives into one file",
        ),
        (b"port", "x.conf:1: port has no value; it takes a port from 0 to 65535, 0 = closed"),
        (b"port abc", "x.conf:1: port takes a port from 0 to 65535, 0 = closed, not 'abc'"),
        (b"port 1 2", "x.conf:1: port takes a port from 0 to 65535, 0 = closed, not '1 2'"),
        (
            b"timeout \"5 s\"",
            "x.conf:1: timeout takes a whole number of seconds from 0 to 2147483647, not '5 s'",
        ),
        (
            b"io-threads 0",
            "x.conf:1: io-threads takes auto or a whole number of threads from 1 to 128, not '0'",
        ),
        (
            b"proto-max-bulk-len 1k",
            "x.conf:1: proto-max-bulk-len takes an amount of memory from 1mb to 512mb, not '1k'",
        ),
        (b"loglevel x", "x.conf:1: loglevel takes one of debug, verbose, notice, warning, not 'x'"),
        (b"wal-sync-mark 1", "x.conf:1: wal-sync-mark takes yes or no, not '1'"),
        (
            b"bind localhost",
            "x.conf:1: bind takes 1 to 16 of: an IP address, *, ::*, each after a - if optional, \
             not 'localhost'",
        ),
        (
            b"node-id a/b",
            "x.conf:1: node-id takes a name of 1 to 64 of a-z A-Z 0-9 . _ -, not 'a/b'",
        ),
        (
            b"cluster-nodes n1 n2",
            "x.conf:1: cluster-nodes takes name=host:peerport[:weight[:zone]] ..., each name once, \
             or \"\", not 'n1 n2'",
        ),
        (
            b"cluster-announce-hostname /",
            "x.conf:1: cluster-announce-hostname takes a host name of at most 255 of \
             a-z A-Z 0-9 . _ -, or \"\", not '/'",
        ),
        (
            b"cluster-announce-ip x",
            "x.conf:1: cluster-announce-ip takes an IP address, or \"\", not 'x'",
        ),
        (b"dir \"\"", "x.conf:1: dir takes a path of 1 to 4095 bytes, not ''"),
        (
            b"logfile a b",
            "x.conf:1: logfile takes a path of at most 4095 bytes, or \"\", not 'a b'",
        ),
        (
            b"maxmemory-policy allkeys-lru",
            "x.conf:1: maxmemory-policy takes only \"noeviction\" (eviction is not supported yet), not 'allkeys-lru'",
        ),
        (
            b"requirepass two words",
            "x.conf:1: requirepass takes a text of at most 512 bytes, \"\" for none, not this text",
        ),
        (
            b"requirepass \"open",
            "x.conf:1: unbalanced quotes; end each with its own kind, followed by a blank",
        ),
        (
            b"dir 'a'b",
            "x.conf:1: unbalanced quotes; end each with its own kind, followed by a blank",
        ),
        (b"dir \xff", "x.conf:1: not UTF-8; write the line as text"),
        (b"dir \"\\xff\"", "x.conf:1: not UTF-8; write the line as text"),
    ];
    check_error_lines(table);
}

#[test]
fn values_that_do_not_fit_are_told_in_one_line() {
    let table: &[(&[u8], &str)] = &[
        (
            b"cluster-nodes n2=h:1 n3=h:1\nnode-id n1",
            "x.conf:2: node-id n1 is not in cluster-nodes (n2 n3); add it there or change node-id",
        ),
        (
            b"cluster-nodes n2=h:1",
            "x.conf:1: node-id n1 is not in cluster-nodes (n2); add it there or change node-id",
        ),
        (
            b"port 65000",
            "x.conf:1: cluster-port would be port 65000 + 1000, above 65535; \
             give cluster-port or a lower port",
        ),
        (
            b"cluster-port 1\nport 55536",
            "x.conf:2: peer-port would be port 55536 + 10000, above 65535; \
             give peer-port or a lower port",
        ),
        (
            b"port 7000\nadmin-port 8000",
            "x.conf:2: cluster-port and admin-port are both 8000; give each its own port",
        ),
        (
            b"cluster-port 6379",
            "x.conf:1: port and cluster-port are both 6379; give each its own port",
        ),
        (
            b"peer-port 0\ncluster-nodes n1=h:1",
            "x.conf:1: peer-port is 0 but cluster-nodes is given; \
             give the peer-port that the peers connect to",
        ),
        (
            b"port 0\ncluster-nodes n1=h:1",
            "x.conf:2: peer-port is 0 but cluster-nodes is given; \
             give the peer-port that the peers connect to",
        ),
    ];
    check_error_lines(table);
}

#[test]
fn wrong_flags_are_told_in_one_line() {
    let table = [
        ("--prot 1", "command line: unknown directive 'prot'; did you mean 'port'?"),
        ("--port=7001", "command line: unknown directive 'port'; did you mean 'port'?"),
        ("--", "command line: unknown directive ''; kvorum --help lists all directives"),
        (
            "--requirepass=hidden",
            "command line: unknown directive 'requirepass'; did you mean 'requirepass'?",
        ),
        ("--port", "command line: port has no value; it takes a port from 0 to 65535, 0 = closed"),
        (
            "--port --bind ::1",
            "command line: port has no value; it takes a port from 0 to 65535, 0 = closed",
        ),
        (
            "-p 7001",
            "command line: '-p' is not understood; write [FILE | -] [--directive value ...]",
        ),
        (
            "/nonexistent.conf other.conf",
            "command line: 'other.conf' is not understood; write [FILE | -] [--directive value ...]",
        ),
        (
            "/nonexistent.conf",
            "/nonexistent.conf: cannot be read: No such file or directory (os error 2)",
        ),
    ];
    for (args, line) in table {
        assert_eq!(one_line(&flags(args).unwrap_err()), line, "{args}");
    }
}

#[test]
fn a_directory_and_a_huge_file_are_no_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let error = load(&[dir.path().to_str().unwrap()]).unwrap_err();
    assert!(one_line(&error).ends_with("cannot be read: Is a directory (os error 21)"), "{error}");

    let size = usize::try_from(FILE_BYTES_MAX).unwrap();
    assert!(file_and_flags(&vec![b'\n'; size], &[]).is_ok());
    assert_eq!(
        file_and_flags(&vec![b'\n'; size + 1], &[]).map(|_| ()),
        Err("x.conf: larger than 1048576 bytes; is this a configuration file?".to_owned())
    );
}

#[test]
fn flags_override_the_file_and_later_lines_earlier_ones() {
    let text = b"port 7001\nPORT 7002\ntimeout 5\n  # indented comment\r\nbind ::1 127.0.0.1\r\n";
    let config = file_and_flags(text, &["--Timeout", "6", "--timeout", "7", "--save", ""]).unwrap();
    let table = [
        ("port", "7002"),
        ("cluster-port", "8002"),
        ("peer-port", "17002"),
        ("timeout", "7"),
        ("bind", "::1 127.0.0.1"),
        ("save", ""),
    ];
    for (name, value) in table {
        assert_eq!(get(&config, name), value, "{name}");
    }
}

#[test]
fn derived_ports_follow_port_unless_given() {
    let table = [
        ("", "7379", "16379"),
        ("--port 7001", "8001", "17001"),
        ("--port 0", "0", "0"),
        ("--port 7001 --cluster-port 0", "0", "17001"),
        ("--port 55535", "56535", "65535"),
        ("--port 65535 --cluster-port 1 --peer-port 0", "1", "0"),
    ];
    for (args, cluster_port, peer_port) in table {
        let config = flags(args).unwrap();
        assert_eq!(get(&config, "cluster-port"), cluster_port, "{args}");
        assert_eq!(get(&config, "peer-port"), peer_port, "{args}");
    }
}

#[test]
fn help_and_version_are_the_first_word_only() {
    let ask = |args: &[&str]| Config::load(args.iter().map(|arg| (*arg).to_owned()));
    for word in ["--help", "-h"] {
        assert!(matches!(ask(&[word, "--port", "x"]), Ok(Start::Help)), "{word}");
    }
    for word in ["--version", "-v"] {
        assert!(matches!(ask(&[word]), Ok(Start::Version)), "{word}");
    }
    let line = ask(&["--port", "1", "--help"]).unwrap_err().to_string();
    assert_eq!(line, "command line: unknown directive 'help'; kvorum --help lists all directives");
}

#[test]
fn lines_split_into_words_as_in_redis() {
    let table: &[(&str, &[&str])] = &[
        ("a b", &["a", "b"]),
        ("a\t\x0b b\r", &["a", "b"]),
        ("a\x0bb\x0c", &["a\x0bb\x0c"]),
        ("\x0c# a", &["#", "a"]),
        ("a #b", &["a", "#b"]),
        (r#"a """#, &["a", ""]),
        ("a ''", &["a", ""]),
        (r#"a "b c" 'd e'"#, &["a", "b c", "d e"]),
        (r#"a b"c d""#, &["a", "bc d"]),
        (r#"a "\n\r\t\b\a\q\"\\""#, &["a", "\n\r\t\x08\x07q\"\\"]),
        (r#"a "\x41\x4g\x""#, &["a", "Ax4gx"]),
        (r#"a "\xc3\xA9""#, &["a", "\u{e9}"]),
        (r"a '\n\'\\ '", &["a", r"\n'\\ "]),
        (r"a b\n", &["a", r"b\n"]),
    ];
    for (line, words) in table {
        let lines = file::parse("x.conf", line.as_bytes()).unwrap();
        assert_eq!(lines.len(), 1, "{line}");
        assert_eq!(lines[0].words, *words, "{line}");
    }
    for line in ["\"", "'", "a \"b", "a 'b\"", "a \"b\"c", "a 'b''c'", "a \"b\\", "a \"\\\""] {
        let error = file::parse("x.conf", line.as_bytes());
        assert!(matches!(error, Err(ConfigError::Quotes { .. })), "{line}: {error:?}");
    }
}

#[test]
fn words_are_quoted_only_where_needed() {
    let table = [
        ("plain", "plain"),
        ("./data", "./data"),
        ("", "\"\""),
        ("two words", "\"two words\""),
        ("#x", "\"#x\""),
        ("a\"b\\", r#""a\"b\\""#),
        ("\n\x07\u{e9}", "\"\\n\\x07\u{e9}\""),
        ("\u{e9}", "\u{e9}"),
    ];
    for (word, quoted) in table {
        assert_eq!(quote(word), quoted);
    }
}

/// Patterns, and the names and values they find.
type Answered<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

#[test]
fn config_get_answers_patterns_as_redis_does() {
    let config = flags("--requirepass secret --cluster-secret hidden").unwrap();
    let table: &[Answered<'_>] = &[
        (&["TIMEOUT"], &[("TIMEOUT", "0")]),
        (&["foo", "timeo*", "TIME*"], &[("timeout", "0")]),
        (&["timeout", "por?"], &[("port", "6379"), ("timeout", "0")]),
        (&["requirepass"], &[("requirepass", "secret")]),
        (&["cluster-secre?"], &[("cluster-secret", "(set)")]),
        (&["maxmemory*"], &[("maxmemory", "0"), ("maxmemory-policy", "noeviction")]),
        (&["[ad]*ir"], &[("dir", "./data")]),
        (&["foo", ""], &[]),
        (&[], &[]),
    ];
    for (patterns, expected) in table {
        let found = config.get(patterns);
        let found: Vec<_> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(found, *expected, "{patterns:?}");
    }
    assert!(config.get(&[b"\xff"]).is_empty());
}

#[test]
fn config_set_changes_options_for_those_who_ask_again() {
    assert_eq!(flags("--timeout 7").unwrap().timeout(), Some(Duration::from_secs(7)));
    let config = flags("").unwrap();
    let before = config.options();
    let version = config.version();
    let changed =
        config.set(&[("TIMEOUT", "9"), ("maxclients", "10000"), ("requirepass", "p")]).unwrap();
    assert_eq!(changed.names, ["timeout", "requirepass"], "what was equal is no change");
    assert_eq!(changed.options.timeout, Some(Duration::from_secs(9)));
    assert_eq!(config.options(), changed.options);
    assert_eq!(before.timeout, None, "a snapshot stays");
    assert_eq!(config.version(), version + 1);
    assert_eq!(get(&config, "timeout"), "9");
    assert_eq!(config.timeout(), Some(Duration::from_secs(9)), "kept beside the options");

    let same = config.set(&[("timeout", "9"), ("save", ""), ("appendonly", "yes")]).unwrap();
    assert_eq!(same.names, Vec::<&str>::new());
    assert_eq!(config.version(), version + 1);
}

/// The text is that of redis-server 7.0 with 92 of 1024 descriptors left.
#[test]
fn maxclients_is_bounded_by_what_the_machine_can_serve() {
    let config = flags("--maxclients 500").unwrap();
    assert_eq!(config.bound_clients(600), None);
    assert_eq!(get(&config, "maxclients"), "500");
    assert_eq!(config.bound_clients(92), Some(500));
    assert_eq!((get(&config, "maxclients").as_str(), config.options().maxclients), ("92", 92));
    let error = config.set(&[("timeout", "3"), ("maxclients", "93")]).unwrap_err().to_string();
    assert_eq!(
        error,
        "CONFIG SET failed (possibly related to argument 'maxclients') - The operating system is \
         not able to handle the specified number of clients, try with 92"
    );
    assert_eq!(get(&config, "timeout"), "0", "nothing of it was taken");
    assert_eq!(config.timeout(), None);
    config.set(&[("maxclients", "91"), ("timeout", "3")]).unwrap();
    assert_eq!(config.options().maxclients, 91);
}

#[test]
fn refused_config_set_changes_nothing_and_says_why_as_redis_does() {
    let failed = "CONFIG SET failed (possibly related to argument";
    let table: &[(&[(&str, &str)], String)] = &[
        (
            &[("timeout", "1"), ("foo", "1")],
            "Unknown option or number of arguments for CONFIG SET - 'foo'".into(),
        ),
        (
            &[("timeout", "1"), ("PORT", "1")],
            format!("{failed} 'port') - can't set immutable config"),
        ),
        (&[("databases", "16")], format!("{failed} 'databases') - can't set immutable config")),
        (
            &[("timeout", "1"), ("Timeout", "2")],
            format!("{failed} 'timeout') - duplicate parameter"),
        ),
        (
            &[("timeout", "1"), ("maxclients", "0")],
            format!("{failed} 'maxclients') - argument must be between 1 and 4294967295 inclusive"),
        ),
        (
            &[("loglevel", "blah")],
            format!(
                "{failed} 'loglevel') - argument(s) must be one of the following: \
                 debug, verbose, notice, warning"
            ),
        ),
        (
            &[("appendonly", "no")],
            format!(
                "{failed} 'appendonly') - the log is always on; appendfsync says how durable it is"
            ),
        ),
        (
            &[("maxmemory", "1zb")],
            format!("{failed} 'maxmemory') - argument must be a memory value"),
        ),
        (
            &[("timeout", "")],
            format!("{failed} 'timeout') - argument couldn't be parsed into an integer"),
        ),
    ];
    let config = flags("").unwrap();
    let before = config.get(&["*"]);
    for (pairs, text) in table {
        assert_eq!(config.set(pairs).unwrap_err().to_string(), *text, "{pairs:?}");
    }
    let bytes: [(&[u8], &[u8]); 1] = [(b"requirepass", b"\xff")];
    let text = config.set(&bytes).unwrap_err().to_string();
    assert_eq!(text, format!("{failed} 'requirepass') - argument must be UTF-8"));
    assert_eq!(config.get(&["*"]), before);
    assert_eq!(config.version(), 0);
}

#[test]
fn runtime_directives_are_those_the_documentation_names() {
    let runtime: Vec<_> = DIRECTIVES
        .iter()
        .filter(|row| row.mutability == Mutability::Runtime && !row.is_fixed())
        .map(|row| row.name)
        .collect();
    let expected = [
        "protected-mode",
        "tcp-keepalive",
        "timeout",
        "maxclients",
        "requirepass",
        "proto-max-bulk-len",
        "loglevel",
        "maxmemory",
    ];
    assert_eq!(runtime, expected);
}

#[test]
fn secrets_are_in_no_debug_text_and_no_error() {
    let config = flags("--requirepass hunter2 --cluster-secret hunter3").unwrap();
    assert_eq!(config.options().requirepass.expose(), "hunter2");
    let shown = format!("{config:?} {:?}", config.options());
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(shown.contains("Secret(set)"), "{shown}");
    for args in ["--requirepass hunter2 x", "--requirepass=hunter2", "--cluster-secret a hunter2"] {
        let error = flags(args).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
    }
}

#[test]
fn a_secret_matches_itself_alone() {
    let secret = Secret::new("abc");
    assert!(secret.matches(b"abc") && secret.is_set());
    for guess in ["", "ab", "abd", "abcabc", "abca", "ABC", "\0\0\0"] {
        assert!(!secret.matches(guess.as_bytes()), "{guess:?}");
    }
    let none = Secret::new("");
    assert!(none.matches(b"") && !none.is_set());
    assert!(!none.matches(b"\0"));
}

#[test]
fn rows_are_well_formed() {
    for (index, row) in DIRECTIVES.iter().enumerate() {
        let name = row.name;
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
        assert!(DIRECTIVES[..index].iter().all(|other| other.name != name), "{name} twice");
        assert!(row.doc.iter().all(|line| line.len() <= 100), "{name}: a line is too long");
        assert!(row.doc.last().is_some_and(|line| line.ends_with(['.', ':'])), "{name}");
        if let DefaultValue::Text(text) = row.default {
            assert_eq!(row.kind.accept(&[text]).as_deref(), Ok(text), "{name}: default");
        }
        if let Kind::Count { min, max } | Kind::AutoCount { min, max } = row.kind {
            let (min, max) = (min.to_string(), max.to_string());
            for end in [min, max] {
                let config = load(&[&format!("--{name}"), &end]).unwrap();
                assert_eq!(get(&config, name), end, "{name}: the option's type fits the range");
            }
            assert!(!row.unit.is_empty(), "{name} counts what?");
        }
    }
    // Sections are whole, so each heading is printed once.
    let mut sections: Vec<_> = DIRECTIVES.iter().map(|row| row.section.title()).collect();
    sections.dedup();
    let whole = sections.len();
    sections.sort_unstable();
    sections.dedup();
    assert_eq!(sections.len(), whole);
}

#[test]
fn committed_conf_file_is_the_generated_one() {
    let path = repository("conf/kvorum.conf");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, conf_file()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(committed == conf_file(), "{path:?} is out of date; UPDATE_GOLDEN=1 rewrites it");
}

#[test]
fn generated_conf_file_says_the_defaults() {
    let config = file_and_flags(conf_file().as_bytes(), &[]).unwrap();
    assert_eq!(config.get(&["*"]), flags("").unwrap().get(&["*"]));
    let moved = file_and_flags(conf_file().as_bytes(), &["--port", "7001"]).unwrap();
    assert_eq!(moved.options().cluster_port, Some(8001), "derived ports follow a flag");
    for row in DIRECTIVES {
        let lines = conf_file();
        let is_named =
            |line: &str| line.trim_start_matches("# ").starts_with(&format!("{} ", row.name));
        assert!(lines.lines().any(is_named), "{}", row.name);
    }
}

#[test]
fn usage_names_every_directive_that_can_be_chosen() {
    let usage = usage();
    for row in DIRECTIVES {
        let is_named = usage.lines().any(|line| line == format!("  --{}", row.name));
        assert_eq!(is_named, !row.is_fixed(), "{}", row.name);
    }
    assert!(usage.contains("from 1mb to 512mb [128mb]"), "{usage}");
    assert!(usage.contains("0 = closed [7379]"), "{usage}");
}

#[test]
fn local_cluster_is_three_nodes_that_name_each_other() {
    let mut ports = Vec::new();
    for number in 1..=3_u16 {
        let path = repository(&format!("conf/cluster/n{number}.conf"));
        let options = load(&[path.to_str().unwrap()]).unwrap().options();
        assert_eq!(options.node_id, format!("n{number}"));
        assert_eq!(options.dir, Path::new(&format!("./data/n{number}")));
        assert_eq!(options.port, Some(7000 + number));
        assert_eq!(options.cluster_port, Some(7100 + number));
        assert_eq!(options.admin_port, Some(7300 + number));
        let own = format!("n{number}=127.0.0.1:{}", options.peer_port);
        assert!(options.cluster_nodes.split(' ').any(|entry| entry == own), "{own}");
        ports.push((options.peer_port, options.cluster_nodes.clone()));
    }
    assert_eq!(ports.iter().map(|node| node.0).collect::<Vec<_>>(), [7201, 7202, 7203]);
    assert!(ports.windows(2).all(|pair| pair[0].1 == pair[1].1), "one list on every node");
}

/// Something that is nearly a configuration.
fn any_line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(DIRECTIVES).prop_map(|row| row.name.to_owned());
    let name = prop_oneof![4 => name, 1 => "[a-z-]{0,12}"];
    let value = prop_oneof!["-?[0-9]{1,20}", "auto|yes|no|always|\\*|::1", "[ -~]{0,20}", ".{0,8}"];
    (name, prop::collection::vec(value, 0..3))
        .prop_map(|(name, values)| format!("{name} {}", values.join(" ")))
}

/// Found by the property below: such a line was one without words.
#[test]
fn a_line_of_any_blanks_says_nothing() {
    assert_eq!(file::parse("x.conf", b" \t\r\n\x0b\n\x0c \x0b\n").unwrap().len(), 0);
}

/// The words that a client says by `line`; `None` when its quotes are unbalanced.
fn words_at_a_door(line: &str) -> Option<Vec<String>> {
    let line = format!("{line}\n");
    let mut decoder = RequestDecoder::new(Limits::AUTHENTICATED);
    let request = decoder.decode(line.as_bytes()).ok()?;
    assert!(request.is_some(), "the line is whole");
    let words = decoder.argv(line.as_bytes()).map(|word| String::from_utf8(word.to_vec()));
    Some(words.map(|word| word.expect("ASCII")).collect())
}

proptest! {
    /// Seeds of failures are printed by proptest.
    #[test]
    fn any_bytes_are_parsed_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(lines) = file::parse("x.conf", &text) {
            prop_assert!(lines.iter().all(|line| !line.words.is_empty()));
        }
    }

    #[test]
    fn a_line_says_the_same_in_a_file_and_at_a_door(
        line in "[ -~]{0,4}[ \t\r\x0b\x0c\"'\\\\ab]{0,12}",
    ) {
        // A comment there, and the beginning of another form here.
        prop_assume!(!line.trim_matches([' ', '\t', '\r']).starts_with('#') && !line.starts_with('*'));
        let lines = file::parse("x.conf", line.as_bytes()).ok();
        let written = lines.map(|lines| lines.into_iter().flat_map(|line| line.words).collect());
        prop_assert_eq!(written, words_at_a_door(&line));
    }

    #[test]
    fn any_lines_make_options_or_one_line_of_error(lines in prop::collection::vec(any_line(), 0..4)) {
        let made = file::parse("x.conf", lines.join("\n").as_bytes()).and_then(|lines| {
            let mut values = Values::new();
            for line in &lines {
                values.give(&line.words, &line.origin)?;
            }
            values.options()
        });
        if let Err(error) = made {
            prop_assert!(one_line(&error).starts_with("x.conf:"), "{}", error);
        }
    }

    #[test]
    fn any_flags_and_pairs_are_answered(
        args in prop::collection::vec("(--)?[ -~]{0,12}", 0..4),
        pairs in prop::collection::vec((any_line(), ".{0,12}"), 0..3),
        pattern in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        // A word without dashes would name a file; the first is made a flag.
        let args = std::iter::once("--port".to_owned()).chain(args);
        if let Err(error) = Config::load(args) {
            prop_assert!(one_line(&error).starts_with("command line: "), "{}", error);
        }
        let config = flags("").unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(line, value)| (line.split(' ').next().unwrap(), value.as_str()))
            .collect();
        let before = config.get(&["*"]);
        if config.set(&pairs).is_err() {
            prop_assert_eq!(config.get(&["*"]), before);
        }
        config.get(&[pattern]);
    }

    #[test]
    fn printed_words_are_read_back(words in prop::collection::vec(any::<String>(), 1..5)) {
        let mut words = words;
        // A line needs a first word that is no comment: a name.
        words[0].insert(0, 'a');
        let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        let lines = file::parse("x.conf", line.as_bytes()).unwrap();
        prop_assert_eq!(lines.len(), 1, "{}", line);
        prop_assert_eq!(&lines[0].words, &words, "{}", line);
    }

    #[test]
    fn what_a_kind_accepts_it_accepts_again(
        row in prop::sample::select(DIRECTIVES),
        word in prop_oneof!["[0-9]{1,7}[kmgb]{0,2}", "[a-z0-9.:=, *-]{0,20}", any::<String>()],
    ) {
        if let Ok(text) = row.kind.accept(&[&word]) {
            prop_assert_eq!(row.kind.accept(&[&text]), Ok(text.clone()), "{}", row.name);
        }
    }
}
