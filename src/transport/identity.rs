//! Who this node is, who the others say they are, and who of them may come in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::watch;

use super::net::Net;
use super::wire::Refusal;
use crate::ids::{ClusterId, Incarnation, NodeId, Session};

/// A node as it says in its hello. Believed as far as the secret goes: whoever holds it may say anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster it belongs to; [`ClusterId::NONE`] for none yet.
    pub cluster: ClusterId,
    /// Its configured name.
    pub name: String,
    /// The hash of the name.
    pub node: NodeId,
    /// Its directory.
    pub incarnation: Incarnation,
    /// This start of it.
    pub session: Session,
}

impl PeerIdentity {
    /// The node called `name`.
    pub fn new(cluster: ClusterId, name: &str, incarnation: Incarnation, session: Session) -> Self {
        let node = NodeId::of_name(name);
        Self { cluster, name: name.to_owned(), node, incarnation, session }
    }

    /// Whether this is who is meant.
    pub fn is_meant(&self, meant: &Meant) -> bool {
        let Meant { node, incarnation } = *meant;
        node == self.node && (incarnation == Incarnation::NONE || incarnation == self.incarnation)
    }
}

/// Whom a caller means to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meant {
    /// The node's name, hashed.
    pub node: NodeId,
    /// Its directory; [`Incarnation::NONE`] for whoever has the name.
    pub incarnation: Incarnation,
}

/// The sender of a message, as it said in its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The node.
    pub node: NodeId,
    /// Its directory.
    pub incarnation: Incarnation,
    /// This start of it.
    pub session: Session,
    /// Let in as [`Verdict::Stranger`]: the handler decides what such a one may ask.
    pub is_stranger: bool,
}

impl Sender {
    /// The node with `identity`.
    pub(super) const fn of(identity: &PeerIdentity, is_stranger: bool) -> Self {
        let PeerIdentity { node, incarnation, session, .. } = *identity;
        Self { node, incarnation, session, is_stranger }
    }
}

/// The role of the side that judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// It called.
    Dialling,
    /// It was called.
    Listening,
}

/// What becomes of an authenticated peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A node of this cluster.
    Member,
    /// A node of no cluster yet, or one met by such a node. Its messages are passed on, marked.
    Stranger,
    /// The connection ends.
    Refuse(Refusal),
}

/// Judges peers once they have proved to hold the secret, on both sides, before any message.
pub trait Doorkeeper: Send + Sync {
    /// Whether `who` may come in. `meant` is whom a caller said to mean, `None` on the side that called. That it is
    /// this node has been checked.
    ///
    /// Must return at once.
    fn judge(&self, who: &PeerIdentity, meant: Option<&Meant>, side: Side) -> Verdict;
}

/// Lets in who belongs to the same cluster; while either belongs to none, as a stranger.
#[derive(Debug)]
pub struct SameCluster(pub LocalIdentity);

impl Doorkeeper for SameCluster {
    fn judge(&self, who: &PeerIdentity, _meant: Option<&Meant>, _side: Side) -> Verdict {
        let local = self.0.get().cluster;
        if local == ClusterId::NONE || who.cluster == ClusterId::NONE {
            Verdict::Stranger
        } else if local == who.cluster {
            Verdict::Member
        } else {
            Verdict::Refuse(Refusal::OtherCluster)
        }
    }
}

/// Who this node is, now. Clones share one cell; a change drops the connections on which something else was said.
#[derive(Clone, Debug)]
pub struct LocalIdentity(Arc<watch::Sender<PeerIdentity>>);

impl LocalIdentity {
    /// A cell with `identity`.
    pub fn new(identity: PeerIdentity) -> Self {
        Self(Arc::new(watch::Sender::new(identity)))
    }

    /// Who this node is.
    pub fn get(&self) -> PeerIdentity {
        self.0.borrow().clone()
    }

    /// This node is `identity` from now on.
    pub fn set(&self, identity: PeerIdentity) {
        self.0.send_if_modified(|current| {
            let is_news = *current != identity;
            *current = identity;
            is_news
        });
    }

    /// Ends once this node is another than `said`.
    pub(super) async fn differs_from(&self, said: &PeerIdentity) {
        // An error cannot happen, this cell holds the sender.
        drop(self.0.subscribe().wait_for(|current| current != said).await);
    }
}

/// Bytes of a nonce and of a proof: one output of SHA-256.
pub(super) const PROOF_BYTES: usize = 32;

/// What this node proves itself with: the secret, and a source of nonces. Clones share both.
///
/// Without a secret everything works the same and proves nothing.
#[derive(Clone)]
pub struct Credentials(Arc<Keys>);

struct Keys {
    keyed: Hmac<Sha256>,
    is_secret: bool,
    entropy: [u8; 32],
    nonces: AtomicU64,
}

impl fmt::Debug for Credentials {
    /// Whether there is a secret, and nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("is_secret", &self.0.is_secret).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Those of a node that holds `secret` (empty for none). `entropy` must be drawn anew at every start: a nonce that
    /// repeats would let an old proof be replayed.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    pub fn new(secret: &[u8], entropy: [u8; 32]) -> Self {
        let keyed = Hmac::new_from_slice(secret).expect("HMAC takes keys of any length");
        let is_secret = !secret.is_empty();
        Self(Arc::new(Keys { keyed, is_secret, entropy, nonces: AtomicU64::new(0) }))
    }

    /// A number never used before, and one that only holders of the secret and the entropy could foretell.
    pub(super) fn nonce(&self) -> [u8; PROOF_BYTES] {
        let number = self.0.nonces.fetch_add(1, Ordering::Relaxed);
        self.proof(&[b"kvorum nonce\0", &self.0.entropy, &number.to_le_bytes()])
    }

    /// The HMAC over `parts`, whose lengths are fixed or told by what is before them.
    pub(super) fn proof(&self, parts: &[&[u8]]) -> [u8; PROOF_BYTES] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Whether `proof` is the one over `parts`; takes the same time whatever its bytes.
    pub(super) fn verify(&self, parts: &[&[u8]], proof: &[u8; PROOF_BYTES]) -> bool {
        self.mac(parts).verify_slice(proof).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        parts.iter().fold(self.0.keyed.clone(), Mac::chain_update)
    }
}

/// What a node needs to talk to others: who it is, how it proves that, whom it talks to, and over what.
#[derive(Clone)]
pub struct Door {
    /// Who this node is.
    pub local: LocalIdentity,
    /// What it proves itself with.
    pub credentials: Credentials,
    /// Who may come in.
    pub keeper: Arc<dyn Doorkeeper>,
    /// Where it finds them.
    pub net: Net,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("local", &self.local)
            .field("credentials", &self.credentials)
            .field("net", &self.net)
            .finish_non_exhaustive()
    }
}

impl Door {
    /// A door for whoever is of the same cluster, on the machine's network.
    pub fn new(identity: PeerIdentity, credentials: Credentials) -> Self {
        let local = LocalIdentity::new(identity);
        let keeper = Arc::new(SameCluster(local.clone()));
        Self { local, credentials, keeper, net: Net::Tcp }
    }

    /// As the keeper judges, after the check that the two mean each other.
    pub(super) fn judge(&self, who: &PeerIdentity, meant: &Meant, side: Side) -> Verdict {
        let (is_meant, meant) = match side {
            Side::Dialling => (who.is_meant(meant), None),
            Side::Listening => (self.local.get().is_meant(meant), Some(meant)),
        };
        if is_meant {
            self.keeper.judge(who, meant, side)
        } else {
            Verdict::Refuse(Refusal::NotMeant)
        }
    }
}
