//! From argv to what happens: look up, check, hand over. All the `if`s of a command's way are here.

use std::sync::Arc;

use smallvec::SmallVec;

use super::batch::Batch;
use super::state::{ClientState, Door, Verdict};
use super::table::{self, Handler};
use super::web::{is_of_the_web, report_web};
use crate::command::{self, Context, DataCommand, Flag, Invocation};
use crate::ids::ShardId;
use crate::keyspace::{At, KEYS_AHEAD_MAX, Key, Keyspace, ScanCursor};
use crate::node::Node;
use crate::resp::{ErrorReply, Reply, encode, encode_within};
use crate::ring::Topology;
use crate::router::{self, Plan, Route, merge};
use crate::shard::{Lane, REPLY_BYTES_MAX, Shard};
use crate::slot::Slot;
use crate::stdx::clock::MonotonicMicros;
use crate::stdx::rope::Rope;

/// What the commands of one batch have in common.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) node: Arc<Node>,
    pub(super) topology: Arc<Topology>,
    /// What every member of the cluster knows how to apply.
    level: u16,
    /// The monotonic clock when the batch was begun.
    pub(super) clock: MonotonicMicros,
}

impl Scene {
    /// The scene as it is now.
    pub(super) fn of(state: &ClientState) -> Self {
        Self {
            node: Arc::clone(&state.node),
            topology: Arc::clone(&state.topology),
            level: state.node.level(),
            clock: state.node.clock().monotonic(),
        }
    }
}

/// What is known of the only key of a command before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnlyKey<'a> {
    /// Nothing, or it has no key or several.
    Unknown,
    /// Where it lies.
    In(Slot),
    /// All there is.
    Found(Key<'a>),
}

impl OnlyKey<'_> {
    fn slot(&self) -> Option<Slot> {
        match self {
            Self::Unknown => None,
            Self::In(slot) => Some(*slot),
            Self::Found(key) => Some(key.slot()),
        }
    }
}

/// What a client sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// The command's name and arguments.
    pub(super) argv: &'a [&'a [u8]],
    /// What [`look_ahead`] found out.
    pub(super) key: OnlyKey<'a>,
}

impl<'a> From<&'a [&'a [u8]]> for Line<'a> {
    #[inline]
    fn from(argv: &'a [&'a [u8]]) -> Self {
        Self { argv, key: OnlyKey::Unknown }
    }
}

/// A data command on its way. Small, for it is handed on often.
#[derive(Clone, Copy, Debug)]
struct Errand<'a> {
    command: &'static DataCommand,
    line: &'a Line<'a>,
    /// Its only key and where that lies, as soon as the router has said it.
    key: Option<(Slot, &'a [u8])>,
}

impl<'a> Errand<'a> {
    fn argv(&self) -> &'a [&'a [u8]] {
        self.line.argv
    }

    fn spec(&self) -> &'static command::Spec {
        self.command.spec
    }

    /// To be run on `keyspace`: its first key is found out, unless it is known.
    #[inline]
    fn invocation(&self, keyspace: &Keyspace) -> Invocation<'a> {
        let (command, argv) = (self.command, self.argv());
        let key = match (self.line.key, self.key) {
            (OnlyKey::Found(key), _) => key,
            (OnlyKey::Unknown | OnlyKey::In(_), Some((slot, bytes))) => {
                keyspace.key_in(slot, bytes)
            }
            (OnlyKey::Unknown | OnlyKey::In(_), None) => {
                return Invocation::located(command, argv, keyspace);
            }
        };
        Invocation { command, argv, key: Some(key) }
    }
}

/// Takes one command into `batch`: its reply is encoded there, or a mark is left where it will belong.
pub(super) fn dispatch(state: &mut ClientState, batch: &mut Batch, scene: &Scene, line: &Line<'_>) {
    let argv = line.argv;
    batch.count();
    if let Some(command) = command::lookup(argv[0]).filter(|it| it.spec.level <= scene.level) {
        match admit(state, command.spec, argv.len()) {
            Ok(()) => send(state, batch, scene, Errand { command, line, key: None }),
            Err(error) => reply(state, batch, &Reply::Error(error)),
        }
        return;
    }
    let outcome = match table::lookup(argv) {
        Some(found) => found.and_then(|(spec, handler)| {
            authorize(state, spec)?;
            state.client.update(|state| state.last_command = spec.name);
            match handler {
                Handler::Node(run) => run(&state.node, &state.client, argv),
                Handler::ClientState(run) => run(state, argv),
            }
        }),
        None if is_of_the_web(argv[0]) => {
            report_web(state.client.arrival.peer);
            state.verdict = Verdict::Close;
            return;
        }
        None => Err(ErrorReply::unknown_command(argv.iter().copied())),
    };
    if !state.is_silent {
        reply(state, batch, &outcome.unwrap_or_else(Reply::Error));
    }
}

/// Lets the keys of those among `requests` that will be read on this node be fetched together. What it finds out of a key
/// on the way it leaves beside the request.
pub(super) fn look_ahead<'r, 'a: 'r>(
    state: &ClientState,
    batch: &mut Batch,
    scene: &Scene,
    requests: impl Iterator<Item = (&'r [&'a [u8]], &'r mut OnlyKey<'a>)>,
) {
    let mut reads =
        SmallVec::<[(ShardId, Slot, &'a [u8], &mut OnlyKey<'a>); KEYS_AHEAD_MAX]>::new();
    for (argv, key) in requests {
        if let Some(bytes) = only_key_of_read(argv) {
            let slot = Slot::of(bytes);
            *key = OnlyKey::In(slot);
            reads.push((scene.topology.shard_of(slot), slot, bytes, key));
        }
    }
    while let Some(&(shard, ..)) = reads.first() {
        let handle = scene.node.shard(shard);
        if reads.len() > 1 && batch.may_read(handle) {
            let here = reads.iter_mut().filter(|(its, ..)| *its == shard);
            handle.look_ahead(here.map(|(_, slot, bytes, found)| {
                let key = handle.key(*slot, bytes);
                **found = OnlyKey::Found(key);
                (state.db, key)
            }));
        }
        reads.retain(|(its, ..)| *its != shard);
    }
}

fn only_key_of_read<'a>(argv: &[&'a [u8]]) -> Option<&'a [u8]> {
    let command = command::lookup(argv[0]).filter(|command| !command.is_write())?;
    argv.get(command.spec.only_key_position()?).copied()
}

fn reply(state: &ClientState, batch: &mut Batch, reply: &Reply<'_>) {
    encode(reply, state.protocol, &mut batch.ready);
}

fn admit(state: &ClientState, spec: &'static command::Spec, argc: usize) -> Result<(), ErrorReply> {
    if !spec.arity.accepts(argc) {
        return Err(ErrorReply::wrong_arity(spec.name));
    }
    authorize(state, spec)
}

fn authorize(state: &ClientState, spec: &command::Spec) -> Result<(), ErrorReply> {
    if state.must_authenticate() && !spec.has(Flag::NoAuth) {
        return Err(ErrorReply::NOAUTH);
    }
    Ok(())
}

/// Sends a data command to its shards, or answers it from local state.
fn send(state: &mut ClientState, batch: &mut Batch, scene: &Scene, errand: Errand<'_>) {
    let (node, topology) = (&scene.node, &*scene.topology);
    let (command, argv) = (errand.command, errand.argv());
    match router::route(topology, command, argv, errand.line.key.slot()) {
        Route::One(shard, key) => {
            send_one(state, batch, scene, node.shard(shard), Errand { key, ..errand });
        }
        Route::Anywhere => send_one(state, batch, scene, node.shard(ShardId(0)), errand),
        Route::Many if state.door == Door::Cluster => {
            reply(state, batch, &Reply::Error(ErrorReply::CROSSSLOT));
        }
        Route::Many => {
            let plan = router::cut(topology, command.spec, argv);
            send_plan(state, batch, scene, command, plan);
        }
        Route::All => {
            let plan = router::everywhere(topology, command.spec, argv);
            send_plan(state, batch, scene, command, plan);
        }
        Route::Cursor => send_scan(state, batch, topology, argv),
    }
}

/// The honest answer until transactions over shards exist.
fn unsupported_over_shards(name: &str) -> ErrorReply {
    ErrorReply::new(
        "CROSSSLOT",
        format!(
            "'{name}' over keys of several shards is not supported yet; keys that share a {{hash tag}} share a shard"
        ),
    )
}

fn send_one(
    state: &mut ClientState,
    batch: &mut Batch,
    scene: &Scene,
    shard: &Shard,
    errand: Errand<'_>,
) {
    if errand.command.is_write() {
        if let Some(moved) = redirect(state, scene, shard, errand) {
            return reply(state, batch, &Reply::Error(moved));
        }
        if lacks_room(shard, errand.spec(), errand.argv()) {
            return reply(state, batch, &Reply::Error(ErrorReply::OUT_OF_MEMORY));
        }
        return batch.push(shard.id(), Lane::Write, state.protocol, state.db, errand.argv());
    }
    let joins = batch.is_queued(shard.id());
    if !joins && (batch.may_read(shard) || may_read_stale(state, shard)) {
        let (out, weight) = (&mut batch.ready, &mut batch.weight);
        match run_here(state, (out, weight), scene, shard, errand, REPLY_BYTES_MAX) {
            Ok(()) => return,
            Err(NotHere::TooLong) => {
                return reply(state, batch, &Reply::Error(ErrorReply::REPLY_TOO_LARGE));
            }
            // It is run where it keeps nobody from their heartbeats.
            Err(NotHere::NotAtOnce) => {}
        }
    }
    if may_read_stale(state, shard) {
        // That it has to wait is no reason to send a client elsewhere: this replica answers, a little later.
        let lane = if batch.may_read(shard) { Lane::Read } else { Lane::Stale };
        return batch.push(shard.id(), lane, state.protocol, state.db, errand.argv());
    }
    if let Some(moved) = redirect(state, scene, shard, errand) {
        return reply(state, batch, &Reply::Error(moved));
    }
    batch.push(shard.id(), Lane::Read, state.protocol, state.db, errand.argv());
}

/// Whether the command may need more memory than the shard has left. The leader looks again.
fn lacks_room(shard: &Shard, spec: &command::Spec, argv: &[&[u8]]) -> bool {
    let room = shard.room();
    let lacks = room < u64::MAX && command::growth(spec, argv) > room;
    if lacks {
        shard.note_refusal();
    }
    lacks
}

fn may_read_stale(state: &ClientState, shard: &Shard) -> bool {
    state.reads_stale && state.door == Door::Cluster && shard.is_replica()
}

/// Why a read has no reply here.
enum NotHere {
    /// That would be too long.
    TooLong,
    /// It would hold up this thread, or wait for what would: one of the shard's lanes of reads is for it.
    NotAtOnce,
}

/// Runs a read on this node's replica and encodes its reply, of at most `bytes_max`, unless it and what else the
/// batch has run here weigh too much: no batch holds this thread for long.
fn run_here(
    state: &mut ClientState,
    (out, batch_weight): (&mut Rope, &mut usize),
    scene: &Scene,
    shard: &Shard,
    errand: Errand<'_>,
    bytes_max: usize,
) -> Result<(), NotHere> {
    let seed = state.random();
    let read = shard.read(scene.clock, |keyspace, now| {
        let invocation = errand.invocation(keyspace);
        let context = Context::new(At::new(state.db, now), seed);
        let weight = command::weight(&invocation, keyspace, context.at);
        if batch_weight.saturating_add(weight) > shard.read_weight_max() {
            return Err(NotHere::NotAtOnce);
        }
        *batch_weight += weight;
        let reply = command::run_read(&invocation, keyspace, &context);
        encode_within(&reply, state.protocol, bytes_max, out).map_err(|_| NotHere::TooLong)
    });
    read.unwrap_or(Err(NotHere::NotAtOnce))
}

/// On the cluster door, MOVED for a key whose shard is led elsewhere.
fn redirect(
    state: &ClientState,
    scene: &Scene,
    shard: &Shard,
    errand: Errand<'_>,
) -> Option<ErrorReply> {
    if state.door == Door::Plain {
        return None;
    }
    let key = *errand.argv().get(errand.spec().first_key_position()?)?;
    let leader = shard.leader()?;
    if leader == state.node.id() {
        return None;
    }
    // A leader whose doors are not known yet is reached by forwarding.
    let doors = scene.topology.node(leader)?.doors.as_ref()?;
    let slot = errand.key.map_or_else(|| Slot::of(key), |(slot, _)| slot);
    Some(ErrorReply::moved(slot.number(), &doors.host, doors.cluster_port))
}

fn send_plan(
    state: &mut ClientState,
    batch: &mut Batch,
    scene: &Scene,
    command: &'static DataCommand,
    plan: Option<Plan<'_>>,
) {
    let Some(plan) = plan else {
        return reply(state, batch, &Reply::Error(unsupported_over_shards(command.spec.name)));
    };
    let node = &scene.node;
    let all_here = !command.is_write()
        && plan
            .pieces
            .iter()
            .all(|piece| !batch.is_queued(piece.shard) && batch.may_read(node.shard(piece.shard)));
    if all_here {
        let mut replies = Vec::with_capacity(plan.pieces.len());
        match run_pieces_here(state, &mut batch.weight, scene, command, &plan, &mut replies) {
            Ok(()) => {
                let random = state.random();
                return merge(&plan.merge, &replies, state.protocol, random, &mut batch.ready);
            }
            Err(NotHere::TooLong) => {
                return reply(state, batch, &Reply::Error(ErrorReply::REPLY_TOO_LARGE));
            }
            Err(NotHere::NotAtOnce) => {}
        }
    }
    let lacks_room =
        |piece: &router::Piece<'_>| lacks_room(node.shard(piece.shard), command.spec, &piece.argv);
    if plan.pieces.iter().any(lacks_room) {
        return reply(state, batch, &Reply::Error(ErrorReply::OUT_OF_MEMORY));
    }
    let lane = if command.is_write() { Lane::Write } else { Lane::Read };
    let mut shards = SmallVec::new();
    for piece in &plan.pieces {
        batch.queue(piece.shard, lane, state.protocol, state.db, &piece.argv);
        shards.push(piece.shard);
    }
    batch.push_merged(plan.merge, shards, state.protocol);
}

/// Runs all pieces of a read on this node's replicas.
fn run_pieces_here(
    state: &mut ClientState,
    batch_weight: &mut usize,
    scene: &Scene,
    command: &'static DataCommand,
    plan: &Plan<'_>,
    replies: &mut Vec<Rope>,
) -> Result<(), NotHere> {
    let mut bytes_left = REPLY_BYTES_MAX;
    for piece in &plan.pieces {
        let mut out = Rope::new();
        let shard = scene.node.shard(piece.shard);
        let line = Line::from(&piece.argv[..]);
        let piece = Errand { command, line: &line, key: None };
        run_here(state, (&mut out, batch_weight), scene, shard, piece, bytes_left)?;
        bytes_left = bytes_left.saturating_sub(out.len());
        replies.push(out);
    }
    Ok(())
}

/// SCAN goes to the shard its cursor lies in; finished there, it goes on with the next shard's first slot.
fn send_scan(state: &mut ClientState, batch: &mut Batch, topology: &Topology, argv: &[&[u8]]) {
    let number = argv
        .get(1)
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.parse::<u64>().ok());
    // A malformed cursor is the command's to refuse.
    let slot = number.map_or(Slot::default(), |number| ScanCursor(number).slot());
    let shard = topology.shard_of(slot);
    let next =
        Slot::new(topology.slots_of(shard).end() + 1).map(|slot| ScanCursor::at_slot(slot).0);
    batch.push_scan(shard, next, state.protocol, state.db, argv);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Bench;
    use crate::stdx::rope::LENT_BYTES_MIN;

    fn line<'a>(argv: &'a [&'a [u8]]) -> Line<'a> {
        Line::from(argv)
    }

    /// A replica that does not know a command in its log stops.
    #[tokio::test(flavor = "current_thread")]
    async fn a_command_that_not_every_member_knows_is_not_taken() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        for (level, expected) in [(0, "-ERR unknown command 'SET'"), (1, "+OK")] {
            let mut batch = Batch::default();
            let scene = Scene { level, ..Scene::of(&bench.state) };
            dispatch(&mut bench.state, &mut batch, &scene, &line(&[b"SET", b"a", b"b"]));
            let mut out = Rope::new();
            batch.finish(&mut bench.state, &mut out).await;
            assert!(out.starts_with(expected.as_bytes()), "{out:?}");
        }
    }

    /// Those that could not be run at once were sent to the leader, or their clients were.
    #[tokio::test(flavor = "current_thread")]
    async fn stale_reads_stay_here_also_when_they_have_to_wait() {
        let mut bench = Bench::start(&[], Door::Cluster).await;
        bench.check("SET a v => +OK").await;
        bench.state.reads_stale = true;
        let scene = Scene::of(&bench.state);
        let shard = scene.topology.shard_of(Slot::of(b"a"));
        let mut batch = Batch::default();
        batch.deny_reads(shard);
        dispatch(&mut bench.state, &mut batch, &scene, &line(&[b"GET", b"a"]));
        assert_eq!(batch.lane(shard), None, "it is run at once");
        batch.weight = usize::MAX;
        dispatch(&mut bench.state, &mut batch, &scene, &line(&[b"GET", b"a"]));
        assert_eq!(batch.lane(shard), Some(Lane::Stale));
        batch.weight = 0;
        dispatch(&mut bench.state, &mut batch, &scene, &line(&[b"GET", b"a"]));
        assert_eq!(batch.lane(shard), Some(Lane::Stale), "in order");
        bench.state.reads_stale = false;
        dispatch(&mut bench.state, &mut batch, &scene, &line(&[b"GET", b"a"]));
        assert_eq!(batch.lane(shard), Some(Lane::Read), "what is not to be stale is not");
        let mut out = Rope::new();
        batch.finish(&mut bench.state, &mut out).await;
        assert_eq!(out.to_vec(), b"$1\r\nv\r\n".repeat(4));
        // The next one is a batch of its own.
        bench.state.reads_stale = true;
        batch.deny_reads(shard);
        batch.weight = usize::MAX;
        dispatch(&mut bench.state, &mut batch, &scene, &line(&[b"GET", b"a"]));
        assert_eq!(batch.lane(shard), Some(Lane::Stale));
        let mut out = Rope::new();
        batch.finish(&mut bench.state, &mut out).await;
        assert_eq!(out.to_vec(), b"$1\r\nv\r\n");
    }

    /// Where the long runs of a rope are.
    fn lent(rope: &Rope) -> Vec<*const u8> {
        rope.runs().filter(|run| run.len() >= LENT_BYTES_MIN).map(<[u8]>::as_ptr).collect()
    }

    /// Each was a copy of its own, made with the shard's lock by a thread that beats hearts.
    #[tokio::test(flavor = "current_thread")]
    async fn a_long_value_goes_from_where_it_is_stored_to_the_socket() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        let scene = Scene::of(&bench.state);
        let value = vec![b'x'; 2 * LENT_BYTES_MIN];
        let shard_of = |key: &[u8]| scene.topology.shard_of(Slot::of(key));
        let (here, there) = (&b"k0"[..], (1..).map(|number| format!("k{number}")));
        let there = there.take(50).find(|key| shard_of(key.as_bytes()) != shard_of(here));
        let there = there.expect("a cluster has several shards").into_bytes();
        let there = &there[..];
        let mut batch = Batch::default();
        let mut places = Vec::new();
        for key in [here, there] {
            let mut out = Rope::new();
            dispatch(&mut bench.state, &mut batch, &scene, &line(&[b"SET", key, &value]));
            batch.finish(&mut bench.state, &mut out).await;
            assert_eq!(out.to_vec(), b"+OK\r\n");
            dispatch(&mut bench.state, &mut batch, &scene, &line(&[b"GET", key]));
            places.extend(lent(&batch.ready));
            batch.finish(&mut bench.state, &mut out).await;
        }
        let [first, second] = places[..] else { panic!("{places:?}") };
        assert_ne!(first, second);
        let asked: [(&[&[u8]], &[*const u8]); 6] = [
            (&[b"GET", here], &[first]),
            (&[b"GETRANGE", here, b"1", b"-1"], &[first.wrapping_add(1)]),
            (&[b"MGET", here, b"k", here], &[first, first]),
            (&[b"MGET", there, here, b"k", there], &[second, first, second]),
            (&[b"GETEX", there], &[second]),
            (&[b"GETSET", here, b"new"], &[first]),
        ];
        // At once, and by way of the shards, where also what is a read may follow a write.
        for (argv, expected) in asked {
            for is_denied in [false, true] {
                if is_denied {
                    batch.deny_reads(shard_of(here));
                    batch.deny_reads(shard_of(there));
                    if argv[0] == b"GETSET" {
                        continue;
                    }
                }
                let mut out = Rope::new();
                dispatch(&mut bench.state, &mut batch, &scene, &line(&[b"PING"]));
                dispatch(&mut bench.state, &mut batch, &scene, &line(argv));
                dispatch(&mut bench.state, &mut batch, &scene, &line(&[b"PING"]));
                batch.finish(&mut bench.state, &mut out).await;
                assert_eq!(lent(&out), expected, "{} {is_denied}", argv[0].escape_ascii());
                assert!(out.starts_with(b"+PONG\r\n") && out.to_vec().ends_with(b"\r\n+PONG\r\n"));
            }
        }
    }

    /// It was found out once more by the router and by the keyspace.
    #[tokio::test(flavor = "current_thread")]
    async fn a_key_that_is_fetched_ahead_is_known_when_it_is_read() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        let scene = Scene::of(&bench.state);
        // So many that it is worth it.
        let words: Vec<Vec<u8>> = (0..9000).map(|it| format!("{{a}}{it}").into_bytes()).collect();
        let pairs = words.iter().flat_map(|word| [&word[..], b"v"]);
        let argv: Vec<&[u8]> = [&b"MSET"[..]].into_iter().chain(pairs).collect();
        let (mut batch, mut out) = (Batch::default(), Rope::new());
        dispatch(&mut bench.state, &mut batch, &scene, &line(&argv));
        batch.finish(&mut bench.state, &mut out).await;
        assert_eq!(out.to_vec(), b"+OK\r\n");

        let asked: [&[&[u8]]; 4] =
            [&[b"GET", b"{a}1"], &[b"SET", b"{a}1", b"w"], &[b"MGET", b"{a}1"], &[b"TTL", b"{a}2"]];
        let slot = Slot::of(b"{a}");
        let shard = scene.node.shard(scene.topology.shard_of(slot));
        let [get, ttl] = [b"{a}1", b"{a}2"].map(|bytes| OnlyKey::Found(shard.key(slot, bytes)));
        let mut keys = [OnlyKey::Unknown; 4];
        let requests = asked.into_iter().zip(&mut keys);
        look_ahead(&bench.state, &mut batch, &scene, requests);
        assert_eq!(keys, [get, OnlyKey::Unknown, OnlyKey::Unknown, ttl]);
        let known = Line { argv: asked[0], key: get };
        dispatch(&mut bench.state, &mut batch, &scene, &known);
        assert_eq!(batch.ready.to_vec(), b"$1\r\nv\r\n");

        batch.deny_reads(shard.id());
        let requests = asked.into_iter().zip(&mut keys);
        look_ahead(&bench.state, &mut batch, &scene, requests);
        let elsewhere = OnlyKey::In(slot);
        assert_eq!(keys, [elsewhere, OnlyKey::Unknown, OnlyKey::Unknown, elsewhere]);
    }

    /// Faults, row D3: a page's POST whose body is commands.
    #[tokio::test(flavor = "current_thread")]
    async fn a_word_of_http_ends_the_connection_unanswered() {
        for line in ["POST / HTTP/1.1", "Host: x", "host: x"] {
            let mut bench = Bench::start(&[], Door::Plain).await;
            assert_eq!(bench.run(line).await, "", "{line}");
            assert_eq!(bench.state.verdict, Verdict::Close);
        }
    }
}
