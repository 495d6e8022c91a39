//! Who may speak to this node: asked once for every connection, after both sides have proven that they know the secret.
//!
//! Safety does not rest on this: messages of consensus name the replica they mean, and a replica lies in one directory.
//! It keeps apart what belongs apart, and tells whoever is no longer wanted why.

use std::sync::Arc;

use super::switchboard::Switchboard;
use crate::ids::{ClusterId, Session};
use crate::stdx::planted::{Bug, is_planted};
use crate::transport::{Doorkeeper, Meant, PeerIdentity, Refusal, Side, Verdict};

/// Judges by the cluster as this node knows it.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) switchboard: Arc<Switchboard>,
}

impl Doorkeeper for Judge {
    fn judge(&self, who: &PeerIdentity, _meant: Option<&Meant>, _side: Side) -> Verdict {
        let cluster = self.switchboard.cluster();
        let own = cluster.as_ref().map_or(ClusterId::NONE, |cluster| cluster.id());
        if who.cluster == ClusterId::NONE {
            return Verdict::Stranger;
        }
        let Some(cluster) = cluster.filter(|_| who.cluster == own) else {
            // To a directory that belongs to no cluster everybody is a member of something.
            let is_stranger_here = own == ClusterId::NONE;
            return if is_stranger_here {
                Verdict::Member
            } else {
                Verdict::Refuse(Refusal::OtherCluster)
            };
        };
        if cluster.is_gone(who.incarnation) {
            return Verdict::Refuse(Refusal::Gone);
        }
        // Whoever is not known here may be known to others already: meta's news travel.
        let recorded =
            cluster.members().get(&who.node).filter(|it| it.incarnation == who.incarnation);
        match recorded {
            Some(member)
                if is_superseded(who.session, member.session) && !is_planted(Bug::CopyAccepted) =>
            {
                Verdict::Refuse(Refusal::Copy)
            }
            Some(_) | None => Verdict::Member,
        }
    }
}

/// Whether a start cannot be of the directory whose latest start was `recorded`, but of a copy or an old backup of it.
fn is_superseded(session: Session, recorded: Session) -> bool {
    session.number < recorded.number
        || (session.number == recorded.number && session.random != recorded.random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_of_a_copy_is_told_from_a_later_start() {
        let session = |number, random| Session { number, random };
        let recorded = session(5, 55);
        assert!(is_superseded(session(4, 44), recorded));
        assert!(is_superseded(session(5, 56), recorded));
        assert!(!is_superseded(recorded, recorded));
        assert!(!is_superseded(session(6, 66), recorded), "its START may be on its way");
    }
}
