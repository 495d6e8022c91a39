//! A machine and the process on it: a real node on a paused runtime of its own, run a slice of time at a time.
//!
//! Every task of a node lands in its runtime, whoever spawned it: a crash drops the runtime, a pause does not run it. What a
//! node has besides is given to it from here: its disk, its clocks, its network, its chance, the work of its log and the
//! reports of its jobs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use kvorum::command::{self, Registry};
use kvorum::config::{Config, Start};
use kvorum::node::{self, Door, LogWork, Node, NodeError, NodeOptions, Progress, Sizes, Started};
use kvorum::ring::Doors;
use kvorum::server::{self, Ends};
use kvorum::session;
use kvorum::stdx::entropy::Entropy;
use kvorum::stdx::memory_disk::MemoryDisk;
use kvorum::stdx::turns::Turns;
use kvorum::transport::{Limits, Net};
use kvorum::wal::{BootId, Next, Stepper, Woken};
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::{SimClock, Wall};
use crate::dice::Dice;
use crate::disk::SimDisk;
use crate::network::{HostId, Network, Visitor, address};
use crate::trace;

/// Where clients knock.
pub(crate) const PLAIN_PORT: u16 = 6379;

/// Tasks polled within one slice: more is a loop that never lets time pass.
const POLLS_MAX: u64 = 200_000;

/// Steps of a log within one slice.
const STEPS_MAX: usize = 64;

/// Whether a process lives, and what of it is seen outside.
#[derive(Debug)]
pub(crate) struct Vitals {
    is_dead: AtomicBool,
    acts: AtomicU64,
    dies_at: AtomicU64,
}

impl Default for Vitals {
    fn default() -> Self {
        let (is_dead, acts) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { is_dead, acts, dies_at: AtomicU64::new(u64::MAX) }
    }
}

impl Vitals {
    /// Something is done that others can see.
    ///
    /// # Errors
    /// When the process is dead, or dies before it.
    pub(crate) fn act(&self) -> io::Result<()> {
        if self.acts.fetch_add(1, Ordering::Relaxed) >= self.dies_at.load(Ordering::Relaxed) {
            self.end();
        }
        self.check()
    }

    /// # Errors
    /// When the process is dead.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.is_dead() { Err(io::Error::other("the process is dead")) } else { Ok(()) }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
    }

    /// It dies after `acts` more.
    pub(crate) fn die_after(&self, acts: u64) {
        let at = self.acts.load(Ordering::Relaxed).saturating_add(acts);
        self.dies_at.store(at, Ordering::Relaxed);
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// kill -9: its files stay as they are.
    Killed,
    /// The machine loses its power, and of what was not synced a part that the seed picks; all of it without one.
    PowerLost(Option<u64>),
    /// By itself.
    Ended,
}

/// A machine.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) name: String,
    words: Vec<String>,
    sizes: Sizes,
    dice: Dice,
    disk: MemoryDisk,
    wall: Arc<Wall>,
    boots: u128,
    network: Network,
    process: Option<Process>,
    paused_until: u64,
}

/// What runs on it.
struct Process {
    vitals: Arc<Vitals>,
    runtime: Runtime,
    began: Instant,
    began_at: u64,
    polls: Arc<AtomicU64>,
    progress: Arc<Progress>,
    turns: Arc<Turns>,
    steppers: mpsc::Receiver<Stepper>,
    log: Option<Tended>,
    start: Option<JoinHandle<Result<Started, NodeError>>>,
    started: Option<Started>,
    node: Option<Arc<Node>>,
    stop: Option<JoinHandle<()>>,
    is_door_open: bool,
}

/// A log and when its next step is due.
struct Tended {
    stepper: Stepper,
    next: Next,
    since: u64,
    busy_until: u64,
}

impl Host {
    /// A machine with an empty disk and nothing running.
    pub(crate) fn new(
        id: HostId,
        (words, sizes): (Vec<String>, Sizes),
        dice: Dice,
        network: Network,
    ) -> Self {
        Self {
            id,
            name: format!("n{}", id + 1),
            words,
            sizes,
            dice,
            disk: MemoryDisk::new(),
            wall: Arc::default(),
            boots: 1,
            network,
            process: None,
            paused_until: 0,
        }
    }

    /// Whether clients may knock.
    pub(crate) fn is_open(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_door_open)
    }

    /// Whether a process runs.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it stands still.
    pub(crate) fn is_paused(&self, now: u64) -> bool {
        now < self.paused_until
    }

    /// What a node that has not opened its door waits for.
    pub(crate) fn waits_for(&self) -> String {
        match &self.process {
            None => "nothing runs".to_owned(),
            Some(process) => process.progress.waits_for().unwrap_or_default(),
        }
    }

    /// Does `act` with the node as one of its tasks would.
    pub(crate) fn within<T>(&self, act: impl FnOnce(&Arc<Node>) -> T) -> Option<T> {
        let process = self.process.as_ref()?;
        let _inside = process.runtime.enter();
        process.node.as_ref().map(act)
    }

    /// Starts the process.
    pub(crate) fn start(&mut self, now: u64) {
        let _on = trace::on(&self.name);
        trace::note("start", format_args!("boot {}", self.boots));
        let polls = Arc::new(AtomicU64::new(0));
        let runtime = paused_runtime(self.dice.next(), Arc::clone(&polls));
        let inside = runtime.enter();
        let Ok(Start::Run(config)) = Config::load(self.words.iter().cloned()) else {
            unreachable!("the words of {} are a configuration", self.name)
        };
        let vitals = Arc::new(Vitals::default());
        let (progress, turns) = (Arc::new(Progress::new()), Arc::new(Turns::default()));
        let (log, steppers) = mpsc::channel();
        let data = command::all().map(|command| command.spec);
        let options = NodeOptions {
            config: Arc::new(config),
            clock: Arc::new(SimClock::begin(Duration::from_millis(now), Arc::clone(&self.wall))),
            disk: Arc::new(SimDisk::new(self.disk.clone(), Arc::clone(&vitals))),
            net: Net::Other(Arc::new(self.network.port(self.id, &vitals))),
            workers: Arc::clone(&turns) as _,
            log: LogWork::Steps(log),
            entropy: Entropy::seeded(self.dice.next()),
            boot_id: BootId::new(self.boots),
            sizes: self.sizes,
            runtimes: vec![runtime.handle().clone()],
            doors: Doors {
                host: address(self.id).to_string(),
                port: PLAIN_PORT,
                cluster_port: PLAIN_PORT + 1000,
            },
            peer_limits: Limits::default(),
            registry: Registry::new(data.chain(node::specs()).chain(session::specs())),
            progress: Arc::clone(&progress),
        };
        let start = runtime.spawn(node::start(options));
        let began = Instant::now();
        drop(inside);
        self.process = Some(Process {
            vitals,
            runtime,
            began,
            began_at: now,
            polls,
            progress,
            turns,
            steppers,
            log: None,
            start: Some(start),
            started: None,
            node: None,
            stop: None,
            is_door_open: false,
        });
    }

    /// Lets a client in who has come to the door.
    pub(crate) fn let_in(&self, visitor: &Visitor) {
        let Some(process) = &self.process else { return };
        let Some(node) = &process.node else { return };
        let _on = trace::on(&self.name);
        let _inside = process.runtime.enter();
        let stream = self.network.welcome(visitor, &process.vitals);
        let ends = Ends { peer: visitor.peer, local: visitor.local };
        server::let_in(stream, ends, Door::Plain, node);
    }

    /// Nothing runs until `until`.
    pub(crate) fn pause(&mut self, until: u64) {
        let _on = trace::on(&self.name);
        trace::note("pause", format_args!("until {until}"));
        self.paused_until = until;
    }

    /// The process dies after `acts` more things that others can see.
    pub(crate) fn die_after(&self, acts: u64) {
        if let Some(process) = &self.process {
            process.vitals.die_after(acts);
        }
    }

    /// Asks the process to stop in order.
    pub(crate) fn stop(&mut self) {
        let Some(process) = &mut self.process else { return };
        let Some(started) = process.started.take() else { return };
        let _on = trace::on(&self.name);
        trace::note("stop", format_args!(""));
        process.stop = Some(process.runtime.spawn(async move {
            started.hand_over_leads().await;
            started.node.stop();
            started.stop().await;
        }));
    }

    /// Steps the wall clock.
    pub(crate) fn step_wall(&self, ms: i64) {
        self.wall.step(ms);
    }

    /// Ends the process, if there is one, and what `how` says of the machine.
    pub(crate) fn kill(&mut self, how: Death) {
        let _on = trace::on(&self.name);
        trace::note("dies", format_args!("{how:?}"));
        let process = self.process.take();
        if let Some(process) = &process {
            process.vitals.end();
            process.turns.end();
        }
        match how {
            Death::Killed | Death::Ended => {
                self.network.close_all(self.id);
                self.disk.end_process();
            }
            Death::PowerLost(kept) => {
                self.network.set_power(self.id, false);
                self.disk.lose_power(kept);
                self.boots += 1;
            }
        }
        drop(process);
        self.paused_until = 0;
    }

    /// The machine has its power again.
    pub(crate) fn power_on(&self) {
        self.network.set_power(self.id, true);
        if self.disk.is_off() {
            self.disk.power_on();
        }
    }

    /// Lets time pass to `now` milliseconds.
    ///
    /// # Errors
    /// Why the node does not go on.
    pub(crate) fn run_to(&mut self, now: u64) -> Result<(), String> {
        let Some(process) = &mut self.process else { return Ok(()) };
        if now < self.paused_until {
            return Ok(());
        }
        let _on = trace::on(&self.name);
        process.run_to(now);
        let delay = self.dice.below(3);
        process.after(now, delay, &mut self.dice);
        process.look(&self.name)?;
        if !process.is_door_open && process.is_ready() {
            process.is_door_open = true;
            trace::note("opens", format_args!("its door"));
            let door = SocketAddr::from((address(self.id), PLAIN_PORT));
            self.network.set_door(door, true);
        }
        if process.vitals.is_dead() {
            self.kill(Death::Killed);
        } else if process.stop.as_ref().is_some_and(JoinHandle::is_finished) {
            self.kill(Death::Ended);
        }
        Ok(())
    }
}

/// A runtime whose time moves only as it is told, and whose chance is the seed's.
pub(crate) fn paused_runtime(seed: u64, polls: Arc<AtomicU64>) -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .on_before_task_poll(move |_| {
            let polled = polls.fetch_add(1, Ordering::Relaxed);
            assert!(polled < POLLS_MAX, "tasks are polled for ever, and time stands still");
        })
        .build()
        .expect("a runtime without I/O needs nothing of the system")
}

/// Lets `runtime` run until its time is `to`; skips at once to a millisecond before, as a process does that was stopped.
pub(crate) fn run_runtime(runtime: &Runtime, to: Instant) {
    runtime.block_on(async move {
        let behind = to.saturating_duration_since(Instant::now());
        if behind > Duration::from_millis(1) {
            tokio::time::advance(behind.saturating_sub(Duration::from_millis(1))).await;
        }
        tokio::time::sleep_until(to).await;
    });
}

impl Process {
    fn run_to(&mut self, now: u64) {
        self.polls.store(0, Ordering::Relaxed);
        run_runtime(&self.runtime, self.began + Duration::from_millis(now - self.began_at));
    }

    /// What happens beside the runtime.
    fn after(&mut self, now: u64, delay: u64, dice: &mut Dice) {
        let _inside = self.runtime.enter();
        if let Ok(stepper) = self.steppers.try_recv() {
            self.log = Some(Tended { stepper, next: Next::More, since: now, busy_until: now });
        }
        if let Some(log) = &mut self.log
            && log.tend(now, dice)
        {
            self.log = None;
        }
        self.turns.delay(delay);
        self.turns.pass(1);
    }

    /// Takes notice of what has come about.
    fn look(&mut self, name: &str) -> Result<(), String> {
        if self.vitals.is_dead() {
            return Ok(());
        }
        if let Some(start) = self.start.take_if(|start| start.is_finished()) {
            match self.runtime.block_on(start) {
                Ok(Ok(started)) => {
                    trace::note("started", format_args!(""));
                    self.node = Some(Arc::clone(&started.node));
                    self.started = Some(started);
                }
                Ok(Err(error)) => return Err(format!("{name} does not start: {error}")),
                Err(error) => return Err(format!("{name} does not start: {error}")),
            }
        }
        match self.node.as_ref().and_then(|node| node.take_failure()) {
            Some(failure) => Err(format!("{name} must not go on: {failure}")),
            None => Ok(()),
        }
    }

    fn is_ready(&self) -> bool {
        self.started.is_some() && self.progress.waits_for().is_none()
    }
}

impl Tended {
    /// Takes the steps that are due; whether the log has ended.
    fn tend(&mut self, now: u64, dice: &mut Dice) -> bool {
        while self.stepper.write() {}
        for _ in 0..STEPS_MAX {
            if now < self.busy_until {
                return false;
            }
            let woken = match self.next {
                Next::Ended => return true,
                Next::WorkWithin(delay) if u128::from(now - self.since) >= delay.as_millis() => {
                    Woken::ByTime
                }
                next if self.stepper.is_wanted(next) => Woken::ByWork,
                Next::More | Next::Work | Next::WorkWithin(_) => return false,
            };
            self.next = self.stepper.step(woken);
            self.since = now;
            if self.next == Next::More {
                // What was written is being synced.
                self.busy_until = now + dice.below(4);
            }
        }
        false
    }
}
