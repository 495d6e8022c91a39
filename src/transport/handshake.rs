//! How two nodes meet: hellos, then a challenge and response each way, then a verdict each way, then frames.
//!
//! ```text
//! caller → listener   hello (nonce, who, whom it means)
//! caller ← listener   hello (nonce, who), status, proof
//! caller → listener   status, proof
//! caller ← listener   status, proof
//! ```
//!
//! A proof is an HMAC-SHA-256 with the cluster's secret over its role, the status and both whole hellos. Both hellos
//! carry a fresh nonce, so nothing can be replayed; roles differ, so nothing can be reflected. The listener proves
//! itself first: a caller tells an impostor who listens at a peer's address nothing but who it is and whom it means,
//! which is public. What the listener gives away is a proof over bytes that nobody will accept again; it can serve to
//! guess at a weak secret, so secrets must be long and random. Verdicts are part of what is proved.
//!
//! Not covered: nothing is encrypted, and frames carry no proof. Whoever sits between two nodes and passes their
//! handshake on unchanged reads and may change what follows. It cannot make one node take it, or a third, for another.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::identity::{Door, Meant, PROOF_BYTES, PeerIdentity, Sender, Side, Verdict};
use super::link::Ended;
use super::wire::{
    HELLO_BYTES_MAX, HELLO_PREFIX_BYTES, Hello, PROTOCOL_VERSION, Refusal, hello_length,
};
use crate::ids::{Incarnation, NodeId};

/// The listener holds the secret.
const LISTENER_PROVES: &[u8] = b"kvorum listener proves\0";
/// The caller holds the secret, and this is what it thinks of the listener.
const CALLER_PROVES: &[u8] = b"kvorum caller proves\0";
/// What the listener thinks of the caller.
const LISTENER_JUDGES: &[u8] = b"kvorum listener judges\0";

/// Bytes of a status with its proof.
const STATUS_BYTES: usize = 2 + PROOF_BYTES;

/// Nobody is meant: a listener's hello says so.
const NOBODY: Meant = Meant { node: NodeId(0), incarnation: Incarnation::NONE };

/// The other side of a connection that may carry frames.
#[derive(Clone, Debug)]
pub(super) struct Met {
    /// What this side said.
    pub(super) said: PeerIdentity,
    pub(super) who: PeerIdentity,
    /// Whom the caller means.
    pub(super) meant: Meant,
    pub(super) is_stranger: bool,
}

impl Met {
    pub(super) const fn sender(&self) -> Sender {
        Sender::of(&self.who, self.is_stranger)
    }
}

/// The caller's part.
pub(super) async fn call(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    door: &Door,
    meant: Meant,
    patience: Duration,
) -> Result<Met, Ended> {
    within(patience, async {
        let said = door.local.get();
        let nonce = door.credentials.nonce();
        let ours = Hello { nonce, identity: said.clone(), meant }.encode();
        stream.write_all(&ours).await.map_err(Ended::Socket)?;
        let theirs = read_hello(stream).await?;
        let hello = Hello::decode(&theirs).map_err(Ended::Hello)?;
        let talk = Talk { door, caller: &ours, listener: &theirs };
        let (status, proof) = read_status(stream).await?;
        if let Some(refusal) = status {
            return Err(Ended::Refused(refusal));
        }
        if !talk.verify(LISTENER_PROVES, None, &proof) {
            // Without a proof: the other side could be anybody.
            write(stream, &encode_status(Some(Refusal::Secret), [0; PROOF_BYTES])).await?;
            return Err(Ended::Refused(Refusal::Secret));
        }
        let verdict = door.judge(&hello.identity, &meant, Side::Dialling);
        let refusal = refusal_of(verdict);
        write(stream, &talk.status(CALLER_PROVES, refusal)).await?;
        if let Some(refusal) = refusal {
            return Err(Ended::Refused(refusal));
        }
        let (status, proof) = read_status(stream).await?;
        if status != Some(Refusal::Secret) && !talk.verify(LISTENER_JUDGES, status, &proof) {
            return Err(Ended::Refused(Refusal::Secret));
        }
        if let Some(refusal) = status {
            return Err(Ended::Refused(refusal));
        }
        let is_stranger = verdict == Verdict::Stranger;
        Ok(Met { said, who: hello.identity, meant, is_stranger })
    })
    .await
}

/// The listener's part.
pub(super) async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    door: &Door,
    patience: Duration,
) -> Result<Met, Ended> {
    within(patience, async {
        let said = door.local.get();
        let nonce = door.credentials.nonce();
        let ours = Hello { nonce, identity: said.clone(), meant: NOBODY }.encode();
        let theirs = match read_hello(stream).await {
            Err(Ended::Refused(refusal)) => {
                // The only refusal before a proof that the caller is owed: it could not make one.
                write(stream, &ours).await?;
                write(stream, &encode_status(Some(refusal), [0; PROOF_BYTES])).await?;
                return Err(Ended::Refused(refusal));
            }
            read => read?,
        };
        let hello = Hello::decode(&theirs).map_err(Ended::Hello)?;
        let talk = Talk { door, caller: &theirs, listener: &ours };
        let mut first = ours.clone();
        first.extend_from_slice(&talk.status(LISTENER_PROVES, None));
        write(stream, &first).await?;
        let (status, proof) = read_status(stream).await?;
        if status == Some(Refusal::Secret) {
            return Err(Ended::Refused(Refusal::Secret));
        }
        if !talk.verify(CALLER_PROVES, status, &proof) {
            write(stream, &encode_status(Some(Refusal::Secret), [0; PROOF_BYTES])).await?;
            return Err(Ended::Refused(Refusal::Secret));
        }
        if let Some(refusal) = status {
            return Err(Ended::Refused(refusal));
        }
        let verdict = door.judge(&hello.identity, &hello.meant, Side::Listening);
        let refusal = refusal_of(verdict);
        write(stream, &talk.status(LISTENER_JUDGES, refusal)).await?;
        if let Some(refusal) = refusal {
            return Err(Ended::Refused(refusal));
        }
        let is_stranger = verdict == Verdict::Stranger;
        Ok(Met { said, who: hello.identity, meant: hello.meant, is_stranger })
    })
    .await
}

pub(super) const fn refusal_of(verdict: Verdict) -> Option<Refusal> {
    match verdict {
        Verdict::Member | Verdict::Stranger => None,
        Verdict::Refuse(refusal) => Some(refusal),
    }
}

/// What proofs are over.
struct Talk<'a> {
    door: &'a Door,
    /// The hellos' bytes, each with its length inside: where one ends and the other begins is no question.
    caller: &'a [u8],
    listener: &'a [u8],
}

impl Talk<'_> {
    fn status(&self, role: &[u8], refusal: Option<Refusal>) -> [u8; STATUS_BYTES] {
        let status = Refusal::status(refusal).to_le_bytes();
        let proof = self.door.credentials.proof(&self.parts(role, &status));
        encode_status(refusal, proof)
    }

    fn verify(&self, role: &[u8], refusal: Option<Refusal>, proof: &[u8; PROOF_BYTES]) -> bool {
        let status = Refusal::status(refusal).to_le_bytes();
        self.door.credentials.verify(&self.parts(role, &status), proof)
    }

    fn parts<'a>(&'a self, role: &'a [u8], status: &'a [u8]) -> [&'a [u8]; 5] {
        const VERSION: [u8; 2] = PROTOCOL_VERSION.to_le_bytes();
        [role, &VERSION, status, self.caller, self.listener]
    }
}

fn encode_status(refusal: Option<Refusal>, proof: [u8; PROOF_BYTES]) -> [u8; STATUS_BYTES] {
    let mut bytes = [0; STATUS_BYTES];
    bytes[..2].copy_from_slice(&Refusal::status(refusal).to_le_bytes());
    bytes[2..].copy_from_slice(&proof);
    bytes
}

async fn read_status(
    source: &mut (impl AsyncRead + Unpin),
) -> Result<(Option<Refusal>, [u8; PROOF_BYTES]), Ended> {
    let mut status = [0; 2];
    let mut proof = [0; PROOF_BYTES];
    source.read_exact(&mut status).await.map_err(Ended::Socket)?;
    source.read_exact(&mut proof).await.map_err(Ended::Socket)?;
    let refusal = Refusal::of_status(u16::from_le_bytes(status)).map_err(Ended::Hello)?;
    Ok((refusal, proof))
}

/// The bytes of a hello, as long as it says; nothing is allocated beyond [`HELLO_BYTES_MAX`].
async fn read_hello(source: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Ended> {
    let mut prefix = [0; HELLO_PREFIX_BYTES];
    source.read_exact(&mut prefix).await.map_err(Ended::Socket)?;
    let length = hello_length(prefix).map_err(Ended::Hello)?;
    let Some(length) = length else { return Err(Ended::Refused(Refusal::Version)) };
    debug_assert!(length <= HELLO_BYTES_MAX, "checked where it is read");
    let mut bytes = vec![0; length];
    bytes[..HELLO_PREFIX_BYTES].copy_from_slice(&prefix);
    source.read_exact(&mut bytes[HELLO_PREFIX_BYTES..]).await.map_err(Ended::Socket)?;
    Ok(bytes)
}

async fn write(sink: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Ended> {
    sink.write_all(bytes).await.map_err(Ended::Socket)
}

async fn within<T>(
    patience: Duration,
    steps: impl Future<Output = Result<T, Ended>>,
) -> Result<T, Ended> {
    timeout(patience, steps).await.unwrap_or(Err(Ended::HelloTimeout))
}
