//! What each node should hold: its fair share, its cap and its quota of replicas.
//!
//! Zones come first. With `u` the smallest number such that the zones, taking at most `u` replicas of a
//! shard each (and no more than they have nodes), hold all R, every shard has in every zone either
//! `min(nodes, u - 1)` or `min(nodes, u)` replicas: as even as the zones allow, and all zones differ
//! when there are R of them.
//!
//! - **share**: proportional to weight, at most one replica of each shard (S), and each zone's sum kept
//!   within what its spread allows. Without zones and at equal weights: S·R/N.
//! - **cap**: ceil((1+ε)·share), at most S: the bound that is promised.
//! - **quota**: whole replicas, summing to S·R, that the placement fills exactly. Handed out by Adams'
//!   method (next to whom has least for its weight), which never exceeds ceil(share), hence never the
//!   cap; and when a node joins no other node's quota rises, so only the newcomer's quota has to move.
//!
//! Source: Mirrokni, Thorup, Zadimoghaddam 2016 (caps); Balinski and Young 1982 (divisor methods).

/// A fair share in replicas, as an exact fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    numerator: u64,
    denominator: u64,
}

impl Share {
    /// The share in hundredths of a replica, rounded to the nearest.
    pub const fn hundredths(self) -> u64 {
        (self.numerator * 100 + self.denominator / 2) / self.denominator
    }

    /// `(100 + percent)` percent of the share, rounded up to whole replicas.
    pub fn ceil_with_slack(self, percent: u32) -> u64 {
        (self.numerator * (100 + u64::from(percent))).div_ceil(self.denominator * 100)
    }
}

/// A node as this arithmetic sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Its weight, at least 1.
    pub(super) weight: u64,
    /// The number of its zone, 0..zones.
    pub(super) zone: usize,
}

/// How many replicas of one shard a zone holds: `least` or `most`, which differ by at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) least: usize,
    pub(super) most: usize,
}

/// The members, the shards and their replicas: everything shares are computed from.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    members: Vec<Member>,
    shards: u64,
    replicas: usize,
    spreads: Vec<Spread>,
}

impl Demand {
    /// The demand of `shards` shards with `replicas` replicas, or one per member when members are fewer.
    pub(super) fn new(members: Vec<Member>, shards: u32, replicas: u8) -> Self {
        let replicas = members.len().min(usize::from(replicas));
        let zones = members.iter().map(|member| member.zone + 1).max().unwrap_or(0);
        let mut sizes = vec![0; zones];
        for member in &members {
            sizes[member.zone] += 1;
        }
        let spreads = spreads(&sizes, replicas);
        Self { members, shards: u64::from(shards), replicas, spreads }
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Replicas of every shard: the replication factor, or the number of nodes when that is less.
    pub(super) fn replicas(&self) -> usize {
        self.replicas
    }

    pub(super) fn spreads(&self) -> &[Spread] {
        &self.spreads
    }

    /// Per shard, how many zones hold their `most` rather than their `least`.
    pub(super) fn extras(&self) -> usize {
        self.replicas - self.spreads.iter().map(|spread| spread.least).sum::<usize>()
    }

    /// Each member's fair share.
    pub(super) fn shares(&self) -> Vec<Share> {
        let frozen = self.frozen_zones();
        let mut shares = vec![Share { numerator: 0, denominator: 1 }; self.members.len()];
        let free: Vec<usize> = self.members_where(|zone| frozen[zone].is_none());
        let frozen_total: u64 = frozen.iter().flatten().sum();
        self.level(&free, self.total() - frozen_total, &mut shares);
        for (zone, total) in frozen.iter().enumerate() {
            if let Some(total) = *total {
                self.level(&self.members_where(|other| other == zone), total, &mut shares);
            }
        }
        shares
    }

    /// The most replicas each member may hold with `slack_percent` of slack.
    pub(super) fn caps(&self, slack_percent: u32) -> Vec<u64> {
        let cap = |share: Share| share.ceil_with_slack(slack_percent).min(self.shards);
        self.shares().into_iter().map(cap).collect()
    }

    /// The replicas each member holds: whole numbers that sum to what all shards need.
    pub(super) fn quotas(&self) -> Vec<u64> {
        let mut quotas = vec![0; self.members.len()];
        let mut extras_left = vec![0; self.spreads.len()];
        for (zone, spread) in self.spreads.iter().enumerate() {
            let mut open = vec![0; self.spreads.len()];
            open[zone] = self.shards * spread.least as u64;
            while self.hand_out_one(&mut quotas, &mut open) {}
            extras_left[zone] = self.shards * (spread.most - spread.least) as u64;
        }
        for _ in 0..self.shards * self.extras() as u64 {
            self.hand_out_one(&mut quotas, &mut extras_left);
        }
        quotas
    }

    /// Gives one replica to the member that has least for its weight, in a zone that is still open.
    fn hand_out_one(&self, quotas: &mut [u64], zone_open: &mut [u64]) -> bool {
        let is_open = |&i: &usize| quotas[i] < self.shards && zone_open[self.members[i].zone] > 0;
        let next = (0..quotas.len()).filter(is_open).min_by(|&a, &b| {
            let weight = |i: usize| self.members[i].weight;
            (quotas[a] * weight(b)).cmp(&(quotas[b] * weight(a)))
        });
        if let Some(member) = next {
            quotas[member] += 1;
            zone_open[self.members[member].zone] -= 1;
        }
        next.is_some()
    }

    /// The zones whose sum is decided by the spread and not by weight, with that sum.
    ///
    /// The side on which the zones miss their range by more is frozen first, round after round: the
    /// way flexible boxes are laid out, which ends with every range kept and the rest proportional.
    fn frozen_zones(&self) -> Vec<Option<u64>> {
        let mut frozen: Vec<Option<u64>> = vec![None; self.spreads.len()];
        let mut shares = vec![Share { numerator: 0, denominator: 1 }; self.members.len()];
        loop {
            let free = self.members_where(|zone| frozen[zone].is_none());
            let rest = self.total() - frozen.iter().flatten().sum::<u64>();
            self.level(&free, rest, &mut shares);
            let (mut too_little, mut too_much) = (Vec::new(), Vec::new());
            let mut balance: i128 = 0;
            for zone in (0..frozen.len()).filter(|&zone| frozen[zone].is_none()) {
                let in_zone: Vec<Share> = free
                    .iter()
                    .filter(|&&i| self.members[i].zone == zone)
                    .map(|&i| shares[i])
                    .collect();
                let denominator = in_zone[0].denominator;
                let sum: u64 = in_zone.iter().map(|share| share.numerator).sum();
                let least = self.shards * self.spreads[zone].least as u64;
                let most = self.shards * self.spreads[zone].most as u64;
                if sum < least * denominator {
                    too_little.push((zone, least));
                    balance += i128::from(least * denominator - sum);
                } else if sum > most * denominator {
                    too_much.push((zone, most));
                    balance -= i128::from(sum - most * denominator);
                }
            }
            let freeze = if balance >= 0 { &too_little } else { &too_much };
            for &(zone, total) in freeze {
                frozen[zone] = Some(total);
            }
            if freeze.is_empty() {
                return frozen;
            }
        }
    }

    /// Splits `total` over `members` by weight, none above one replica of each shard. All shares get
    /// the same denominator.
    fn level(&self, members: &[usize], total: u64, shares: &mut [Share]) {
        let (mut rest, mut full) = (total, vec![false; members.len()]);
        let mut weight: u64 = members.iter().map(|&i| self.members[i].weight).sum();
        while let Some(at) = (0..members.len()).find(|&at| {
            !full[at] && rest * self.members[members[at]].weight >= self.shards * weight
        }) {
            full[at] = true;
            rest -= self.shards;
            weight -= self.members[members[at]].weight;
        }
        let denominator = weight.max(1);
        for (at, &member) in members.iter().enumerate() {
            let proportional = rest * self.members[member].weight;
            let numerator = if full[at] { self.shards * denominator } else { proportional };
            shares[member] = Share { numerator, denominator };
        }
    }

    fn members_where(&self, keep: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.members.len()).filter(|&i| keep(self.members[i].zone)).collect()
    }

    fn total(&self) -> u64 {
        self.shards * self.replicas as u64
    }
}

/// How `replicas` replicas of a shard spread over zones of `sizes` nodes; `sizes` sum to at least that.
fn spreads(sizes: &[usize], replicas: usize) -> Vec<Spread> {
    let held = |most: usize| sizes.iter().map(|&size| size.min(most)).sum::<usize>();
    let most = (1..=replicas).find(|&most| held(most) >= replicas).unwrap_or(1);
    sizes.iter().map(|&size| Spread { least: size.min(most - 1), most: size.min(most) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(members: &[(u64, usize)], shards: u32, replicas: u8) -> Demand {
        let member = |&(weight, zone)| Member { weight, zone };
        Demand::new(members.iter().map(member).collect(), shards, replicas)
    }

    #[track_caller]
    fn check(
        members: &[(u64, usize)],
        shards: u32,
        replicas: u8,
        hundredths: &[u64],
        caps: &[u64],
    ) {
        let demand = demand(members, shards, replicas);
        let found: Vec<u64> = demand.shares().iter().map(|share| share.hundredths()).collect();
        assert_eq!(found, hundredths);
        assert_eq!(demand.caps(25), caps);
        let quotas = demand.quotas();
        assert_eq!(quotas.iter().sum::<u64>(), u64::from(shards) * demand.replicas() as u64);
        for (quota, share) in quotas.iter().zip(demand.shares()) {
            assert!(*quota <= share.ceil_with_slack(0), "{quotas:?}");
        }
    }

    #[test]
    fn shares_follow_weights_until_a_node_holds_every_shard() {
        check(&[(1, 0), (1, 0), (1, 0), (1, 0)], 16, 3, &[1200; 4], &[15; 4]);
        check(&[(1, 0), (1, 0), (1, 0)], 16, 3, &[1600; 3], &[16; 3]);
        check(&[(1, 0), (1, 0)], 16, 3, &[1600; 2], &[16; 2]);
        check(&[(2, 0), (1, 0), (1, 0)], 16, 1, &[800, 400, 400], &[10, 5, 5]);
        check(&[(100, 0), (1, 0), (1, 0)], 16, 2, &[1600, 800, 800], &[16, 10, 10]);
        check(&[(1, 0); 21], 16, 1, &[76; 21], &[1; 21]);
    }

    #[test]
    fn zones_come_before_weights() {
        // One node alone in the second zone: every shard needs it.
        check(&[(1, 0), (1, 0), (1, 0), (1, 1)], 12, 2, &[400, 400, 400, 1200], &[5, 5, 5, 12]);
        // One more zone than replicas: the big zone may not take two of one shard.
        check(
            &[(1, 0), (1, 0), (1, 0), (1, 1), (1, 2)],
            12,
            2,
            &[400, 400, 400, 600, 600],
            &[5, 5, 5, 8, 8],
        );
        // Zones of one size: as without zones.
        check(&[(1, 0), (1, 0), (1, 1), (1, 1)], 10, 3, &[750; 4], &[10; 4]);
    }

    #[test]
    fn spreads_are_as_even_as_zones_allow() {
        let check = |sizes: &[usize], replicas, expected: &[(usize, usize)]| {
            let spreads: Vec<_> =
                spreads(sizes, replicas).iter().map(|s| (s.least, s.most)).collect();
            assert_eq!(spreads, expected, "{sizes:?} {replicas}");
        };
        check(&[1, 1, 1], 3, &[(0, 1), (0, 1), (0, 1)]);
        check(&[2, 2, 2, 2], 3, &[(0, 1); 4]);
        check(&[3, 3], 3, &[(1, 2), (1, 2)]);
        check(&[5, 1], 3, &[(1, 2), (1, 1)]);
        check(&[5, 1], 5, &[(3, 4), (1, 1)]);
        check(&[], 0, &[]);
    }

    #[test]
    fn joining_raises_nobody_elses_quota() {
        let weights = [3, 1, 2, 5, 1, 1, 8, 2];
        for count in 1..weights.len() {
            let quotas = |count: usize| {
                let members: Vec<_> = weights[..count].iter().map(|&weight| (weight, 0)).collect();
                demand(&members, 100, 1).quotas()
            };
            let (before, after) = (quotas(count), quotas(count + 1));
            assert!(before.iter().zip(&after).all(|(b, a)| b >= a), "{before:?} {after:?}");
        }
    }
}
