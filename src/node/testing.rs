//! Nodes and clusters for tests.

use std::net::SocketAddr;
use std::sync::Arc;

use super::cluster_view::{ClusterView, Member, ShardView};
use super::{
    Arrival, Client, ClientGuard, Door, LogWork, Node, NodeOptions, Sizes, Started, start,
};
use crate::command::{self, Registry, Row};
use crate::config::{Config, Start};
use crate::ids::{NodeId, ShardId};
use crate::raft::BlockingPool;
use crate::resp::Reply;
use crate::resp::testing::Value;
use crate::ring::Doors;
use crate::stdx::clock::SystemClock;
use crate::stdx::entropy::Entropy;
use crate::stdx::fs::SystemDisk;
use crate::transport::{Limits, Net};

/// A node that is alone, in a directory of its own, with one client.
pub(crate) struct TestNode {
    pub(crate) started: Started,
    pub(crate) client: Arc<Client>,
    _guard: ClientGuard,
    _dir: tempfile::TempDir,
}

impl TestNode {
    /// Starts one with these flags; returns when it serves every key and its doors are known.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let registry = Registry::new(command::all().map(|c| c.spec).chain(super::specs()));
        Self::start_with(flags, registry).await
    }

    /// The same with these commands in its registry.
    pub(crate) async fn start_with(flags: &[&str], registry: Registry) -> Self {
        Self::start_of(flags, registry, Sizes::DEFAULT).await
    }

    /// The same with these sizes.
    pub(crate) async fn start_of(flags: &[&str], registry: Registry, sizes: Sizes) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let words = ["--port", "0", "--cluster-shards", "2", "--dir", &path].map(str::to_owned);
        let flags = words.into_iter().chain(flags.iter().map(|flag| (*flag).to_owned()));
        let Ok(Start::Run(config)) = Config::load(flags) else { panic!("a valid configuration") };
        let started = start(NodeOptions {
            config: Arc::new(config),
            clock: Arc::new(SystemClock::new()),
            disk: SystemDisk::shared(),
            net: Net::Tcp,
            workers: BlockingPool::shared(),
            sizes,
            log: LogWork::Threads,
            entropy: Entropy::seeded(42),
            boot_id: None,
            runtimes: vec![tokio::runtime::Handle::current()],
            doors: Doors { host: "127.0.0.1".into(), port: 6379, cluster_port: 7379 },
            peer_limits: Limits::default(),
            registry,
            progress: Arc::default(),
        })
        .await
        .unwrap();
        let node = &started.node;
        let is_announced = || node.topology().node(node.id()).is_some_and(|n| n.doors.is_some());
        while node.unready_reason().is_some() || !is_announced() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let guard = node.clients().enter(arrival(Door::Plain), 100).unwrap();
        Self { client: Arc::clone(&guard.client), started, _guard: guard, _dir: dir }
    }

    /// What a node command answers, in the spelling of [`Value::compact`]; errors begin with `-`.
    pub(crate) fn run(&self, line: &str) -> String {
        let words = command::testing::split_args(line).unwrap();
        let argv: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let row: &Row<super::NodeFn> = command::find(super::COMMANDS, argv[0]).unwrap();
        let outcome = row.resolve(&argv);
        let outcome = outcome.and_then(|(_, run)| run(&self.started.node, &self.client, &argv));
        Value::of(&outcome.unwrap_or_else(Reply::Error)).compact()
    }
}

/// An arrival by `door` at the ports that test nodes announce.
pub(crate) fn arrival(door: Door) -> Arrival {
    let port = if door == Door::Plain { 6379 } else { 7379 };
    Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 40_000)),
        local: SocketAddr::from(([127, 0, 0, 1], port)),
        door,
        since: crate::stdx::clock::MonotonicMicros(0),
        is_stranger: false,
    }
}

/// Another client of `node`.
pub(crate) fn enter(node: &Node, door: Door) -> ClientGuard {
    let arrival = Arrival { is_stranger: node.requires_password(), ..arrival(door) };
    node.clients().enter(arrival, 100).unwrap()
}

/// The view of `n1` on a cluster of `n1`, `n2` and `n3`, whose shards are led by `leaders`; `""` is nobody.
pub(crate) fn view(leaders: &[&str]) -> ClusterView {
    let names = ["n1", "n2", "n3"];
    let members = names.iter().zip(7001..).map(|(name, port)| Member {
        id: NodeId::of_name(name),
        wire_id: format!("{name:x<40}"),
        name: (*name).to_owned(),
        host: "10.0.0.1".into(),
        port,
        peer_port: port + 100,
        is_self: *name == "n1",
        is_connected: *name != "n3",
    });
    let width = 16384 / u16::try_from(leaders.len()).unwrap();
    let shards = leaders.iter().zip(0..).map(|(leader, index)| {
        let leader = (!leader.is_empty()).then(|| NodeId::of_name(leader));
        let others =
            names.iter().map(|name| NodeId::of_name(name)).filter(|id| Some(*id) != leader);
        ShardView {
            shard: ShardId(u32::from(index)),
            slots: index * width..=index * width + (width - 1),
            leader,
            replicas: leader.into_iter().chain(others).collect(),
            is_served: true,
        }
    });
    ClusterView { epoch: 7, members: members.collect(), shards: shards.collect(), stopped: 0 }
}
