//! This process: the shards it hosts, its peers, what operators ask of it.
//!
//! Reading order: `start` says how a node comes to be, `birth` how its directory comes to belong to a cluster; `node` what
//! it is, `switchboard` what lies in it; `membership` how replicas come and go (`residence` begins and ends them,
//! `admission` lets directories in, `doorkeeper` says who may speak); `upkeep` what else it does by itself, `leaders` who
//! leads what; `clients` who is connected; `guesses` who gave wrong passwords; `counters` what it has done; `cluster_view`
//! what it tells of the cluster; `figures` what it tells of itself, `info` how INFO shows it; `command` what operators can
//! ask.

#[expect(clippy::module_inception, reason = "the room is named after its main type")]
mod node;

mod error;
mod sizes;
mod start;

mod leaders;

mod birth;
mod progress;
mod switchboard;

mod admission;
mod doorkeeper;
mod membership;
mod residence;

mod upkeep;

mod clients;
mod counters;
mod guesses;

mod cluster_view;
mod figures;
mod info;
mod process;

mod command;

#[cfg(test)]
pub(crate) mod testing;

pub use clients::{Arrival, Client, ClientGuard, ClientState, Clients, Door};
pub use cluster_view::{ClusterView, Member, ShardView};
pub use command::{COMMANDS, NodeCommand, NodeFn, specs};
pub use counters::Counters;
pub use error::NodeError;
pub use figures::{Figure, Metric, MetricKind, REDIS_VERSION, Sample, samples};
pub use guesses::{GUESS_INTERVAL, Guesses};
pub use node::Node;
pub use progress::Progress;
pub use sizes::Sizes;
pub use start::{LogWork, NodeOptions, Started, planned_topology, start};
