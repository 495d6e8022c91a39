//! A cluster of kvorum processes on this machine, and the faults a test can bring over it.

use std::time::Duration;

use kvorum::slot::Slot;

use super::client::{Client, Value, request};
use super::node::{Doors, TestServer};
use super::proxy::{Link, Proxy};
use super::shards::{Replica, parse};
use super::{PATIENCE, wait_for};

/// Keys written to see that every shard serves: enough to meet each of up to 16 shards almost surely.
const WARM_UP_KEYS: usize = 96;

/// Nodes `0..n`, named `n1`, `n2`, … in their own words.
#[derive(Debug)]
pub(crate) struct TestCluster {
    nodes: Vec<TestServer>,
    /// `links[from][to]`: the way from one node to another; empty without proxies.
    links: Vec<Vec<Option<Proxy>>>,
}

impl TestCluster {
    /// `count` nodes that talk directly; `directives` go to every node.
    pub(crate) fn start(count: usize, directives: &[&str]) -> Self {
        Self::start_with(count, directives, false, None)
    }

    /// `count` nodes whose every fsync takes `delay` longer; [`TestServer::delay_syncs`] changes that of a node.
    pub(crate) fn start_slow(count: usize, directives: &[&str], delay: Duration) -> Self {
        Self::start_with(count, directives, false, Some(delay))
    }

    /// `count` nodes of which those in `absent` are not started, and nothing is waited for.
    pub(crate) fn start_without(count: usize, directives: &[&str], absent: &[usize]) -> Self {
        let mut cluster = Self::prepare(count, directives, false, None);
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            if !absent.contains(&index) {
                node.spawn();
            }
        }
        cluster
    }

    /// `count` nodes whose links can be cut, silenced or slowed: see [`TestCluster::link`].
    pub(crate) fn start_proxied(count: usize, directives: &[&str]) -> Self {
        Self::start_with(count, directives, true, None)
    }

    /// `count` nodes for faults of every kind: their links can be changed, their disks be slowed, their wall clocks step.
    pub(crate) fn start_for_soak(count: usize, directives: &[&str]) -> Self {
        let mut cluster = Self::prepare(count, directives, true, Some(Duration::ZERO));
        cluster.nodes.iter_mut().for_each(|node| node.shift_wall(0));
        cluster.start_all()
    }

    fn start_with(
        count: usize,
        directives: &[&str],
        is_proxied: bool,
        sync_delay: Option<Duration>,
    ) -> Self {
        Self::prepare(count, directives, is_proxied, sync_delay).start_all()
    }

    fn start_all(mut self) -> Self {
        self.nodes.iter_mut().for_each(TestServer::spawn);
        self.nodes.iter_mut().for_each(TestServer::await_ready);
        self.await_serving();
        self
    }

    /// The nodes, with their doors and directories, before any of them runs.
    fn prepare(
        count: usize,
        directives: &[&str],
        is_proxied: bool,
        sync_delay: Option<Duration>,
    ) -> Self {
        let doors: Vec<Doors> = (0..count).map(|_| Doors::reserve()).collect();
        let link = |from: usize, to: usize| {
            (is_proxied && from != to).then(|| Proxy::start(doors[to].peer.number()))
        };
        let links: Vec<Vec<Option<Proxy>>> =
            (0..count).map(|from| (0..count).map(|to| link(from, to)).collect()).collect();
        let address = |from: usize, to: usize| {
            let port = links[from][to].as_ref().map_or(doors[to].peer.number(), Proxy::port);
            format!("n{}=127.0.0.1:{port}", to + 1)
        };
        let lists: Vec<String> = (0..count)
            .map(|from| (0..count).map(|to| address(from, to)).collect::<Vec<_>>().join(" "))
            .collect();
        let mut nodes = Vec::new();
        for (index, doors) in doors.into_iter().enumerate() {
            let id = format!("n{}", index + 1);
            let mut all = vec!["--node-id", &id, "--cluster-nodes", &lists[index]];
            all.extend_from_slice(directives);
            let mut node = TestServer::new(doors, &all);
            sync_delay.into_iter().for_each(|delay| node.delay_syncs(delay));
            nodes.push(node);
        }
        Self { nodes, links }
    }

    /// How many nodes there are, running or not.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Node `index`.
    pub(crate) fn node(&self, index: usize) -> &TestServer {
        &self.nodes[index]
    }

    /// Node `index`, to be killed or restarted.
    pub(crate) fn node_mut(&mut self, index: usize) -> &mut TestServer {
        &mut self.nodes[index]
    }

    /// The plain doors of all nodes.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(TestServer::port).collect()
    }

    /// A connection to the plain door of node `index`.
    #[track_caller]
    pub(crate) fn client(&self, index: usize) -> Client {
        self.nodes[index].client()
    }

    /// The nodes that run and are not paused.
    pub(crate) fn serving(&self) -> Vec<usize> {
        (0..self.len()).filter(|&index| self.nodes[index].is_serving()).collect()
    }

    /// Waits until each serving node writes to every shard.
    #[track_caller]
    pub(crate) fn await_serving(&self) {
        for index in self.serving() {
            wait_for("writes to every shard", PATIENCE, || self.try_warm_up(index));
        }
    }

    fn try_warm_up(&self, index: usize) -> Result<(), String> {
        let mut client = Client::connect(self.nodes[index].port()).map_err(|e| e.to_string())?;
        let keys: Vec<String> = (0..WARM_UP_KEYS).map(|key| format!("warm-up:{key}")).collect();
        let mut pipeline = Vec::new();
        keys.iter().for_each(|key| pipeline.extend(request(&["SET", key, "1"])));
        keys.iter().for_each(|key| pipeline.extend(request(&["UNLINK", key])));
        client.send_raw(&pipeline).map_err(|error| error.to_string())?;
        for _ in 0..2 * WARM_UP_KEYS {
            let value = client.read().map_err(|error| error.to_string())?;
            if let Some(text) = value.error() {
                return Err(format!("node {} says {text}", index + 1));
            }
        }
        Ok(())
    }

    /// The node that says of itself, in CLUSTER SLOTS, that it leads `key`'s shard; waits for one.
    #[track_caller]
    pub(crate) fn leader_of(&self, key: &str) -> usize {
        self.leader_among(key, &self.serving())
    }

    /// [`TestCluster::leader_of`], asking only `nodes`.
    #[track_caller]
    pub(crate) fn leader_among(&self, key: &str, nodes: &[usize]) -> usize {
        wait_for("leader", PATIENCE, || {
            let mut answers = Vec::new();
            for &index in nodes {
                let port = self.slot_owner(index, key)?;
                if port == self.nodes[index].cluster_port() {
                    return Ok(index);
                }
                answers.push((index, port));
            }
            Err(format!("(node, the door it names): {answers:?}"))
        })
    }

    /// Some node that serves and does not lead `key`'s shard.
    #[track_caller]
    pub(crate) fn follower_of(&self, key: &str) -> usize {
        let leader = self.leader_of(key);
        self.serving().into_iter().find(|&index| index != leader).expect("more than one node")
    }

    /// The cluster door that node `index` announces for `key`.
    fn slot_owner(&self, index: usize, key: &str) -> Result<u16, String> {
        let mut client = Client::connect(self.nodes[index].port()).map_err(|e| e.to_string())?;
        let mut ask = |argv: &[&str]| client.try_cmd(argv).map_err(|error| error.to_string());
        let slot = i64::from(Slot::of(key.as_bytes()).number());
        let Value::Array(ranges) = ask(&["CLUSTER", "SLOTS"])? else {
            return Err("CLUSTER SLOTS gives no array".into());
        };
        let range = ranges
            .iter()
            .map(Value::array)
            .find(|range| (range[0].integer()..=range[1].integer()).contains(&slot));
        let owner = range.ok_or_else(|| format!("slot {slot} is in no range of {ranges:?}"))?;
        let first = owner.get(2).ok_or_else(|| format!("nobody owns slot {slot}"))?;
        Ok(u16::try_from(first.array()[1].integer()).expect("a port"))
    }

    /// Changes the link `from` → `to`: connections that `from` opened.
    pub(crate) fn link(&self, from: usize, to: usize, link: Link) {
        self.links[from][to].as_ref().expect("start_proxied").set(link);
    }

    /// Changes both links between two nodes.
    pub(crate) fn link_both(&self, one: usize, other: usize, link: Link) {
        self.link(one, other, link);
        self.link(other, one, link);
    }

    /// Changes every link of node `index`.
    pub(crate) fn isolate(&self, index: usize, link: Link) {
        for other in (0..self.len()).filter(|&other| other != index) {
            self.link_both(index, other, link);
        }
    }

    /// Opens every link.
    pub(crate) fn heal(&self) {
        for link in self.links.iter().flatten().flatten() {
            link.set(Link::Open);
        }
    }

    /// The replicas on node `index`.
    pub(crate) fn replicas(&self, index: usize) -> Result<Vec<Replica>, String> {
        parse(&self.nodes[index].admin("/api/shards?hash=1")?)
    }

    /// Waits until all nodes applied the same entries, and compares their states.
    ///
    /// # Panics
    /// When two replicas of a shard differ at the same index, or do not get there.
    #[track_caller]
    pub(crate) fn assert_replicas_agree(&self) {
        wait_for("equal replicas", PATIENCE, || {
            let views: Result<Vec<_>, _> =
                self.serving().iter().map(|&index| self.replicas(index)).collect();
            let mut all: Vec<Replica> = views?.into_iter().flatten().collect();
            all.sort_by_key(|replica| replica.shard);
            if all.is_empty() {
                return Err("no replica at all".into());
            }
            for pair in all.windows(2).filter(|pair| pair[0].shard == pair[1].shard) {
                if pair[0].index != pair[1].index {
                    return Err(format!("{pair:?}"));
                }
                assert_eq!(pair[0].history, pair[1].history, "replicas diverged: {pair:?}");
                assert_eq!(pair[0].keyspace, pair[1].keyspace, "replicas diverged: {pair:?}");
                assert_eq!(pair[0].keys, pair[1].keys, "replicas diverged: {pair:?}");
            }
            let shards = all.chunk_by(|one, other| one.shard == other.shard);
            for shard in shards {
                assert!(shard.len() >= 2, "nothing to compare in {shard:?}");
            }
            Ok(())
        });
    }

    /// Waits for full redundancy: every node is ready and holds a voting replica of every shard. What a voter is shows
    /// in its role, which is `learner` until then.
    #[track_caller]
    pub(crate) fn await_redundancy(&self) {
        wait_for("full redundancy", HEALING, || {
            let mut shards: Vec<(u64, String)> = Vec::new();
            for node in &self.nodes {
                let _ready = node.admin("/readyz")?;
                let replicas = parse(&node.admin("/api/shards?hash=1")?)?;
                shards.extend(replicas.into_iter().map(|replica| (replica.shard, replica.role)));
            }
            shards.sort_unstable();
            if shards.is_empty() {
                return Err("no replica at all".into());
            }
            for shard in shards.chunk_by(|one, other| one.0 == other.0) {
                let leaders = shard.iter().filter(|(_, role)| role == "leader").count();
                let followers = shard.iter().filter(|(_, role)| role == "follower").count();
                if (leaders, followers) != (1, self.len() - 1) {
                    return Err(format!("{shard:?}"));
                }
            }
            Ok(())
        });
    }

    /// The highest term of any shard on the serving nodes.
    #[track_caller]
    pub(crate) fn terms(&self) -> Vec<(u64, u64)> {
        let mut terms: Vec<(u64, u64)> = Vec::new();
        for index in self.serving() {
            for replica in self.replicas(index).expect("the admin door answers") {
                match terms.iter_mut().find(|(shard, _)| *shard == replica.shard) {
                    Some((_, term)) => *term = replica.term.max(*term),
                    None => terms.push((replica.shard, replica.term)),
                }
            }
        }
        terms.sort_unstable();
        terms
    }
}

/// How long a cluster may take to full redundancy.
const HEALING: Duration = Duration::from_mins(1);

/// How long a fault lasts when nothing else says so: longer than an election.
pub(crate) const FAULT: Duration = Duration::from_millis(1500);
