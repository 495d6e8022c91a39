//! The world: hosts in turn, slice by slice of a millisecond, and what befalls them.
//!
//! A history has four parts: the cluster's birth; faults, while clients read and write; a calm in which every node must serve
//! every shard; the judgement.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kvorum::slot::Slot;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{Book, Client, Probe, Shared, read_totals};
use crate::dice::Dice;
use crate::host::{Death, Host, PLAIN_PORT, paused_runtime, run_runtime};
use crate::invariants::{Invariants, states_agree};
use crate::network::{HostId, Link, Network, Port, address};
use crate::plan::{Fault, Plan};
use crate::support::checker;
use crate::trace;

/// How long a birth may take, in milliseconds.
const BIRTH_MS: u64 = 60_000;
/// How long after the last fault every shard must be served through every node.
const CALM_MS: u64 = 30_000;
/// How long clients may take to come to an end.
const FAREWELL_MS: u64 = 40_000;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) virtual_ms: u64,
    /// Operations that the judge vouches for.
    pub(crate) judged: usize,
    /// Milliseconds from the end of the faults until all was served.
    pub(crate) calm_ms: u64,
    /// Leaders that were elected, of all shards.
    pub(crate) leaders: usize,
}

/// A cluster and its clients.
pub(crate) struct World {
    now: u64,
    plan: Plan,
    network: Network,
    hosts: Vec<Host>,
    /// When those start that are down, and how long one stays down that dies next.
    starts: BTreeMap<HostId, u64>,
    downs: BTreeMap<HostId, u64>,
    /// Faults of links and until when.
    links: Vec<(u64, Fault)>,
    strikes: std::vec::IntoIter<(u64, Fault)>,
    clients: Clients,
    invariants: Invariants,
}

/// The host that clients live on.
struct Clients {
    runtime: Runtime,
    began: Instant,
    polls: Arc<AtomicU64>,
    port: Port,
    book: Shared,
    tasks: Vec<JoinHandle<()>>,
}

impl World {
    /// The world of `plan`, before the beginning.
    pub(crate) fn new(plan: Plan) -> Self {
        let dice = |purpose: &str| Dice::of(plan.seed, purpose);
        let network = Network::new(plan.nodes + 1, dice("network"));
        let hosts = (0..plan.nodes).map(|id| {
            Host::new(
                id,
                (words(&plan, id), plan.sizes()),
                dice(&format!("host {id}")),
                network.clone(),
            )
        });
        let clients = Clients::new(network.port(plan.nodes, &Arc::default()), &mut dice("clients"));
        Self {
            now: 0,
            hosts: hosts.collect(),
            network,
            starts: BTreeMap::new(),
            downs: BTreeMap::new(),
            links: Vec::new(),
            strikes: Vec::new().into_iter(),
            clients,
            invariants: Invariants::default(),
            plan,
        }
    }

    /// Lives through the plan.
    ///
    /// # Errors
    /// What must not happen, and has.
    pub(crate) fn run(&mut self) -> Result<Report, String> {
        self.be_born()?;
        self.live()?;
        let calm_ms = self.calm_down()?;
        let judged = self.judge()?;
        Ok(Report { virtual_ms: self.now, judged, calm_ms, leaders: self.invariants.terms() })
    }

    fn be_born(&mut self) -> Result<(), String> {
        let mut dice = Dice::of(self.plan.seed, "birth");
        self.starts = (0..self.plan.nodes).map(|host| (host, 1 + dice.below(300))).collect();
        self.run_until(BIRTH_MS, |world| world.hosts.iter().all(Host::is_open)).map_err(
            |error| {
                let waits = self
                    .hosts
                    .iter()
                    .map(|host| format!("\n  {}: {}", host.name, host.waits_for()));
                error + &waits.collect::<String>()
            },
        )?;
        trace::note("born", format_args!(""));
        Ok(())
    }

    fn live(&mut self) -> Result<(), String> {
        for number in 0..self.plan.clients {
            let client = Client {
                number,
                port: self.clients.port.clone(),
                doors: (0..self.plan.nodes).map(door).collect(),
                dice: Dice::of(self.plan.seed, &format!("client {number}")),
                book: Arc::clone(&self.clients.book),
            };
            self.clients.spawn(client.roam());
        }
        let (now, faults) = (self.now, self.plan.faults.clone());
        self.strikes =
            faults.into_iter().map(|(at, fault)| (now + at, fault)).collect::<Vec<_>>().into_iter();
        let end = now + self.plan.faults_ms;
        while self.now < end {
            self.step()?;
        }
        Ok(())
    }

    /// Ends all faults; how long it takes until every node serves every shard.
    fn calm_down(&mut self) -> Result<u64, String> {
        trace::note("calm", format_args!(""));
        self.strikes = Vec::new().into_iter();
        self.links.clear();
        self.set_links();
        for host in 0..self.plan.nodes {
            self.hosts[host].pause(self.now);
            self.hosts[host].die_after(u64::MAX);
            if !self.hosts[host].is_running() {
                self.starts.insert(host, self.now + 1);
            }
        }
        let begun = self.now;
        self.run_until(CALM_MS, |world| world.hosts.iter().all(Host::is_open))
            .map_err(|error| self.not_calm(&error))?;
        let shards = usize::from(self.plan.shards);
        let keys: Vec<String> = (0..shards).map(|shard| self.key_of(shard)).collect();
        for node in 0..self.plan.nodes {
            for (shard, key) in keys.iter().enumerate() {
                let (port, book) = (self.clients.port.clone(), Arc::clone(&self.clients.book));
                let probe = Probe { node, shard, door: door(node), key: key.clone(), port, book };
                self.clients.spawn(probe.until_served());
            }
        }
        let wanted = self.plan.nodes * shards;
        let left = (begun + CALM_MS).saturating_sub(self.now);
        self.run_until(left, |world| world.clients.book.lock().served.len() == wanted)
            .map_err(|error| self.not_calm(&error))?;
        Ok(self.now - begun)
    }

    fn not_calm(&self, error: &str) -> String {
        let mut text = format!("liveness: {error}");
        for host in &self.hosts {
            text.push_str(&format!("\n  {}: {}", host.name, host.waits_for()));
            let groups = host.within(|node| {
                let shard = |(number, shard): (usize, &Arc<kvorum::shard::Shard>)| {
                    format!(
                        "\n    shard {number}: leader {:?}, {:?}",
                        shard.leader(),
                        shard.status()
                    )
                };
                node.shards().iter().enumerate().map(shard).collect::<String>()
            });
            text.push_str(&groups.unwrap_or_default());
        }
        let served = &self.clients.book.lock().served;
        text.push_str(&format!("\n  served through (node, shard): {served:?}"));
        text
    }

    /// A key of shard number `shard` that no client uses.
    fn key_of(&self, shard: usize) -> String {
        let slots = self.hosts[0].within(|node| node.shards()[shard].slots()).expect("it is open");
        let keys = (0..).map(|number| format!("probe:{number}"));
        let mut own = keys.filter(|key| slots.contains(&Slot::of(key.as_bytes()).number()));
        own.next().expect("there are keys of every slot")
    }

    fn judge(&mut self) -> Result<usize, String> {
        self.clients.book.lock().is_over = true;
        self.run_until(FAREWELL_MS, |world| {
            world.clients.tasks.iter().all(JoinHandle::is_finished)
        })?;
        self.check_totals()?;
        states_agree(&self.hosts)?;
        let operations = std::mem::take(&mut self.clients.book.lock().operations);
        let keys = judgeable(operations);
        if keys.is_empty() {
            return Err("nothing was judged: no key was read and written".to_owned());
        }
        checker::check(&keys).map_err(|violation| format!("linearizability: {violation:?}"))
    }

    /// Every increment that was acknowledged is there, and none twice.
    fn check_totals(&mut self) -> Result<(), String> {
        let totals = self.clients.book.lock().totals.clone();
        let node = Dice::of(self.plan.seed, "totals").index(self.plan.nodes);
        let keys = totals.keys().cloned().collect();
        let read = read_totals(self.clients.port.clone(), door(node), keys);
        let read = self.clients.runtime.spawn(read);
        self.run_until(FAREWELL_MS, |_| read.is_finished())?;
        let found = self.clients.runtime.block_on(read).map_err(|error| error.to_string())?;
        let found = found.map_err(|error| format!("the totals cannot be read: {error}"))?;
        for (key, (acknowledged, unknown)) in totals {
            let value = found[&key];
            if value < acknowledged || value > acknowledged + unknown {
                return Err(format!(
                    "exactly once: {key} is {value}; {acknowledged} acknowledged, {unknown} unknown"
                ));
            }
        }
        Ok(())
    }

    /// Lets time pass until `condition`, for at most `patience` milliseconds.
    fn run_until(
        &mut self,
        patience: u64,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let end = self.now + patience;
        while !condition(self) {
            if self.now >= end {
                return Err(format!("what is waited for has not come about in {patience} ms"));
            }
            self.step()?;
        }
        Ok(())
    }

    /// One slice of time.
    fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        let now = self.now;
        trace::pass_to(now);
        self.strike();
        for visitor in self.network.deliver(now) {
            self.hosts[visitor.host].let_in(&visitor);
        }
        for host in &mut self.hosts {
            host.run_to(now)?;
            if !host.is_running() {
                let down = self.downs.get(&host.id).copied().unwrap_or(100);
                self.starts.entry(host.id).or_insert(now + down);
            }
        }
        self.clients.run_to(now);
        self.invariants.look(&self.hosts, now)?;
        if let Some(panic) = trace::panic() {
            return Err(format!("panic: {panic}"));
        }
        self.clients.book.lock().violation.take().map_or(Ok(()), Err)
    }

    /// What is due befalls hosts and links.
    fn strike(&mut self) {
        let now = self.now;
        while let Some((_, fault)) = self.strikes.as_slice().first().filter(|(at, _)| *at <= now) {
            let fault = fault.clone();
            trace::note("fault", format_args!("{fault}"));
            self.strikes.next();
            self.befall(fault);
        }
        let before = self.links.len();
        self.links.retain(|(until, _)| *until > now);
        if self.links.len() != before {
            self.set_links();
        }
        for host in self.starts.extract_if(.., |_, at| *at <= now).map(|(host, _)| host) {
            self.hosts[host].power_on();
            if !self.hosts[host].is_running() {
                self.hosts[host].start(now);
            }
        }
    }

    fn befall(&mut self, fault: Fault) {
        let now = self.now;
        match fault {
            Fault::Kill { host, acts, down } => {
                self.downs.insert(host, down);
                self.hosts[host].die_after(acts);
            }
            Fault::Stop { host, down } => {
                self.downs.insert(host, down);
                self.hosts[host].stop();
            }
            Fault::Power { host, kept, down } => {
                self.starts.insert(host, now + down + 1);
                self.hosts[host].kill(Death::PowerLost(kept));
            }
            Fault::Blackout { kept, down } => {
                for host in 0..self.plan.nodes {
                    self.starts.insert(host, now + down + 1);
                    // Of each another part stays.
                    let kept =
                        kept.map(|kept| kept.rotate_left(8 * u32::try_from(host).unwrap_or(0)));
                    self.hosts[host].kill(Death::PowerLost(kept));
                }
            }
            Fault::Pause { host, lasts } => self.hosts[host].pause(now + lasts),
            Fault::Cut { lasts, .. } | Fault::Isolate { lasts, .. } | Fault::Slow { lasts, .. } => {
                self.links.push((now + lasts, fault));
                self.set_links();
            }
            Fault::Reset { one, other } => self.network.reset(one, other),
            Fault::Wall { host, step } => self.hosts[host].step_wall(step),
        }
    }

    /// Makes every link what the faults of the moment make it.
    fn set_links(&self) {
        let hosts = self.plan.nodes + 1;
        for from in 0..hosts {
            for to in 0..hosts {
                let mut link = Link::GOOD;
                for (_, fault) in &self.links {
                    match *fault {
                        Fault::Cut { from: a, to: b, .. } => link.is_cut |= (a, b) == (from, to),
                        Fault::Isolate { host, .. } => link.is_cut |= from == host || to == host,
                        Fault::Slow { from: a, to: b, delay, .. } if (a, b) == (from, to) => {
                            link.delay_ms.1 += delay;
                        }
                        _ => {}
                    }
                }
                self.network.set_link(from, to, |it| *it = link);
            }
        }
    }
}

/// Operations on keys that some were read and written of: the judge takes no other.
fn judgeable(
    operations: Vec<crate::support::operation::Operation>,
) -> Vec<crate::support::operation::Operation> {
    use crate::support::operation::Action;
    let mut seen: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.returned.is_some()) {
        let (read, written) = seen.entry(operation.key.clone()).or_default();
        *read |= !matches!(operation.action, Action::Set(_));
        *written |= operation.action != Action::Get;
    }
    let is_judgeable = |key: &str| seen.get(key) == Some(&(true, true));
    operations.into_iter().filter(|operation| is_judgeable(&operation.key)).collect()
}

impl Clients {
    fn new(port: Port, dice: &mut Dice) -> Self {
        let polls = Arc::new(AtomicU64::new(0));
        let runtime = paused_runtime(dice.next(), Arc::clone(&polls));
        let began = {
            let _inside = runtime.enter();
            Instant::now()
        };
        let book = Arc::new(parking_lot::Mutex::new(Book::default()));
        Self { runtime, began, polls, port, book, tasks: Vec::new() }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(self.runtime.spawn(task));
    }

    fn run_to(&self, now: u64) {
        let _on = trace::on("clients");
        self.polls.store(0, Ordering::Relaxed);
        run_runtime(&self.runtime, self.began + Duration::from_millis(now));
    }
}

/// A node's door for clients.
fn door(host: HostId) -> SocketAddr {
    SocketAddr::from((address(host), PLAIN_PORT))
}

/// The words that a node is configured by.
fn words(plan: &Plan, host: HostId) -> Vec<String> {
    let peer = |id: HostId| format!("n{}={}:7201", id + 1, address(id));
    let peers: Vec<String> = (0..plan.nodes).map(peer).collect();
    let mut words = vec![
        ("--node-id", format!("n{}", host + 1)),
        ("--bind", address(host).to_string()),
        ("--port", PLAIN_PORT.to_string()),
        ("--peer-port", "7201".to_owned()),
        ("--dir", "/data".to_owned()),
        ("--cluster-shards", plan.shards.to_string()),
        ("--appendfsync", plan.sync.to_owned()),
        ("--protected-mode", "no".to_owned()),
        ("--cluster-secret", "of the simulation".to_owned()),
    ];
    if plan.nodes > 1 {
        words.push(("--cluster-nodes", peers.join(" ")));
    }
    words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}
