//! The sizes of a node that only data of gigabytes would meet: a simulation makes them small.

use crate::wal::limits::{SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN};
use crate::{raft, shard};

/// When logs are cut, snapshots taken and work moved elsewhere. None of it is replicated: nodes of one cluster may have
/// different ones, and their replicas are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes of log above which the group that keeps the oldest segment must let go of it.
    pub log_bytes_max: u64,
    /// Those of every replica's log and snapshots.
    pub raft: raft::Sizes,
    /// Those of every shard.
    pub shard: shard::Sizes,
}

impl Sizes {
    /// Those of a real node.
    pub const DEFAULT: Self = Self {
        segment_bytes: SEGMENT_BYTES_DEFAULT,
        log_bytes_max: 256 * 1024 * 1024,
        raft: raft::Sizes::DEFAULT,
        shard: shard::Sizes::DEFAULT,
    };

    /// Whether they go together.
    pub const fn is_sound(&self) -> bool {
        self.segment_bytes >= SEGMENT_BYTES_MIN && self.raft.is_sound() && self.shard.is_sound()
    }
}

const _: () = assert!(Sizes::DEFAULT.is_sound(), "the sizes of a node contradict each other");

impl Default for Sizes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::command::Registry;
    use crate::ids::{DbIndex, GroupId, ShardId};
    use crate::node::testing::TestNode;
    use crate::resp::Protocol;
    use crate::shard::{Encoded, Lane, Replies, ReplyCell, put_command};
    use crate::slot::Slot;
    use crate::stdx::fs::SystemDisk;
    use crate::wal::SnapshotDir;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A node of these sizes after 256 writes of 1000 bytes to eight keys of its first shard.
    async fn node_with_writes(sizes: Sizes) -> TestNode {
        let test = TestNode::start_of(&[], Registry::new(std::iter::empty()), sizes).await;
        let shard = test.started.node.shard(ShardId(0));
        let is_of_shard =
            |key: &u32| shard.slots().contains(&Slot::of(&key.to_le_bytes()).number());
        let keys: Vec<u32> = (0..).filter(is_of_shard).take(8).collect();
        for key in keys.iter().cycle().take(256) {
            let mut commands = Vec::new();
            let argv = [b"SET", &key.to_le_bytes()[..], &[b'v'; 1000]];
            put_command(Protocol::Resp2, DbIndex(0), &argv, &mut commands);
            let (cell, mut replies) = (ReplyCell::new(), Replies::default());
            shard.submit(Lane::Write, Encoded::Copied(&commands), 1, &cell);
            cell.take(&mut replies).await.unwrap();
            assert_eq!(replies.bytes.to_vec(), b"+OK\r\n");
        }
        test
    }

    async fn await_less(bytes_max: u64, bytes: impl Fn() -> u64) {
        let begun = Instant::now();
        while bytes() > bytes_max {
            assert!(begun.elapsed() < PATIENCE, "{} bytes of log", bytes());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// With those of a real node it takes 64 MiB.
    #[tokio::test]
    async fn little_log_makes_a_snapshot_due_and_is_purged() {
        let sizes = Sizes {
            segment_bytes: 16 << 10,
            log_bytes_max: u64::MAX,
            raft: raft::Sizes { snapshot_chunk_bytes: 1000, ..raft::Sizes::DEFAULT },
            shard: shard::Sizes {
                snapshot_log_bytes: 32 << 10,
                log_kept_bytes: 8 << 10,
                weight_max: 100,
            },
        };
        let test = node_with_writes(sizes).await;
        let node = &test.started.node;
        assert_eq!(node.shard(ShardId(0)).read_weight_max(), 100);
        let group = GroupId::of_shard(ShardId(0));
        // What is kept, what makes none due, and a segment.
        await_less(64 << 10, || node.wal().group_bytes(group)).await;
        let dir = node.config().options().dir.join("snapshots");
        let snapshots = SnapshotDir::new(SystemDisk::shared(), dir);
        let best = snapshots.published(group).unwrap().remove(0);
        let mut reader = snapshots.open(&best.path).unwrap();
        let mut chunks = 0;
        while let Some(chunk) = reader.next_chunk().unwrap() {
            assert!(chunk.len() <= sizes.raft.snapshot_chunk_bytes);
            chunks += 1;
        }
        assert!(chunks >= 8, "{chunks}");
    }

    /// It takes 256 MiB.
    #[tokio::test]
    async fn a_log_over_its_size_is_let_go_of_by_every_group() {
        let sizes = Sizes { segment_bytes: 16 << 10, log_bytes_max: 64 << 10, ..Sizes::DEFAULT };
        let test = node_with_writes(sizes).await;
        await_less(sizes.log_bytes_max, || test.started.node.wal().live_bytes()).await;
    }
}
