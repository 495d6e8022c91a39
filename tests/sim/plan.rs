//! What a seed stands for: the cluster's shape, its clients, and what befalls it when. Drawn up front, and a text that can be read,
//! changed and run again.

use std::fmt::{self, Display};
use std::str::FromStr;

use kvorum::node::Sizes;
use kvorum::wal::limits::SEGMENT_BYTES_MIN;
use kvorum::{raft, shard};

use crate::dice::Dice;
use crate::network::HostId;

/// A history to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) shards: u16,
    pub(crate) clients: usize,
    /// `appendfsync`.
    pub(crate) sync: &'static str,
    /// Bytes of log after which a shard takes a snapshot; the other sizes go by it. 0 for those of a real node.
    pub(crate) log: u64,
    /// How long faults may begin, in milliseconds after the cluster's birth.
    pub(crate) faults_ms: u64,
    pub(crate) faults: Vec<(u64, Fault)>,
}

/// What befalls the cluster. Numbers are milliseconds unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9 of the process after so many acts more; another one starts later.
    Kill { host: HostId, acts: u64, down: u64 },
    /// The process is asked to stop, and started anew.
    Stop { host: HostId, down: u64 },
    /// The machine loses its power; the seed says what stays of what was not synced.
    Power { host: HostId, kept: Option<u64>, down: u64 },
    /// All machines lose their power at once.
    Blackout { kept: Option<u64>, down: u64 },
    /// The process stands still.
    Pause { host: HostId, lasts: u64 },
    /// Nothing arrives from one host at another.
    Cut { from: HostId, to: HostId, lasts: u64 },
    /// One host hears nobody and is heard by nobody.
    Isolate { host: HostId, lasts: u64 },
    /// Bytes from one host to another take up to so long.
    Slow { from: HostId, to: HostId, delay: u64, lasts: u64 },
    /// Connections between two hosts break.
    Reset { one: HostId, other: HostId },
    /// The wall clock is set on or back.
    Wall { host: HostId, step: i64 },
}

/// Values of `appendfsync` that a plan may have.
const SYNCS: [&str; 3] = ["always", "everysec", "no"];

impl Plan {
    /// The plan of `seed`.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut dice = Dice::of(seed, "plan");
        let nodes = dice.pick(&[1, 3, 3, 3, 3, 3, 4, 5, 5]);
        let shards = u16::try_from(dice.within(1, 4)).expect("few");
        let clients = usize::try_from(dice.within(3, 8)).expect("few");
        let faults_ms = dice.within(12, 25) * 1000;
        let sync = dice.pick(&["always", "always", "always", "everysec", "no"]);
        let log = dice.pick(&[0, 4_000, 20_000, 20_000]);
        let (mut faults, mut at) = (Vec::new(), dice.below(2000));
        // Some histories have hardly a quiet second, some hardly a fault.
        let pause = dice.pick(&[300, 1000, 3000]);
        while at < faults_ms {
            faults.push((at, Fault::draw(&mut dice, nodes, sync)));
            at += 1 + dice.below(2 * pause);
        }
        Self { seed, nodes, shards, clients, sync, log, faults_ms, faults }
    }

    /// The sizes of its nodes.
    pub(crate) fn sizes(&self) -> Sizes {
        if self.log == 0 {
            return Sizes::DEFAULT;
        }
        let log = usize::try_from(self.log).expect("few");
        Sizes {
            segment_bytes: SEGMENT_BYTES_MIN,
            log_bytes_max: 8 * SEGMENT_BYTES_MIN,
            raft: raft::Sizes {
                tail_bytes_max: log / 2,
                snapshot_chunk_bytes: 1 + log / 8,
                held_log_bytes_min: 2 * self.log,
            },
            shard: shard::Sizes {
                snapshot_log_bytes: self.log,
                log_kept_bytes: self.log / 4,
                weight_max: 50,
            },
        }
    }
}

impl Fault {
    fn draw(dice: &mut Dice, nodes: usize, sync: &str) -> Self {
        let host = dice.index(nodes);
        let other = (host + 1 + dice.index(nodes.max(2) - 1)) % nodes;
        let lasts = dice.pick(&[100, 600, 1500, 4000, 9000]) + dice.below(600);
        let down = dice.pick(&[1, 50, 600, 3000]) + dice.below(300);
        match dice.below(100) {
            0..20 => Self::Kill { host, acts: dice.below(40), down },
            20..28 => Self::Stop { host, down },
            // The other policies may lose what they acknowledged, which the judge does not know yet.
            28..40 if sync == "always" => {
                let kept = dice.percent(80).then(|| dice.next());
                if dice.percent(30) {
                    Self::Blackout { kept: kept.filter(|_| dice.percent(50)), down }
                } else {
                    Self::Power { host, kept, down }
                }
            }
            40..55 => Self::Pause { host, lasts: lasts / 2 },
            55..68 if nodes > 1 => Self::Cut { from: host, to: other, lasts },
            68..76 if nodes > 1 => Self::Isolate { host, lasts },
            76..84 if nodes > 1 => Self::Slow { from: host, to: other, delay: lasts / 20, lasts },
            84..92 if nodes > 1 => Self::Reset { one: host, other },
            _ => {
                let ms = dice.pick(&[50, 3_000, 3_600_000]);
                let ms = i64::try_from(dice.below(ms)).expect("hours");
                Self::Wall { host, step: if dice.percent(50) { ms } else { -ms } }
            }
        }
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, nodes, shards, clients, sync, log, faults_ms, faults } = self;
        writeln!(
            f,
            "seed {seed} nodes {nodes} shards {shards} clients {clients} sync {sync} log {log} for {faults_ms}"
        )?;
        for (at, fault) in faults {
            writeln!(f, "{at} {fault}")?;
        }
        Ok(())
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { host, acts, down } => write!(f, "kill {host} acts {acts} down {down}"),
            Self::Stop { host, down } => write!(f, "stop {host} down {down}"),
            Self::Power { host, kept: Some(kept), down } => {
                write!(f, "power {host} kept {kept} down {down}")
            }
            Self::Power { host, kept: None, down } => write!(f, "power {host} down {down}"),
            Self::Blackout { kept: Some(kept), down } => write!(f, "blackout {down} kept {kept}"),
            Self::Blackout { kept: None, down } => write!(f, "blackout {down}"),
            Self::Pause { host, lasts } => write!(f, "pause {host} for {lasts}"),
            Self::Cut { from, to, lasts } => write!(f, "cut {from} to {to} for {lasts}"),
            Self::Isolate { host, lasts } => write!(f, "isolate {host} for {lasts}"),
            Self::Slow { from, to, delay, lasts } => {
                write!(f, "slow {from} to {to} delay {delay} for {lasts}")
            }
            Self::Reset { one, other } => write!(f, "reset {one} to {other}"),
            Self::Wall { host, step } => write!(f, "wall {host} step {step}"),
        }
    }
}

/// Words in pairs, after the first two or none.
struct Words<'a>(Vec<&'a str>);

impl Words<'_> {
    /// The number behind `name`.
    fn number<T: FromStr>(&self, name: &str) -> Result<T, String> {
        self.maybe(name)?.ok_or_else(|| format!("there is no {name} in: {}", self.0.join(" ")))
    }

    fn maybe<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let at = self.0.iter().position(|word| *word == name);
        let word = at.and_then(|at| self.0.get(at + 1));
        let wrong = |word: &&str| format!("{name} {word} is no number");
        word.map(|word| word.parse().map_err(|_| wrong(word))).transpose()
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = Words(text.split_whitespace().collect());
        let kind = *words.0.first().ok_or("an empty fault")?;
        if kind == "blackout" {
            return Ok(Self::Blackout { kept: words.maybe("kept")?, down: words.number(kind)? });
        }
        let host = words.number(kind)?;
        Ok(match kind {
            "kill" => Self::Kill { host, acts: words.number("acts")?, down: words.number("down")? },
            "stop" => Self::Stop { host, down: words.number("down")? },
            "power" => {
                Self::Power { host, kept: words.maybe("kept")?, down: words.number("down")? }
            }
            "pause" => Self::Pause { host, lasts: words.number("for")? },
            "cut" => Self::Cut { from: host, to: words.number("to")?, lasts: words.number("for")? },
            "isolate" => Self::Isolate { host, lasts: words.number("for")? },
            "slow" => Self::Slow {
                from: host,
                to: words.number("to")?,
                delay: words.number("delay")?,
                lasts: words.number("for")?,
            },
            "reset" => Self::Reset { one: host, other: words.number("to")? },
            "wall" => Self::Wall { host, step: words.number("step")? },
            other => return Err(format!("there is no fault {other}")),
        })
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines =
            text.lines().map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#'));
        let words = Words(lines.next().ok_or("an empty plan")?.split_whitespace().collect());
        let sync: String = words.number("sync")?;
        let sync = SYNCS.into_iter().find(|it| *it == sync).ok_or("there is no such sync")?;
        let fault = |line: &str| {
            let (at, fault) = line.split_once(' ').ok_or("a fault without a time")?;
            let at = at.parse().map_err(|_| format!("{at} is no time"))?;
            Ok::<_, String>((at, fault.parse()?))
        };
        Ok(Self {
            seed: words.number("seed")?,
            nodes: words.number("nodes")?,
            shards: words.number("shards")?,
            clients: words.number("clients")?,
            sync,
            log: words.number("log")?,
            faults_ms: words.number("for")?,
            faults: lines.map(fault).collect::<Result<_, _>>()?,
        })
    }
}
