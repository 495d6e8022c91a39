//! Whole groups in one process: real logs, real sockets, who leads and who may say so.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::{VoteRequest, VoteResponse};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::network::kind;
use super::type_config::{TypeConfig, Vote};
use super::{
    Applied, BlockingPool, EntryPosition, Estimate, Group, GroupOptions, Leadership, Origin,
    ProposalFate, ReadRefused, Restored, Sizes, SnapshotProgress, SnapshotStore, SnapshotTicket,
    StateMachine, Timekeeper, Timing, TransferOutcome, TransferRefusal, UnknownEntry, Word,
};
use crate::ids::{ClusterId, GroupId, Holder, Incarnation, NodeId, RaftId, Session};
use crate::stdx::clock::{Clock, ManualClock, SystemClock};
use crate::stdx::fs::SystemDisk;
use crate::stdx::memory::Budget;
use crate::transport::{
    Credentials, Door, Handler, Meant, Message, PeerClient, PeerIdentity, PeerOptions, PeerServer,
    Peers, Responder,
};
use crate::wal::{SnapshotDir, Wal, WalOptions};

const GROUP: GroupId = GroupId(1);
/// How often replicas look at their timers, as `node::start` does.
const BEAT: Duration = Duration::from_millis(50);
/// Longer than any test should take: reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// What only a newer version knows.
const NEWER: &[u8] = b"newer";

/// What takes long to apply: until the machine is let go.
const HEAVY: &[u8] = b"heavy";

/// Counts what it applies, and the snapshots that it begins.
#[derive(Debug, Default)]
pub(super) struct Counter {
    applied: Arc<AtomicU64>,
    pub(super) snapshots_begun: AtomicU64,
    /// What is heavy takes as long as this lasts.
    heavy: Mutex<Option<mpsc::Receiver<()>>>,
    knows_newer: bool,
    /// Its snapshots are lost on the way.
    loses_snapshots: bool,
    /// Who told it that one is given up.
    aborted_by: Mutex<Option<ThreadId>>,
}

impl StateMachine for Counter {
    fn apply(
        &self,
        _position: EntryPosition,
        _origin: Origin,
        proposal: &Bytes,
    ) -> Result<Applied, UnknownEntry> {
        if proposal == NEWER && !self.knows_newer {
            return Err(UnknownEntry::because(io::Error::other("newer than this test")));
        }
        if proposal == HEAVY {
            let (applied, heavy) = (Arc::clone(&self.applied), self.heavy.lock().take());
            return Ok(Applied::Rest(Box::new(move || {
                let is_over = heavy.unwrap().recv();
                assert!(is_over.is_err(), "nothing is sent");
                applied.fetch_add(1, Ordering::Relaxed);
            })));
        }
        self.applied.fetch_add(1, Ordering::Relaxed);
        Ok(Applied::Whole)
    }

    fn begin_snapshot(&self) -> SnapshotTicket {
        self.snapshots_begun.fetch_add(1, Ordering::Relaxed);
        SnapshotTicket(0)
    }

    fn snapshot_step(
        &self,
        _ticket: SnapshotTicket,
        _budget: usize,
        _out: &mut Vec<u8>,
    ) -> SnapshotProgress {
        if self.loses_snapshots { SnapshotProgress::Lost } else { SnapshotProgress::Done }
    }

    fn abort_snapshot(&self, _ticket: SnapshotTicket) {
        *self.aborted_by.lock() = Some(thread::current().id());
    }

    fn prepare(
        self: Arc<Self>,
        _chunks: &mut dyn Iterator<Item = io::Result<Bytes>>,
    ) -> io::Result<Restored> {
        Ok(Box::new(|| {}))
    }
}

/// The node called `n` and a number.
fn node(number: u64) -> NodeId {
    NodeId::of_name(&format!("n{number}"))
}

/// How it meets the others.
fn door(number: u64) -> Door {
    let session = Session { number: 1, random: number };
    let incarnation = Incarnation(number.into());
    let identity = PeerIdentity::new(ClusterId(77), &format!("n{number}"), incarnation, session);
    Door::new(identity, Credentials::new(b"", [0; 32]))
}

/// A time that stands still, another one on each node, and what was heard of others'.
#[derive(Debug)]
struct Sundial {
    time: u64,
    heard: Mutex<Vec<u64>>,
    agreed: Mutex<Vec<Vec<Estimate>>>,
}

impl Sundial {
    fn of(number: u64) -> Arc<Self> {
        let (heard, agreed) = (Mutex::default(), Mutex::default());
        Arc::new(Self { time: 1000 * number, heard, agreed })
    }
}

impl Sundial {
    fn told(&self) -> Estimate {
        Estimate { micros: self.time, word: Some(Word { term: 0, micros: self.time }) }
    }
}

impl Timekeeper for Sundial {
    fn estimate(&self) -> Estimate {
        self.told()
    }

    fn hear(&self, word: Word) {
        self.heard.lock().push(word.micros);
    }

    fn tell(&self, _term: u64) -> u64 {
        self.time
    }

    fn agree(&self, voters: &[Estimate]) {
        self.agreed.lock().push(voters.to_vec());
    }
}

/// A replica and the node around it.
struct Member {
    node: NodeId,
    time: Arc<Sundial>,
    group: Group<Counter>,
    wal: Wal,
    ground: Ground,
    ticking: AbortHandle,
}

/// What of a member outlives its restart.
struct Ground {
    number: u64,
    clock: Arc<dyn Clock>,
    gate: Arc<Gate>,
    peers: Peers,
    _server: PeerServer,
    folder: TempDir,
}

/// Lets messages through to a replica, unless it is deaf.
#[derive(Default)]
struct Gate {
    group: Mutex<Option<Group<Counter>>>,
    is_deaf: AtomicBool,
    /// The term of the last leader heard, as of the moment after each AppendEntries was handed over.
    heard: Mutex<Vec<u64>>,
}

impl Handler for Gate {
    fn handle(&self, message: Message, responder: Responder) {
        if let Some(group) = self.group.lock().clone()
            && !self.is_deaf.load(Ordering::Relaxed)
        {
            let is_leaders = [kind::APPEND_ENTRIES, kind::HEARTBEAT].contains(&message.kind);
            group.handle(message, responder);
            if is_leaders {
                self.heard.lock().push(group.shared.pledge.with(|promise| promise.term()));
            }
        }
    }
}

impl Member {
    fn id(&self) -> RaftId {
        self.group.raft_id()
    }

    fn deafen(&self, is_deaf: bool) {
        self.ground.gate.is_deaf.store(is_deaf, Ordering::Relaxed);
    }

    async fn propose(&self) -> ProposalFate {
        self.propose_this(b"one").await
    }

    async fn propose_this(&self, proposal: &'static [u8]) -> ProposalFate {
        let (done, fate) = oneshot::channel();
        let report = move |fate| {
            let _unheard = done.send(fate);
        };
        self.group.propose(Bytes::from_static(proposal), report).await.unwrap();
        timeout(PATIENCE, fate).await.unwrap().unwrap()
    }
}

/// Starts a member on what its folder holds.
async fn start(ground: Ground, is_short: bool, beat: Duration, machine: Counter) -> Member {
    let (number, folder) = (ground.number, ground.folder.path());
    let id = RaftId(10 + number);
    // The log of an earlier start is let go of in a moment.
    let (wal, recovered) =
        wait_for("log", || Wal::open(&folder.join("wal"), WalOptions::default()).ok()).await;
    let recovered = recovered.get(&GROUP).cloned();
    if recovered.is_none() {
        wal.born(GROUP, id).await.unwrap();
    }
    let time = Sundial::of(number);
    let options = GroupOptions {
        group: GROUP,
        time: Arc::clone(&time) as Arc<dyn Timekeeper>,
        budget: Arc::new(Budget::of(0)),
        workers: BlockingPool::shared(),
        id,
        holder: holder(number),
        wal: wal.clone(),
        recovered,
        snapshots: SnapshotStore::new(
            SnapshotDir::new(SystemDisk::shared(), folder.to_owned()),
            GROUP,
        ),
        is_short,
        session: Session { number: 1, random: number },
        peers: ground.peers.clone(),
        sizes: Sizes::DEFAULT,
        timing: Timing::DEFAULT,
        clock: Arc::clone(&ground.clock),
        seed: number,
    };
    let group = Group::start(options, Arc::new(machine)).await.unwrap();
    *ground.gate.group.lock() = Some(group.clone());
    let ticked = group.clone();
    let ticking = tokio::spawn(async move {
        loop {
            ticked.tick().await;
            sleep(beat).await;
        }
    });
    Member { node: node(number), time, group, wal, ground, ticking: ticking.abort_handle() }
}

impl Member {
    /// Stops it and starts it again with another program.
    async fn restart(self, machine: Counter) -> Self {
        *self.ground.gate.group.lock() = None;
        self.ticking.abort();
        self.group.stop().await;
        drop((self.group, self.wal));
        start(self.ground, false, BEAT, machine).await
    }
}

fn holder(number: u64) -> Holder {
    Holder { node: node(number), incarnation: Incarnation(number.into()) }
}

/// `count` members, all voters, looking at their timers every `beat`; the members numbered `short` are short.
async fn members(count: u64, beat: Duration, short: &[u64]) -> Vec<Member> {
    members_by(Arc::new(SystemClock::new()), count, beat, short).await
}

/// The same, with leases that are counted by `clock`.
async fn members_by(
    clock: Arc<dyn Clock>,
    count: u64,
    beat: Duration,
    short: &[u64],
) -> Vec<Member> {
    let mut grounds = Vec::new();
    for number in 1..=count {
        let gate = Arc::new(Gate::default());
        let handler = Arc::clone(&gate) as Arc<dyn Handler>;
        let server = PeerServer::bind("127.0.0.1:0", door(number), handler).await.unwrap();
        grounds.push((number, gate, server));
    }
    let addresses: Vec<(u64, String)> = grounds
        .iter()
        .map(|(number, _, server)| (*number, server.local_addr().to_string()))
        .collect();
    let voters: BTreeMap<RaftId, Holder> =
        (1..=count).map(|number| (RaftId(10 + number), holder(number))).collect();
    let mut members = Vec::new();
    for (number, gate, server) in grounds {
        let peers = Peers::new();
        for (remote, address) in addresses.iter().filter(|(remote, _)| *remote != number) {
            peers.insert(PeerClient::new(PeerOptions {
                door: door(number),
                meant: Meant { node: node(*remote), incarnation: Incarnation::NONE },
                addresses: vec![address.clone()],
            }));
        }
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::clone(&clock);
        let ground = Ground { number, clock, gate, peers, _server: server, folder };
        members.push(start(ground, short.contains(&number), beat, Counter::default()).await);
    }
    members[0].group.initialize(voters).await.unwrap();
    members
}

/// Waits until `probe` gives something.
async fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a member that leads and may read.
async fn leader(members: &[Member]) -> &Member {
    wait_for("leader with a lease", || {
        members
            .iter()
            .find(|member| member.group.leadership() == Leadership::Here && member.group.may_read())
    })
    .await
}

fn others<'a>(members: &'a [Member], than: &Member) -> Vec<&'a Member> {
    members.iter().filter(|member| member.id() != than.id()).collect()
}

#[tokio::test]
async fn a_lead_is_handed_over_and_proposals_wait_for_it() {
    let members = members(3, BEAT, &[]).await;
    let old = leader(&members).await;
    assert_eq!(old.propose().await, ProposalFate::Applied);
    let term = old.group.status().term;
    let target = others(&members, old)[0];
    wait_for("a fit successor", || old.group.could_hand_over(target.node).then_some(())).await;
    let (outcome, fate) = tokio::join!(old.group.transfer_leader(target.node), async {
        // While the lead changes hands.
        sleep(Duration::from_millis(2)).await;
        old.propose().await
    });
    assert_eq!(outcome, TransferOutcome::Accepted);
    assert!(matches!(fate, ProposalFate::NotAppended { .. } | ProposalFate::Applied), "{fate:?}");
    assert!(!old.group.may_read());
    assert_eq!(leader(&members).await.id(), target.id());
    assert_eq!(target.group.status().term, term + 1, "one term was used");
    assert_eq!(target.propose().await, ProposalFate::Applied);
}

#[tokio::test]
async fn who_does_not_answer_is_not_handed_the_lead() {
    let members = members(3, BEAT, &[]).await;
    let old = leader(&members).await;
    let target = others(&members, old)[0];
    wait_for("a fit successor", || old.group.could_hand_over(target.node).then_some(())).await;
    let term = old.group.status().term;
    target.deafen(true);
    let silent = TransferOutcome::Refused(TransferRefusal::Silent);
    // An answer that is still fresh may count once.
    wait_for("silence", || (!old.group.could_hand_over(target.node)).then_some(())).await;
    assert_eq!(old.group.transfer_leader(target.node).await, silent);
    assert_eq!(old.propose().await, ProposalFate::Applied);
    assert_eq!(leader(&members).await.id(), old.id(), "it has its lease");
    assert_eq!(old.group.status().term, term);
}

/// It counted entries: proposals would have waited for a lease, and in vain.
#[tokio::test]
async fn who_lacks_a_large_entry_is_not_handed_the_lead() {
    static LARGE: [u8; 8 << 20] = [b'x'; 8 << 20];
    let members = members(3, BEAT, &[]).await;
    let old = leader(&members).await;
    let target = others(&members, old)[0];
    wait_for("a fit successor", || old.group.could_hand_over(target.node).then_some(())).await;
    target.deafen(true);
    let refused = TransferOutcome::Refused;
    for (proposal, refusal) in
        [(&LARGE[..1], TransferRefusal::Silent), (&LARGE, TransferRefusal::Behind)]
    {
        assert_eq!(old.propose_this(proposal).await, ProposalFate::Applied);
        wait_for("an old answer", || (!old.group.could_hand_over(target.node)).then_some(())).await;
        assert_eq!(old.group.transfer_leader(target.node).await, refused(refusal));
    }
    target.deafen(false);
    wait_for("a fit successor", || old.group.could_hand_over(target.node).then_some(())).await;
    assert_eq!(old.group.transfer_leader(target.node).await, TransferOutcome::Accepted);
}

#[tokio::test]
async fn a_lead_that_is_declined_is_kept_with_its_lease() {
    let members = members(3, BEAT, &[]).await;
    let old = leader(&members).await;
    let target = others(&members, old)[0];
    wait_for("a fit successor", || old.group.could_hand_over(target.node).then_some(())).await;
    let term = old.group.status().term;
    target.group.shared.shortness.shorten(u64::MAX);
    let declined = TransferOutcome::Refused(TransferRefusal::Declined);
    assert_eq!(old.group.transfer_leader(target.node).await, declined);
    assert_eq!(leader(&members).await.id(), old.id(), "it has its lease again");
    assert_eq!(old.propose().await, ProposalFate::Applied);
    assert_eq!(old.group.status().term, term);
}

#[tokio::test]
async fn nobody_hands_over_what_it_does_not_have_or_to_whom_it_may_not() {
    let members = members(3, BEAT, &[]).await;
    let old = leader(&members).await;
    let follower = others(&members, old)[0];
    let refused = TransferOutcome::Refused;
    let outcome = follower.group.transfer_leader(old.node).await;
    assert_eq!(outcome, refused(TransferRefusal::NotLeading));
    let outcome = old.group.transfer_leader(NodeId(99)).await;
    assert_eq!(outcome, refused(TransferRefusal::NotEligible));
    let outcome = old.group.transfer_leader(old.node).await;
    assert_eq!(outcome, refused(TransferRefusal::NotEligible));
    assert!(old.group.may_read());
}

/// The lease that guards votes is this room's, not openraft's, which is five times as long.
#[tokio::test]
async fn votes_are_refused_for_one_lease_after_a_leader_was_heard_and_no_longer() {
    let members = members(3, BEAT, &[]).await;
    let old = leader(&members).await;
    let [candidate, voter] = others(&members, old)[..] else { panic!("three members") };
    wait_for("a log as long", || {
        let last = |member: &Member| member.group.status().last_log_index;
        (last(voter) == last(old)).then_some(())
    })
    .await;
    let term = old.group.status().term;
    let request = |term: u64| {
        let vote = Vote::new(term, candidate.id());
        let request: VoteRequest<TypeConfig> =
            VoteRequest::new(vote, voter.group.shared.log.last_log_id());
        postcard::to_stdvec(&(request, super::census::Roll::new())).unwrap()
    };
    let is_granted = |answer: Vec<u8>| {
        let answer: VoteResponse<TypeConfig> = postcard::take_from_bytes(&answer).unwrap().0;
        answer.vote_granted
    };
    for member in [voter, old] {
        let shared = &member.group.shared;
        assert!(!is_granted(shared.answer_pre_vote(&request(term + 1)).unwrap()));
        assert!(!is_granted(shared.answer_vote(&request(term + 1)).await.unwrap()));
    }
    assert_eq!(leader(&members).await.id(), old.id(), "asking has changed nothing");
    assert_eq!(voter.group.status().term, term);

    let stopped = Instant::now();
    old.group.stop().await;
    let shared = &voter.group.shared;
    wait_for("a pre-vote", || {
        // The candidate itself may have been faster.
        let is_granted = is_granted(shared.answer_pre_vote(&request(term + 1)).unwrap());
        (is_granted || voter.group.status().term > term).then_some(())
    })
    .await;
    let took = stopped.elapsed();
    // The last word may be a heartbeat and a look old.
    assert!(took + Timing::DEFAULT.heartbeat + 3 * BEAT > Timing::DEFAULT.lease, "{took:?}");
    assert!(took < 3 * Timing::DEFAULT.lease, "{took:?}");
    wait_for("another leader", || {
        [candidate, voter].into_iter().find(|one| one.group.leadership() == Leadership::Here)
    })
    .await;
}

/// Thesis §6.4.1: a leader may count on its lease from the time at which it sent what a majority has answered, by a clock, and
/// no longer.
#[tokio::test]
async fn a_lease_runs_out_when_the_clock_says_so_and_not_before() {
    let clock = Arc::new(ManualClock::default());
    let members = members_by(Arc::clone(&clock) as Arc<dyn Clock>, 3, BEAT, &[]).await;
    let old = leader(&members).await;
    // Nobody else runs between two looks: all answers so far are to messages of the time 0.
    let moment = Duration::from_micros(1);
    clock.advance(Timing::DEFAULT.read_lease());
    assert!(old.group.may_read(), "in the last moment of its lease");
    clock.advance(moment);
    assert!(!old.group.may_read());

    // The next heartbeat is of another time. For so long its followers elect nobody else:
    assert_eq!(leader(&members).await.id(), old.id());
    clock.advance(Timing::DEFAULT.lease);
    assert!(old.group.shared.leads_with_quorum());
    clock.advance(moment);
    assert!(!old.group.shared.leads_with_quorum());
}

/// A dead leader is replaced although every look at the timers comes late (it was forgiven each time once).
#[tokio::test]
async fn a_dead_leader_is_replaced_although_every_look_is_late() {
    let members = members(3, Duration::from_millis(250), &[]).await;
    let old = wait_for("leader", || {
        members.iter().find(|member| member.group.leadership() == Leadership::Here)
    })
    .await;
    wait_for("followers", || {
        let follow = |member: &&Member| member.group.leadership() == Leadership::There(old.node);
        others(&members, old).iter().all(follow).then_some(())
    })
    .await;
    old.group.stop().await;
    let rest = others(&members, old);
    wait_for("another leader", || {
        rest.iter().find(|member| member.group.leadership() == Leadership::Here).map(|_| ())
    })
    .await;
}

/// A short replica follows, and has no say until a leader has fenced it: then it elects like any other.
#[tokio::test]
async fn a_short_replica_is_whole_again_once_it_has_what_its_leader_has() {
    let members = members(3, BEAT, &[3]).await;
    assert!(members[2].group.is_short());
    let old = leader(&members).await;
    assert_ne!(old.id(), members[2].id());
    assert_eq!(old.propose().await, ProposalFate::Applied);
    wait_for("a whole replica", || (!members[2].group.is_short()).then_some(())).await;
    old.group.stop().await;
    wait_for("a leader by its vote", || {
        let leads = |member: &&Member| member.group.leadership() == Leadership::Here;
        others(&members, old).into_iter().find(leads).map(|_| ())
    })
    .await;
}

/// Where a leader cannot be elected without short replicas, all that are left are counted, and the longest log leads.
#[tokio::test]
async fn after_a_loss_of_power_of_all_they_elect_by_census() {
    for short in [&[1, 2, 3][..], &[1, 2], &[1]] {
        let count = if short == [1] { 1 } else { 3 };
        let members = members(count, BEAT, short).await;
        let old = leader(&members).await;
        assert_eq!(old.propose().await, ProposalFate::Applied);
        let is_whole = |member: &Member| !member.group.is_short();
        wait_for("whole replicas", || members.iter().all(is_whole).then_some(())).await;
    }
}

/// While a whole one is missing it may hold what the short one forgot.
/// It would be the one to stand, by the order of equals, and the others waited for it for ever.
#[tokio::test]
async fn a_census_does_not_wait_for_one_that_has_stopped() {
    let members = members(3, BEAT, &[]).await;
    let first = members.iter().min_by_key(|member| member.id()).unwrap();
    let old = leader(&members).await;
    assert_eq!(old.propose().await, ProposalFate::Applied);
    if old.id() != first.id() {
        assert_eq!(old.group.transfer_leader(first.node).await, TransferOutcome::Accepted);
    }
    let newest = first.group.status().last_log_index;
    let has_all = |member: &Member| member.group.status().last_log_index == newest;
    wait_for("equal logs", || members.iter().all(has_all).then_some(())).await;
    for member in &members {
        member.group.shared.shortness.shorten(u64::MAX);
    }
    first.group.stop().await;
    let rest: Vec<_> = members.iter().filter(|member| member.id() != first.id()).collect();
    wait_for("a leader without it", || {
        rest.iter().any(|member| member.group.leadership() == Leadership::Here).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_short_and_a_whole_replica_wait_for_the_third() {
    let members = members(3, BEAT, &[]).await;
    let old = leader(&members).await;
    assert_eq!(old.propose().await, ProposalFate::Applied);
    let rest = others(&members, old);
    old.deafen(true);
    rest[0].group.shared.shortness.shorten(u64::MAX);
    old.group.stop().await;
    sleep(4 * (Timing::DEFAULT.lease + Timing::DEFAULT.election_min)).await;
    assert!(rest.iter().all(|member| member.group.leadership() != Leadership::Here));
    assert!(rest[0].group.is_short());
}

/// R19: a leader that a committed membership leaves out has no lease, and hands over.
#[tokio::test]
async fn a_leader_that_was_voted_out_has_no_lease_and_hands_over() {
    let members = members(3, BEAT, &[]).await;
    let old = leader(&members).await;
    let rest = others(&members, old);
    let voters: std::collections::BTreeSet<RaftId> =
        rest.iter().map(|member| member.id()).collect();
    old.group.shared.raft.change_membership(voters, false).await.unwrap();
    assert!(!old.group.may_read(), "it is no voter");
    let new = leader(&members).await;
    assert_ne!(new.id(), old.id());
    wait_for("a write", || (new.group.leadership() == Leadership::Here).then_some(())).await;
    assert_eq!(new.propose().await, ProposalFate::Applied);
}

/// faults.md R14: it skipped the entry, and differed from the others from then on.
#[tokio::test]
async fn a_replica_stops_before_an_entry_that_it_does_not_know_and_goes_on_with_a_newer_program() {
    let knowing = || Counter { knows_newer: true, ..Counter::default() };
    let mut members = members(3, BEAT, &[]).await;
    let old = leader(&members).await.ground.number;
    let at = members.iter().position(|member| member.ground.number != old).unwrap();
    let mut outdated = members.remove(at);
    // The others are upgraded, one after the other.
    let mut upgraded = Vec::new();
    for member in members {
        upgraded.push(member.restart(knowing()).await);
    }
    // It may have come to lead meanwhile.
    wait_for("leader", || {
        let mut all = upgraded.iter().chain([&outdated]);
        all.find(|it| it.group.leadership() == Leadership::Here && it.group.may_read()).map(|_| ())
    })
    .await;
    while outdated.group.leadership() == Leadership::Here {
        outdated.group.transfer_leader(upgraded[0].node).await;
        // One that is behind is refused at once, and on this thread it would never catch up.
        sleep(BEAT).await;
    }
    let lead = leader(&upgraded).await;
    assert_eq!(lead.propose().await, ProposalFate::Applied);
    assert_eq!(lead.propose_this(NEWER).await, ProposalFate::Applied, "by those who know it");
    assert_eq!(lead.propose().await, ProposalFate::Applied);
    for _ in 0..2 {
        // And at the same place after a restart.
        let stopped = wait_for("end of the replica", || outdated.group.status().stopped).await;
        assert!(stopped.contains("newer than this test"), "{stopped}");
        assert_eq!(outdated.group.machine().applied.load(Ordering::Relaxed), 1);
        assert_eq!(outdated.group.leadership(), Leadership::Unknown);
        assert_eq!(lead.propose().await, ProposalFate::Applied, "the others go on");
        outdated = outdated.restart(Counter::default()).await;
    }
    let renewed = outdated.restart(knowing()).await;
    let all = lead.group.machine().applied.load(Ordering::Relaxed);
    wait_for("what it has missed", || {
        (renewed.group.machine().applied.load(Ordering::Relaxed) == all).then_some(())
    })
    .await;
    assert!(!renewed.group.has_stopped());
}

/// faults.md B4: who applied beat no hearts. Now the worker waits for what is heavy, and the core commits on, however much
/// that is, and keeps its lead.
#[tokio::test]
async fn the_core_goes_on_while_the_machine_takes_its_time() {
    const ENTRIES: u64 = 3000;
    let members = members(1, BEAT, &[]).await;
    let lead = leader(&members).await;
    let machine = Arc::clone(lead.group.machine());
    let before = machine.applied.load(Ordering::Relaxed);
    let (heavy, is_over) = mpsc::channel();
    *machine.heavy.lock() = Some(is_over);
    let (done, mut fate) = oneshot::channel();
    let report = move |fate| {
        let _unheard = done.send(fate);
    };
    let last = lead.group.status().last_log_index.unwrap();
    lead.group.propose(Bytes::from_static(HEAVY), report).await.unwrap();
    // Else a log without it would be taken for one that may be followed, until the machine has ended.
    let destined = wait_for("the heavy entry to be committed", || {
        lead.group.shared.applied.destined().filter(|it| it.index > last)
    })
    .await;
    let begun = destined.index;
    for number in 1..=ENTRIES {
        lead.group.propose(Bytes::from_static(b"one"), |_| ()).await.unwrap();
        wait_for("the entry in the log", || {
            (lead.group.status().last_log_index >= Some(begun + number)).then_some(())
        })
        .await;
    }
    assert_eq!(machine.applied.load(Ordering::Relaxed), before, "nothing is applied before it");
    assert!(fate.try_recv().is_err());
    assert_eq!(lead.group.leadership(), Leadership::Here);
    drop(heavy);
    assert_eq!(timeout(PATIENCE, fate).await.unwrap(), Ok(ProposalFate::Applied));
    wait_for("all that came after", || {
        (machine.applied.load(Ordering::Relaxed) == before + 1 + ENTRIES).then_some(())
    })
    .await;
}

/// Whoever had asked to be let into the cluster had meta's leader wait without an end.
#[tokio::test]
async fn a_read_index_waits_for_the_machine_until_its_deadline() {
    let members = members(1, BEAT, &[]).await;
    let lead = leader(&members).await;
    let (heavy, is_over) = mpsc::channel();
    *lead.group.machine().heavy.lock() = Some(is_over);
    let last = lead.group.status().last_log_index.unwrap();
    lead.group.propose(Bytes::from_static(HEAVY), |_| ()).await.unwrap();
    wait_for("the heavy entry to be committed", || {
        lead.group.shared.applied.destined().filter(|it| it.index > last)
    })
    .await;
    // Long enough for the leader to be confirmed.
    let deadline = Instant::now() + Duration::from_secs(2);
    let confirmed = timeout(PATIENCE, lead.group.read_index(deadline)).await;
    assert_eq!(confirmed, Ok(Err(ReadRefused::Behind)));
    drop(heavy);
    assert_eq!(lead.group.read_index(Instant::now() + PATIENCE).await, Ok(()));
}

/// The machine may have to wait for whoever reads it.
#[tokio::test]
async fn a_snapshot_is_not_given_up_where_hearts_beat() {
    let losing = Counter { loses_snapshots: true, ..Counter::default() };
    let mut members = members(1, BEAT, &[]).await;
    let member = members.remove(0).restart(losing).await;
    wait_for("leader", || (member.group.leadership() == Leadership::Here).then_some(())).await;
    assert_eq!(member.propose().await, ProposalFate::Applied);
    member.group.snapshot().await;
    let by = wait_for("end of the build", || *member.group.machine().aborted_by.lock()).await;
    assert_ne!(by, thread::current().id());
}

/// The log may have replaced another end that was synced: a snapshot that survives a power cut where that does not
/// would be behind the log and before it.
#[tokio::test]
async fn a_built_snapshot_is_not_on_the_disk_before_the_log_it_covers() {
    let members = members(1, BEAT, &[]).await;
    let lead = leader(&members).await;
    assert_eq!(lead.propose().await, ProposalFate::Applied);
    let before = lead.wal.stats().syncs;
    lead.group.snapshot().await;
    wait_for("snapshot", || (lead.group.snapshot_covers() > 0).then_some(())).await;
    assert!(lead.wal.stats().syncs > before);
}

/// The order in which tasks run is the runtime's affair; entries must reach openraft in that of their arrival.
#[tokio::test]
async fn what_a_leader_sends_is_with_openraft_before_the_next_message_is_taken() {
    let members = members(2, BEAT, &[]).await;
    let leader = leader(&members).await;
    let follower = others(&members, leader)[0];
    let heard = wait_for("AppendEntries", || follower.ground.gate.heard.lock().first().copied());
    assert!(heard.await > 0, "it was left for later");
}

/// faults.md T3: followers heard it from entries alone, at their next look; an idle leader had to write some.
#[tokio::test]
async fn heartbeats_tell_the_leaders_time_and_voters_tell_a_candidate_theirs() {
    let members = members(3, BEAT, &[]).await;
    let old = leader(&members).await;
    let others = || members.iter().filter(|member| member.id() != old.id());
    for follower in others() {
        wait_for("a word on the time", || follower.time.heard.lock().last().copied()).await;
        assert!(follower.time.heard.lock().iter().all(|time| *time == old.time.time));
    }
    assert!(old.time.heard.lock().is_empty(), "the leader goes by its own");
    old.group.stop().await;
    old.deafen(true);
    let new = wait_for("a new leader", || {
        others().find(|member| member.group.leadership() == Leadership::Here)
    })
    .await;
    let voter = others().find(|member| member.id() != new.id()).unwrap();
    assert_eq!(new.time.agreed.lock().last(), Some(&vec![voter.time.told()]));
}
