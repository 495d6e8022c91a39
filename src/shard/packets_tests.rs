//! The golden script of packets: a front end that numbers them, and a leader that has each applied once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::inbox::{Awaited, Inbox};
use super::outbox::{Attempt, Encoded, Lane, Outbox, Refused, Submission, Unanswered};
use super::proposal::{Packet, PacketId};
use super::reply::ReplyCell;
use crate::ids::{Incarnation, NodeId, Session};
use crate::stdx::golden::{check, number};

/// A front end and a leader, and what is between them.
struct Play {
    start: Instant,
    now: Instant,
    outbox: Outbox,
    inbox: Inbox<String>,
    /// Who waits, by name.
    clients: BTreeMap<String, Arc<ReplyCell>>,
    /// The tries that left, and their packets, by the packet's number.
    sent: BTreeMap<u64, Vec<(Attempt, Packet)>>,
}

impl Play {
    fn begin() -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            outbox: Outbox::new(),
            inbox: Inbox::default(),
            clients: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    fn id(sequence: u64) -> PacketId {
        let session = Session { number: 1, random: 1 };
        PacketId { incarnation: Incarnation(1), session, sequence }
    }

    fn names<'a>(&self, cells: impl Iterator<Item = &'a Arc<ReplyCell>>) -> String {
        let name = |cell: &Arc<ReplyCell>| {
            let named = self.clients.iter().find(|(_, known)| Arc::ptr_eq(known, cell));
            named.expect("a client of this play").0.clone()
        };
        let names: Vec<String> = cells.map(name).collect();
        if names.is_empty() { "nobody".to_owned() } else { names.join(" ") }
    }

    fn told(&self, unanswered: &Unanswered) -> String {
        let Unanswered { untouched, unknown, unread } = unanswered;
        let all = [("untouched", untouched), ("outcome unknown", unknown), ("not read", unread)];
        let some = all.iter().filter(|(_, cells)| !cells.is_empty());
        let lines: Vec<String> =
            some.map(|(what, cells)| format!("{what}: {}", self.names(cells.iter()))).collect();
        if lines.is_empty() { "nobody".to_owned() } else { lines.join("\n") }
    }

    fn submit(&mut self, lane: Lane, client: &str, bytes: &str) -> String {
        let cell = ReplyCell::new();
        self.clients.insert(client.to_owned(), Arc::clone(&cell));
        let commands = vec![0; number(bytes)];
        let commands = Encoded::Copied(&commands);
        let it = Submission { commands, count: 1, grows: false, cell: &cell };
        if self.outbox.submit(lane, &it, self.now) { String::new() } else { "refused".to_owned() }
    }

    fn depart(&mut self) -> String {
        let Some(leaving) = self.outbox.depart(0) else { return "nothing".to_owned() };
        let sequence = leaving.attempt.sequence;
        let packet = leaving.framed.packet(Self::id(sequence), leaving.floor);
        self.outbox.keep(sequence, leaving.framed);
        let tries = self.sent.entry(sequence).or_default();
        let of = format!("{} commands, {} bytes", packet.commands, packet.body.len());
        tries.push((leaving.attempt, packet));
        format!("packet {sequence}, try {}, floor {}: {of}", tries.len(), leaving.floor)
    }

    fn attempt(&self, sequence: &str, tried: &str) -> &(Attempt, Packet) {
        &self.sent[&number(sequence)][number::<usize>(tried) - 1]
    }

    fn arrive(&mut self, sequence: &str, tried: &str) -> String {
        let packet = self.attempt(sequence, tried).1.clone();
        match self.inbox.receive(packet, format!("try {tried}"), self.now) {
            Ok(()) => format!("{} bytes wait", self.inbox.bytes()),
            Err(_) => "no room".to_owned(),
        }
    }

    /// What of the packets that wait gets into an entry.
    fn propose(&mut self) -> String {
        let taken = self.inbox.take(usize::MAX, self.now);
        let mut lines: Vec<String> =
            taken.stale.iter().map(|caller| format!("{caller} came too long ago")).collect();
        for (packet, caller) in taken.packets {
            let sequence = packet.id.sequence;
            lines.push(match self.inbox.await_apply(packet.id, caller.clone()) {
                Awaited::Anew(proposal) => format!("packet {sequence} in proposal {proposal}"),
                Awaited::Already(before) => {
                    format!("packet {sequence} is proposed; {caller} is answered and not {before}")
                }
            });
        }
        lines.join("\n")
    }

    fn answer(&mut self, words: &[&str]) -> String {
        match *words {
            ["begin"] => *self = Self::begin(),
            ["at", ms] => self.now = self.start + Duration::from_millis(number(ms)),
            ["write", client, bytes] => return self.submit(Lane::Write, client, bytes),
            ["read", client, bytes] => return self.submit(Lane::Read, client, bytes),
            ["follow", node] => {
                let is_news = self.outbox.follow(NodeId::of_name(node));
                return if is_news { "news" } else { "no news" }.to_owned();
            }
            ["depart"] => return self.depart(),
            ["depart", "reads"] => {
                let Some((framed, waiters)) = self.outbox.depart_reads() else {
                    return "nothing".to_owned();
                };
                let names = self.names(waiters.iter().filter_map(|it| it.cell.as_ref()));
                return format!("{} commands of {names}", framed.commands);
            }
            ["lost", packet, tried] => {
                let attempt = self.attempt(packet, tried).0;
                self.outbox.come_back(attempt, true);
            }
            ["not", "sent", packet, tried] => {
                let attempt = self.attempt(packet, tried).0;
                self.outbox.come_back(attempt, false);
            }
            ["refused", packet, tried] => {
                let attempt = self.attempt(packet, tried).0;
                return match self.outbox.refuse(attempt) {
                    Refused::GivenUp(unanswered) => self.told(&unanswered),
                    Refused::Again => "to be sent again".to_owned(),
                    Refused::Gone => "nobody waits".to_owned(),
                };
            }
            ["stale", packet] => {
                let unanswered = self.outbox.give_up(number(packet));
                return self.told(&unanswered);
            }
            ["answered", packet, submissions, bytes] => {
                let (from, to) = submissions.split_once("..").expect("a range");
                let range = number(from)..number(to);
                let told = self.outbox.complete(number(packet), range, number(bytes), self.now);
                let cells = told.iter().flat_map(|it| it.waiters.iter());
                return self.names(cells.filter_map(|it| it.cell.as_ref()));
            }
            ["expire"] => {
                let unanswered = self.outbox.expire(self.now);
                return self.told(&unanswered);
            }
            ["confirm"] => {
                let is_due = self.outbox.confirm(self.now);
                return if is_due { "something to say" } else { "nothing to say" }.to_owned();
            }
            ["arrive", packet, tried] => return self.arrive(packet, tried),
            ["propose"] => return self.propose(),
            ["applied", packet] => {
                let caller = self.inbox.applied(Self::id(number(packet)));
                return caller.unwrap_or_else(|| "nobody".to_owned());
            }
            ["failed", packet, proposal] => {
                let caller = self.inbox.forget(Self::id(number(packet)), number(proposal));
                return caller.unwrap_or_else(|| "nobody".to_owned());
            }
            _ => panic!("no such command: {words:?}"),
        }
        String::new()
    }
}

#[test]
fn packets_are_numbered_and_answered_as_the_script_says() {
    let mut play = Play::begin();
    check("shard/packets.txt", |words| play.answer(words));
}
