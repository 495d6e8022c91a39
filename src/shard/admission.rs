//! What may get into a shard's log, and out of it: only what every replica of this version can apply.

use std::ops::RangeInclusive;

use bytes::Bytes;
use smallvec::SmallVec;

use super::proposal::{
    self, Commands, MalformedProposal, Packet, Proposal, Stamp, UnknownProposal,
};
use crate::command::{self, DataCommand};
use crate::raft::Origin;
use crate::slot::Slot;

/// Why another node's packet must not get into the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Inadmissible {
    /// Applied, it would stop every replica of this version.
    #[error(transparent)]
    Unknown(#[from] UnknownProposal),
    /// Applied, a key in the wrong shard would be lost to every reader, and the keyspace refuses that by a panic.
    #[error("a key belongs to another shard")]
    ForeignKey,
}

/// Bytes that the commands of a packet may add to what is stored; of what is malformed, up to there.
pub(super) fn growth(body: &[u8]) -> u64 {
    let commands = Commands::new(body).map_while(Result::ok);
    let found = commands.filter_map(|it| Some((command::lookup(it.argv[0])?, it)));
    found.map(|(found, it)| command::growth(found.spec, &it.argv)).fold(0, u64::saturating_add)
}

/// Looks at another node's packet at the door, in one walk: the log only gets what every replica of this version can apply
/// to keys in `slots`. What passes here passes [`Packet::check`] too.
pub(super) fn admit(packet: &Packet, slots: &RangeInclusive<u16>) -> Result<(), Inadmissible> {
    let malformed = |what| Inadmissible::Unknown(MalformedProposal(what).into());
    let mut count = 0_u32;
    let mut commands = Commands::new(&packet.body);
    let mut argv = SmallVec::<[&[u8]; 8]>::new();
    while let Some(head) = commands.next_into(&mut argv) {
        let head = head.map_err(UnknownProposal::from)?;
        if count == 0 && !head.begins {
            return Err(malformed("submission"));
        }
        let found = command::lookup(argv[0]).ok_or_else(|| UnknownProposal::command(argv[0]))?;
        if !stays_within(found, &argv, slots) {
            return Err(Inadmissible::ForeignKey);
        }
        argv.clear();
        count += 1;
    }
    if count == packet.commands { Ok(()) } else { Err(malformed("commands")) }
}

/// Whether every key that the command names lies in `slots`.
fn stays_within(found: &DataCommand, argv: &[&[u8]], slots: &RangeInclusive<u16>) -> bool {
    let fits = |key: &[u8]| slots.contains(&Slot::of(key).number());
    match found.spec.only_key_position() {
        // The router sends it anywhere, for its error.
        None if found.spec.is_cut_short(argv) => true,
        Some(position) => argv.get(position).is_none_or(|key| fits(key)),
        None => found
            .spec
            .key_positions(argv)
            .map_or(true, |positions| positions.iter().all(|&position| fits(argv[position]))),
    }
}

/// The proposal in `bytes`, if this program knows how to apply all of it. What this process proposed was looked through
/// before: clients' commands were looked up, and other nodes' packets were admitted.
pub(super) fn decode_known(
    origin: Origin,
    bytes: &Bytes,
) -> Result<(Stamp, Proposal), UnknownProposal> {
    let (stamp, proposal) = proposal::decode(bytes.clone())?;
    if let (Proposal::Packets(packets), Origin::Elsewhere) = (&proposal, origin) {
        for packet in packets {
            packet.check(|name| command::lookup(name).is_some())?;
        }
    }
    Ok((stamp, proposal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Keyspace;
    use crate::shard::proposal::testing::{body, packet_of};
    use crate::shard::window::Window;
    use crate::stdx::hash_key::HashKey;

    fn all_within(body: &[u8], slots: &RangeInclusive<u16>) -> bool {
        let (mut commands, mut window) = (Commands::new(body), Window::default());
        let keyspace = Keyspace::new(slots.clone(), HashKey::new([1, 2]));
        while window.take(&mut commands, &keyspace).is_some() {}
        let mut invocations = window.iter().map(|command| command.invocation);
        invocations.all(|it| stays_within(it.command, it.argv, slots))
    }

    #[test]
    fn a_key_of_another_shard_is_seen_wherever_it_stands() {
        let slot = Slot::of(b"{a}").number();
        let (own, other) = (slot..=slot, slot + 1..=slot + 1);
        let both: Vec<u8> = [body(&[b"GET", b"{a}1"]), body(&[b"SET", b"{a}2", b"v"])].concat();
        assert!(all_within(&both, &own));
        assert!(!all_within(&both, &other));
        assert!(all_within(&body(&[b"MSET", b"{a}1", b"v", b"{a}2", b"v"]), &own));
        assert!(!all_within(&body(&[b"MSET", b"{a}1", b"v", b"b", b"v"]), &own));
        assert!(!all_within(&[both, body(&[b"INCR", b"b"])].concat(), &own));
    }

    #[test]
    fn what_names_no_key_stays_within_any_shard() {
        let cut_short: &[&[u8]] = &[b"MSET", b"b", b"v", b"c"];
        for argv in [&[&b"FLUSHALL"[..]][..], &[b"GET"], cut_short] {
            assert!(all_within(&body(argv), &(0..=0)), "{argv:?}");
        }
    }

    #[test]
    fn what_would_stop_the_replicas_is_refused_at_the_door() {
        let slots = 0..=Slot::COUNT - 1;
        let get = body(&[b"GET", b"b"]);
        assert_eq!(admit(&packet_of(get.clone(), 1), &slots), Ok(()));
        let refused =
            |body: Vec<u8>, commands| admit(&packet_of(body, commands), &slots).unwrap_err();
        let nosuch = UnknownProposal::Command("NO\\xffSUCH".to_owned());
        assert_eq!(refused(body(&[b"NO\xffSUCH", b"b"]), 1), Inadmissible::Unknown(nosuch));
        assert!(matches!(refused(get.clone(), 2), Inadmissible::Unknown(_)), "too few commands");
        assert!(matches!(refused(get[..3].to_vec(), 1), Inadmissible::Unknown(_)), "cut short");
        let other = admit(&packet_of(get, 1), &(0..=0));
        assert_eq!(other, Err(Inadmissible::ForeignKey));
    }
}
