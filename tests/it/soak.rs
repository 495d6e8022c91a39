//! Histories recorded while faults of every kind strike in any order: kills, lost disks, pauses, cut links, slow disks, wall
//! clocks that step. Locks with a deadline are compared with true time meanwhile.
//!
//! `KVORUM_SOAK_MINUTES` sets how long; `scripts/soak` calls it so. Judged in parts, each a cluster's life between two
//! looks at its history, because the search for an order grows with the operations of a key.

use std::collections::BTreeMap;
use std::time::Duration;

use kvorum::stdx::prng::SplitMix64;

use crate::support::checker::check;
use crate::support::cluster::{FAULT, TestCluster};
use crate::support::damage::{Damage, damage};
use crate::support::history::Recording;
use crate::support::locks::Locks;
use crate::support::proxy::Link;
use crate::support::{let_pass, now_us, seed, us};

/// Whether a node whose disk is lost is expected to be filled again by itself. Until it is, such a node elects leaders
/// with an empty log, and the soak would only show that again.
const LOST_DISKS_HEAL: bool = true;

const CLIENTS: usize = 6;

/// How long the soak takes when nobody says otherwise: what a gate can bear.
const SHORT: Duration = Duration::from_secs(40);

/// One part is recorded for this long and then judged.
const PART: Duration = Duration::from_secs(20);

/// `always`, so that a log cut back to its last sync has lost nothing that was acknowledged.
const DIRECTIVES: [&str; 6] =
    ["--cluster-shards", "2", "--appendfsync", "always", "--wal-sync-mark", "yes"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Lose(Damage),
    Pause,
    Cut,
    Silence,
    SlowLink,
    SlowDisk,
    /// A wall clock steps by up to an hour.
    Step,
    /// A node is down while its wall clock steps.
    KillAndStep,
    /// A slow disk at one node and a kill of another.
    SlowDiskAndKill,
    /// A node sleeps while another loses a link.
    PauseAndCut,
}

/// Those that any cluster must bear; lost disks are in [`LOSSES`].
const FAULTS: [Fault; 10] = [
    Fault::Kill,
    Fault::Step,
    Fault::KillAndStep,
    Fault::Pause,
    Fault::Cut,
    Fault::Silence,
    Fault::SlowLink,
    Fault::SlowDisk,
    Fault::SlowDiskAndKill,
    Fault::PauseAndCut,
];

const LOSSES: [Fault; 3] =
    [Fault::Lose(Damage::Everything), Fault::Lose(Damage::Log), Fault::Lose(Damage::Identity)];

fn choose(prng: &mut SplitMix64) -> Fault {
    let below = |prng: &mut SplitMix64, count: usize| {
        usize::try_from(prng.below(u64::try_from(count).unwrap())).unwrap()
    };
    match prng.below(5) {
        0 if LOST_DISKS_HEAL => LOSSES[below(prng, LOSSES.len())],
        1 => Fault::Lose(Damage::Unsynced),
        _ => FAULTS[below(prng, FAULTS.len())],
    }
}

fn millis(prng: &mut SplitMix64, least: u64, span: u64) -> Duration {
    Duration::from_millis(least + prng.below(span))
}

fn shift_ms(prng: &mut SplitMix64) -> i64 {
    [0, 3_600_000, -3_600_000, 900, -900][usize::try_from(prng.below(5)).unwrap()]
}

fn strike(cluster: &mut TestCluster, fault: Fault, prng: &mut SplitMix64) {
    let any = usize::try_from(prng.below(3)).unwrap();
    // Half of the faults hit a leader, as nothing else would be tested by the others.
    let node = if prng.below(2) == 0 { cluster.leader_of("register:0") } else { any };
    let other = (node + 1 + usize::try_from(prng.below(2)).unwrap()) % 3;
    match fault {
        Fault::Kill => {
            cluster.node_mut(node).kill();
            let_pass(millis(prng, 0, 2000));
            cluster.node_mut(node).restart();
        }
        Fault::Step => {
            cluster.node_mut(node).shift_wall(shift_ms(prng));
            let_pass(millis(prng, 0, 500));
        }
        Fault::KillAndStep => {
            cluster.node_mut(node).kill();
            cluster.node_mut(node).shift_wall(shift_ms(prng));
            let_pass(millis(prng, 0, 2000));
            cluster.node_mut(node).restart();
        }
        Fault::Lose(what) => {
            cluster.await_redundancy();
            cluster.node_mut(node).kill();
            damage(cluster.node(node), what);
            cluster.node_mut(node).restart();
            cluster.await_redundancy();
        }
        Fault::Pause => {
            cluster.node_mut(node).pause();
            let_pass(millis(prng, 200, 2500));
            cluster.node_mut(node).resume();
        }
        Fault::Cut => {
            cluster.isolate(node, Link::Cut);
            let_pass(FAULT + millis(prng, 0, 1500));
        }
        Fault::Silence => {
            match prng.below(3) {
                0 => cluster.isolate(node, Link::Silent),
                1 => cluster.link_both(node, other, Link::Silent),
                _ => cluster.link(node, other, Link::Silent),
            }
            let_pass(FAULT + millis(prng, 0, 1500));
        }
        Fault::SlowLink => {
            cluster.isolate(node, Link::Slow(millis(prng, 20, 100)));
            let_pass(FAULT);
        }
        Fault::SlowDisk => {
            cluster.node_mut(node).delay_syncs(millis(prng, 50, 450));
            let_pass(FAULT + millis(prng, 0, 2000));
        }
        Fault::SlowDiskAndKill => {
            cluster.node_mut(other).delay_syncs(millis(prng, 50, 200));
            let_pass(millis(prng, 0, 500));
            cluster.node_mut(node).kill();
            let_pass(millis(prng, 0, 1500));
            cluster.node_mut(node).restart();
        }
        Fault::PauseAndCut => {
            cluster.node_mut(node).pause();
            cluster.link_both(other, 3 - node - other, Link::Cut);
            let_pass(millis(prng, 200, 2000));
            cluster.node_mut(node).resume();
        }
    }
    cluster.heal();
    (0..3).for_each(|index| cluster.node_mut(index).delay_syncs(Duration::ZERO));
}

/// What a soak was made of.
#[derive(Debug, Default)]
struct Counts {
    faults: BTreeMap<Fault, usize>,
    checked: usize,
    locks: usize,
    looks: usize,
    unknown: usize,
    parts: usize,
}

fn length() -> Duration {
    match std::env::var("KVORUM_SOAK_MINUTES") {
        Ok(text) => Duration::from_secs_f64(60.0 * text.parse::<f64>().expect("minutes")),
        Err(_) => SHORT,
    }
}

#[test]
fn histories_hold_under_any_faults_in_any_order() {
    let (seed, length) = (seed(), length());
    let mut prng = SplitMix64::new(seed);
    let mut counts = Counts::default();
    let end = now_us() + us(length);
    while now_us() < end {
        // A cluster of its own for each part, so that a key's history begins with nothing.
        let mut cluster = TestCluster::start_for_soak(3, &DIRECTIVES);
        let recording = Recording::start(&cluster.ports(), CLIENTS, prng.below(u64::MAX));
        // Processes stand still and links are silent for seconds, and what is heard afterwards is as late.
        let late = Duration::from_secs(8);
        let locks = Locks::start(&cluster.ports(), prng.below(u64::MAX), late);
        let part_end = end.min(now_us() + us(PART));
        while now_us() < part_end {
            let_pass(millis(&mut prng, 100, 500));
            let fault = choose(&mut prng);
            strike(&mut cluster, fault, &mut prng);
            *counts.faults.entry(fault).or_default() += 1;
            cluster.await_serving();
        }
        let history = recording.finish();
        counts.unknown += history.iter().filter(|done| done.returned.is_none()).count();
        match check(&history) {
            Ok(checked) => counts.checked += checked,
            Err(violation) => panic!("seed {seed}, after {counts:?}: {violation:#?}"),
        }
        let (granted, looked) = locks.finish();
        counts.locks += granted;
        counts.looks += looked;
        cluster.assert_replicas_agree();
        counts.parts += 1;
        eprintln!("part {}: {} operations hold so far, 0 anomalies", counts.parts, counts.checked);
    }
    assert!(counts.checked > 500, "too little happened: {counts:?}");
    let struck: usize = counts.faults.values().sum();
    assert!(struck > 0, "no fault struck");
    eprintln!("soak of {length:?}, seed {seed}: {struck} faults");
    for (fault, count) in &counts.faults {
        eprintln!("  {count:>5} {fault:?}");
    }
    eprintln!("  {} operations hold, {} unknown, 0 anomalies", counts.checked, counts.unknown);
    eprintln!("  {} locks kept their time, looked at {} times", counts.locks, counts.looks);
}

/// A restart of the machine is seen as one: what the kernel says of its boot is another line.
#[test]
fn a_node_can_be_started_as_after_a_restart_of_its_machine() {
    use crate::support::damage::can_act_boots;
    use crate::support::node::TestServer;

    if !can_act_boots() {
        return eprintln!("SKIPPED: no right to make a mount namespace; nothing was tested");
    }
    let mut server = TestServer::start(&["--appendfsync", "always"]);
    server.client().line("SET k v");
    server.kill();
    for boot in ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"] {
        server.act_boot(boot);
        server.restart();
        assert_eq!(server.boot_id_seen(), boot);
        assert_eq!(server.client().line("GET k").text(), "v");
        server.kill();
    }
}
