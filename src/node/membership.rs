//! What this node does, by itself, so that replicas lie where meta wants them: begins and ends its own, carries out
//! the steps of the groups it leads, plans while it leads meta, has its start recorded.
//!
//! Everything here looks at the state there is and does the next small thing, again and again. Nothing is remembered
//! between two looks, so whoever dies at whatever point is followed by one that goes on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::admission::Sightings;
use super::birth;
use super::error::NodeError;
use super::progress::Progress;
use super::residence::Residence;
use super::switchboard::{Myself, Switchboard};
use crate::ids::{ClusterId, GroupId, Holder, RaftId, Session};
use crate::meta::{self, COPIES_MAX, Change, Cluster, Meta, Standing, next_plan};
use crate::raft::{Leadership, Settled, on};
use crate::ring::Doors;
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::workers::Work;
use crate::transport::{Peers, Refusal};
use crate::wal::limits::STARTS_KEPT;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Looks between two questions to a peer about the cluster, where no replica of meta keeps this node up to date.
const FETCH_EVERY: u32 = 5;

/// Looks in a row at which this directory lacks a replica that it should have, before that counts as a loss: after a
/// start the cluster is known only as it was, and a replica may have ended since to be made anew.
const LACKING_LOOKS_MAX: u32 = 50;

/// Why this node must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Another directory took its place.
    Gone,
    /// Another copy of the directory, or a later state of it, was started.
    Copy,
}

/// The node's view of its own membership.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) myself: Myself,
    pub(super) residence: Arc<Residence>,
    pub(super) switchboard: Arc<Switchboard>,
    pub(super) peers: Peers,
    pub(super) progress: Arc<Progress>,
    pub(super) sightings: Arc<Sightings>,
    /// Where clients find this node, as the cluster shall announce it.
    pub(super) doors: Doors,
    /// The groups have their first members, or had them before.
    pub(super) has_begun: AtomicBool,
    /// The cluster was heard of in this start. What the directory adopted may be long outdated.
    pub(super) has_heard: AtomicBool,
    /// The directory knows that this start is recorded.
    pub(super) is_noted: AtomicBool,
    /// Meta has a leader for the first time: there is something to say.
    pub(super) stir: Notify,
    /// The steps that the groups led from here had done at the last look.
    pub(super) done: Mutex<Vec<Change>>,
}

impl Membership {
    /// Looks until the node must not go on; says why.
    ///
    /// Who looks never waits: neither for a peer that hangs, or one would seem silent that is there and a copy slow that
    /// is not, nor for the disk.
    pub(super) async fn watch_over(self: Arc<Self>) -> Result<End, NodeError> {
        tokio::select! {
            biased;
            // The others act on what it has seen, and end with it.
            end = self.look() => Ok(end),
            error = self.settle_in() => Err(error),
            never = self.talk() => match never {},
        }
    }

    /// Looks around, and moves the groups led from here on. Waits for nobody.
    async fn look(&self) -> End {
        let (mut timer, mut news) = (looks(), self.switchboard.meta().watch_applied());
        loop {
            next_look(&mut timer, &mut news).await;
            if let Some(latest) = self.switchboard.meta().applied() {
                self.switchboard.meta().learn(&latest);
                self.has_heard.store(true, Ordering::Release);
            }
            let Some(cluster) = self.switchboard.cluster() else { continue };
            if let Some(end) = self.must_end(&cluster) {
                return end;
            }
            self.sightings.note(&cluster, &self.peers, Instant::now());
            self.mean_members(&cluster);
            self.carry_out(&cluster);
            self.open_doors(&cluster);
        }
    }

    /// Begins and ends replicas here; returns when that cannot be done.
    async fn settle_in(&self) -> NodeError {
        let mut timer = looks();
        let mut lacking = 0;
        loop {
            timer.tick().await;
            let Some(cluster) = self.switchboard.cluster() else { continue };
            match self.align(&cluster).await {
                Ok(true) => lacking += 1,
                Ok(false) => lacking = 0,
                Err(error) => return error,
            }
            if lacking > LACKING_LOOKS_MAX {
                return NodeError::LostReplicas;
            }
        }
    }

    /// Asks and tells others.
    async fn talk(&self) -> Infallible {
        let (mut timer, mut news) = (looks(), self.switchboard.meta().watch());
        let mut rounds = 0_u32;
        loop {
            tokio::select! {
                biased;
                () = next_look(&mut timer, &mut news) => {}
                () = self.stir.notified() => {}
            }
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(FETCH_EVERY) && self.must_fetch() {
                self.fetch().await;
            }
            let Some(cluster) = self.switchboard.cluster() else { continue };
            let done = self.done.lock().clone();
            for change in done {
                self.tell(&change).await;
            }
            // One at a time, and no more than would be taken: whatever meta ignores stands in its log all the same.
            let is_full = cluster.copies_into(self.myself.incarnation).count() >= COPIES_MAX;
            let next = self.residence.to_be_rebuilt().into_iter().find(|(group, replica)| {
                let (group, step) = (*group, cluster.step(*group));
                step.is_some_and(|step| step.add == *replica)
                    || (step.is_none() && (group == GroupId::META || !is_full))
            });
            if let Some((group, replica)) = next {
                self.tell(&Change::Rebuild { group, replica }).await;
            }
            self.plan().await;
            self.record_start(&cluster).await;
            self.announce(&cluster).await;
        }
    }

    /// Whether news of the cluster do not come by themselves.
    fn must_fetch(&self) -> bool {
        let meta = self.switchboard.meta();
        let is_led = meta.leadership().is_some_and(|leadership| leadership != Leadership::Unknown);
        !is_led || meta.applied().is_none()
    }

    async fn fetch(&self) {
        let is_member = |id: ClusterId| self.switchboard.cluster().is_some_and(|it| it.id() == id);
        let members = self.peers.all().into_iter().filter(|peer| {
            peer.connected_identity().is_some_and(|identity| is_member(identity.cluster))
        });
        let heard = join_all(members.map(|peer| async move { Meta::fetch(&peer).await })).await;
        for cluster in heard.into_iter().flatten().filter(|cluster| is_member(cluster.id())) {
            self.switchboard.meta().learn(&cluster);
            self.has_heard.store(true, Ordering::Release);
        }
    }

    /// Whether it is clear that this directory is none of the cluster's any more: by what this node knows, or by what
    /// others say of it.
    fn must_end(&self, cluster: &Cluster) -> Option<End> {
        if cluster.is_gone(self.myself.incarnation) {
            return Some(End::Gone);
        }
        if is_planted(Bug::CopyAccepted) {
            return None;
        }
        if let Some(member) = cluster.members().get(&self.myself.node)
            && member.incarnation == self.myself.incarnation
            && is_of_another(member.session, &self.residence.starts)
        {
            return Some(End::Copy);
        }
        if let Some(recorded) = self.recorded(cluster)
            && recorded != self.myself.session
            && is_of_an_earlier_start(self.residence.wal.opened_before(), recorded)
        {
            return Some(End::Copy);
        }
        let words = self.peers.all();
        end_by_words(words.iter().map(|peer| match peer.refusal() {
            _ if peer.is_connected() => Word::Welcome,
            Some(Refusal::Gone) => Word::End(End::Gone),
            Some(Refusal::Copy) => Word::End(End::Copy),
            Some(
                Refusal::Version | Refusal::OtherCluster | Refusal::NotMeant | Refusal::Secret,
            )
            | None => Word::Nothing,
        }))
    }

    /// Dials the directories that the members' names stand for, and nobody else. Before the cluster was heard of, whoever
    /// is there: a peer that was replaced since could not be found otherwise, and messages name the replica they mean.
    fn mean_members(&self, cluster: &Cluster) {
        if !self.has_begun.load(Ordering::Acquire) || !self.has_heard.load(Ordering::Acquire) {
            return; // Until it has begun a new directory must be seen as such.
        }
        for (node, member) in cluster.members() {
            if let Some(peer) = self.peers.get(*node) {
                peer.set_meant(member.incarnation);
            }
        }
    }

    /// Begins the replicas that meta has assigned to this directory and ends those that it has let go. Whether some are
    /// missing that it should have, as far as this node has heard.
    async fn align(&self, cluster: &Cluster) -> Result<bool, NodeError> {
        let assigned = cluster.assigned_to(self.myself.incarnation);
        let mut lacks_some = false;
        for group in cluster.groups().keys() {
            let step = cluster.step(*group);
            let is_over = |id: &RaftId| {
                // Or it has stopped for good, and another is to take its place right here.
                let is_replaced = step.is_some_and(|step| {
                    step.remove == *id && step.holder.incarnation == self.myself.incarnation
                });
                cluster.is_ended(*id) || is_replaced
            };
            if let Some(id) = self.residence.replica(*group).filter(is_over) {
                self.residence.end(*group, id).await?;
            }
            // What ended here is none that is missing: the news are older than that.
            let has_ended = |id: &RaftId| self.residence.wal.last_ended(*group) >= Some(*id);
            let wanted = assigned.get(group).filter(|id| !has_ended(id));
            if let (None, Some(id)) = (self.residence.replica(*group), wanted) {
                if step.is_some_and(|step| step.add == *id) {
                    self.residence.begin(*group, *id).await?;
                } else {
                    lacks_some = true;
                }
            }
        }
        Ok(lacks_some)
    }

    /// Carries out the steps of the groups led from here, a call at a time, and notes what is to be reported.
    fn carry_out(&self, cluster: &Cluster) {
        if !self.has_heard.load(Ordering::Acquire) {
            return; // The step may have been done and undone long ago.
        }
        let mut done = Vec::new();
        for (group, assignment) in cluster.groups() {
            let mut target: BTreeMap<RaftId, Holder> = assignment.replicas.clone();
            if let Some(step) = assignment.step {
                target.remove(&step.remove);
                target.insert(step.add, step.holder);
            }
            let joining = assignment.step.map(|step| step.add);
            let settled = match self.switchboard.shard(*group) {
                Some(shard) => shard.settle(&target, joining),
                None => self.switchboard.meta().settle(&target, joining),
            };
            if let (Some(Settled::Committed), Some(step)) = (settled, assignment.step) {
                done.push(Change::Done { group: *group, add: step.add });
            }
        }
        *self.done.lock() = done;
    }

    /// As meta's leader: decides what is next.
    async fn plan(&self) {
        let meta = self.switchboard.meta();
        if !meta.leads() {
            return;
        }
        let change = match meta.applied() {
            // The first leader logs the birth that all its voters have adopted.
            None => self
                .switchboard
                .cluster()
                .map(|cluster| Change::Create(Box::new((*cluster).clone()))),
            Some(latest) => next_plan(&latest),
        };
        if let Some(change) = change {
            meta.append(change.encode()).await;
        }
    }

    /// Has this start recorded, so that no other copy of the directory is taken for it.
    async fn record_start(&self, cluster: &Cluster) {
        let session = self.myself.session;
        if self.recorded(cluster) == Some(session) {
            // Before that it has nothing to forget.
            let is_news = self.residence.starts.len() > STARTS_KEPT + 1;
            if is_news && !self.is_noted.load(Ordering::Relaxed) {
                let data_dir = Arc::clone(&self.residence.data_dir);
                let note = move || data_dir.lock().note_recorded(session);
                match on(&*self.residence.workers, Work::Disk, note).await {
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "cannot note that this start was recorded");
                    }
                    Ok(Ok(())) | Err(_) => self.is_noted.store(true, Ordering::Relaxed),
                }
            }
            return;
        }
        let starts = self.residence.starts.clone();
        let (incarnation, level) = (self.myself.incarnation, meta::LEVEL);
        self.tell(&Change::Start { incarnation, session, starts, level }).await;
    }

    /// Has the cluster told where this node's doors are.
    async fn announce(&self, cluster: &Cluster) {
        if self.recorded(cluster).is_some() && !self.is_announced(cluster) {
            let (node, doors) = (self.myself.node, self.doors.clone());
            self.tell(&Change::SetDoors { node, doors }).await;
        }
    }

    fn is_announced(&self, cluster: &Cluster) -> bool {
        let node = cluster.topology().node(self.myself.node);
        node.is_some_and(|node| node.doors.as_ref() == Some(&self.doors))
    }

    fn recorded(&self, cluster: &Cluster) -> Option<Session> {
        let member = cluster.members().get(&self.myself.node)?;
        (member.incarnation == self.myself.incarnation).then_some(member.session)
    }

    /// Lets clients in once the cluster knows this start and the directory is full; says what is missing until then.
    fn open_doors(&self, cluster: &Cluster) {
        if self.progress.waits_for().is_none() || !self.has_begun.load(Ordering::Acquire) {
            return;
        }
        if self.recorded(cluster) != Some(self.myself.session) {
            let why = if self.switchboard.meta().is_served() {
                None
            } else {
                birth::why_nobody_decides(cluster, &self.myself, &self.peers)
            };
            return self.progress.say(&why.unwrap_or_else(|| {
                "waiting for a leader of the meta group to record this start".to_owned()
            }));
        }
        // Or a client that is told of the cluster here would not be told of this node.
        if !self.is_announced(cluster) {
            return self
                .progress
                .say("waiting for a leader of the meta group to announce the doors");
        }
        let is_full = cluster
            .members()
            .get(&self.myself.node)
            .is_some_and(|member| member.standing == Standing::Member);
        if is_full {
            return self.progress.finish();
        }
        let lost = cluster.orphans().filter(|(_, _, holder)| holder.node == self.myself.node);
        let missing = lost.count();
        self.progress.say(&format!(
            "readmission: {missing} of {} groups have yet to take this directory in",
            cluster.groups().len()
        ));
    }

    /// Has the cluster changed. Once: who looks again tells again.
    async fn tell(&self, change: &Change) {
        self.switchboard.meta().propose(change, &self.peers).await;
    }
}

/// The ticks at which one looks.
fn looks() -> Interval {
    let mut timer = tokio::time::interval(LOOK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// Waits for the next look: for its time, or for news of the cluster.
async fn next_look(timer: &mut Interval, news: &mut watch::Receiver<Option<Arc<Cluster>>>) {
    tokio::select! {
        biased;
        // News that come without a pause hold up no tick.
        _ = timer.tick() => {}
        Ok(()) = news.changed() => {}
    }
}

/// What a peer says of this directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// It takes it for a member.
    Welcome,
    /// It does not, and says why.
    End(End),
    /// It is not there, or has something else against this node.
    Nothing,
}

/// Why this node must end by the words of its peers. What one knows of the cluster may be old but was true, and neither
/// is undone: a directory that is gone, a start that another has superseded. So one word is enough, where nobody says
/// otherwise. Who does knows less, or is wrong; this node will hear the truth from it or about it.
fn end_by_words(words: impl Iterator<Item = Word>) -> Option<End> {
    let mut end = None;
    for word in words {
        match word {
            Word::Welcome => return None,
            Word::End(why) => end = end.or(Some(why)),
            Word::Nothing => {}
        }
    }
    end
}

/// Whether a log that was opened last in the start `opened_before` is older than the one that the start `recorded` by the
/// cluster had: a start opens the log before anybody hears of it.
fn is_of_an_earlier_start(opened_before: Option<Session>, recorded: Session) -> bool {
    opened_before.is_some_and(|before| before.number < recorded.number)
}

/// Whether a start that the cluster has recorded is one of another copy of the directory, or a later one than this copy
/// knows, judged by the starts that it remembers. One before those is merely old news: they begin no later than with the
/// last that was known to be recorded.
fn is_of_another(recorded: Session, starts: &[Session]) -> bool {
    let oldest = starts.first().map_or(0, |start| start.number);
    recorded.number >= oldest && !starts.contains(&recorded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a cluster of two, or of three with one down, no majority can say so.
    #[test]
    fn one_word_ends_a_directory_where_nobody_says_otherwise() {
        let (gone, copy) = (Word::End(End::Gone), Word::End(End::Copy));
        let end = |words: &[Word]| end_by_words(words.iter().copied());
        assert_eq!(end(&[gone]), Some(End::Gone));
        assert_eq!(end(&[Word::Nothing, copy]), Some(End::Copy));
        assert_eq!(end(&[copy, Word::Welcome]), None);
        assert_eq!(end(&[Word::Nothing, Word::Nothing]), None);
    }

    #[test]
    fn a_log_put_back_from_an_earlier_start_is_told_from_one_that_was_never_recorded() {
        let start = |number| Session { number, random: number };
        assert!(is_of_an_earlier_start(Some(start(3)), start(4)));
        assert!(!is_of_an_earlier_start(Some(start(4)), start(4)));
        assert!(!is_of_an_earlier_start(Some(start(5)), start(4)), "it was not recorded");
        assert!(!is_of_an_earlier_start(None, start(4)), "that is another kind of loss");
    }

    #[test]
    fn old_news_of_this_directory_are_told_from_news_of_a_copy() {
        let start = |number, random| Session { number, random };
        let starts = [start(4, 44), start(5, 55), start(6, 66)];
        assert!(!is_of_another(start(5, 55), &starts));
        assert!(!is_of_another(start(1, 11), &starts), "what it was adopted with");
        assert!(is_of_another(start(5, 56), &starts), "a copy has started too");
        assert!(is_of_another(start(7, 77), &starts), "it is an old backup");
    }
}
