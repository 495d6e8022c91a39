//! Snapshots that a leader sends: received in chunks, then installed.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::core::Shared;
use super::group::Group;
use super::inbound::InboundError;
use super::network::take_transfer;
use super::snapshot::{SnapshotHandle, decode_meta};
use super::state_machine::StateMachine;
use super::type_config::{Snapshot, SnapshotMeta, Vote};
use crate::transport::Responder;
use crate::wal::snapshot_file::SnapshotWriter;

/// A snapshot on its way in.
pub(super) struct IncomingSnapshot {
    transfer: u64,
    meta: SnapshotMeta,
    writer: SnapshotWriter,
}

impl<S: StateMachine> Group<S> {
    pub(super) fn handle_snapshot_begin(&self, body: Bytes, responder: Responder) {
        let Some((transfer, meta)) = take_transfer(body) else { return };
        let begun =
            decode_meta(&meta).and_then(|meta| Ok((self.shared.snapshots.create(&meta)?, meta)));
        match begun {
            Ok((writer, meta)) => {
                *self.shared.incoming.lock() = Some(IncomingSnapshot { transfer, meta, writer });
                responder.send(Bytes::new());
            }
            Err(error) => {
                tracing::warn!(group = %self.shared.group, %error, "cannot receive a snapshot");
            }
        }
    }

    pub(super) fn handle_snapshot_chunk(&self, body: Bytes, responder: Responder) {
        let Some((transfer, chunk)) = take_transfer(body) else { return };
        let mut incoming = self.shared.incoming.lock();
        let Some(receiving) = incoming.as_mut().filter(|receiving| receiving.transfer == transfer)
        else {
            return;
        };
        // A chunk is a page-cache write of at most a few hundred KiB; the fsync comes at the end, elsewhere.
        match receiving.writer.write_chunk(&chunk) {
            Ok(()) => responder.send(Bytes::new()),
            Err(error) => {
                tracing::warn!(group = %self.shared.group, %error, "cannot receive a snapshot");
                *incoming = None;
            }
        }
    }

    pub(super) fn handle_snapshot_end(&self, body: Bytes, responder: Responder) {
        let Some((transfer, vote)) = take_transfer(body) else { return };
        let Some(received) =
            self.shared.incoming.lock().take().filter(|receiving| receiving.transfer == transfer)
        else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            match install(&shared, &vote, received).await {
                Ok(answer) => responder.send(answer),
                Err(error) => {
                    tracing::warn!(group = %shared.group, %error, "cannot install a snapshot");
                }
            }
        });
    }
}

async fn install<S: StateMachine>(
    shared: &Shared<S>,
    vote: &[u8],
    received: IncomingSnapshot,
) -> Result<Vec<u8>, InboundError> {
    let vote: Vote = postcard::from_bytes(vote)?;
    let IncomingSnapshot { meta, writer, .. } = received;
    let file = tokio::task::spawn_blocking(move || writer.finish())
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)?;
    let snapshot = Snapshot { meta, snapshot: SnapshotHandle::new(file) };
    let answer = shared.raft.install_full_snapshot(vote, snapshot).await;
    Ok(postcard::to_stdvec(&answer.map_err(|_| InboundError::Stopped)?.vote)?)
}
