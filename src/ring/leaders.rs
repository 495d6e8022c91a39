//! Preferred leaders: one replica of each shard, spread over the nodes as evenly as placement allows.
//!
//! Leaders carry most of the work, so they are balanced by themselves and not left to be whoever is
//! first in the preference list. While some node leads too many for its weight and a chain of shards
//! reaches one that leads too few, leadership moves along it; when no chain is left, no placement of
//! leaders is more even (the minimum of a convex cost over a flow has no improving path).

use std::collections::VecDeque;

/// The leader of each shard.
///
/// `replicas` has each shard's nodes in preference order, never empty; `before` its leader so far, which
/// stays where it can. At equal weights no two nodes differ by more than one unless the replicas force it.
pub(super) fn balance(
    replicas: &[Vec<usize>],
    weights: &[u64],
    before: &[Option<usize>],
) -> Vec<usize> {
    let mut loads = vec![0_u64; weights.len()];
    let kept = |shard: usize| before[shard].filter(|leader| replicas[shard].contains(leader));
    for leader in (0..replicas.len()).filter_map(kept) {
        loads[leader] += 1;
    }
    let mut leaders = Vec::with_capacity(replicas.len());
    for (shard, nodes) in replicas.iter().enumerate() {
        let leader = kept(shard).unwrap_or_else(|| {
            let lightest = least_loaded(nodes, &loads, weights);
            loads[lightest] += 1;
            lightest
        });
        leaders.push(leader);
    }
    while improve(replicas, weights, &mut leaders, &mut loads) {}
    leaders
}

fn least_loaded(nodes: &[usize], loads: &[u64], weights: &[u64]) -> usize {
    let mut best = nodes[0];
    for &node in &nodes[1..] {
        if (loads[node] + 1) * weights[best] < (loads[best] + 1) * weights[node] {
            best = node;
        }
    }
    best
}

/// Moves one leadership from a node that has too much to one that has too little, along a chain.
fn improve(
    replicas: &[Vec<usize>],
    weights: &[u64],
    leaders: &mut [usize],
    loads: &mut [u64],
) -> bool {
    let nodes = loads.len();
    // links[a][b]: the first shard led by `a` that `b` could lead.
    let mut links: Vec<Vec<Option<usize>>> = vec![vec![None; nodes]; nodes];
    for (shard, &leader) in leaders.iter().enumerate() {
        for &node in replicas[shard].iter().filter(|&&node| node != leader) {
            links[leader][node].get_or_insert(shard);
        }
    }
    for from in 0..nodes {
        let gains = |to: usize| loads[from] * weights[to] > (loads[to] + 1) * weights[from];
        if let Some(chain) = shortest_chain(&links, from, gains) {
            for &(shard, leader) in &chain {
                leaders[shard] = leader;
            }
            let to = chain.first().expect("a chain ends on another node").1;
            loads[from] -= 1;
            loads[to] += 1;
            return true;
        }
    }
    false
}

/// The shards and their new leaders on a shortest way from `from` to a node that `is_end`, last first.
fn shortest_chain(
    links: &[Vec<Option<usize>>],
    from: usize,
    is_end: impl Fn(usize) -> bool,
) -> Option<Vec<(usize, usize)>> {
    let mut reached: Vec<Option<(usize, usize)>> = vec![None; links.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        if at != from && is_end(at) {
            let (mut chain, mut node) = (Vec::new(), at);
            while node != from {
                let (previous, shard) = reached[node]?;
                chain.push((shard, node));
                node = previous;
            }
            return Some(chain);
        }
        for (next, shard) in links[at].iter().enumerate() {
            if let Some(shard) = *shard
                && next != from
                && reached[next].is_none()
            {
                reached[next] = Some((at, shard));
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(replicas: &[&[usize]], weights: &[u64], before: &[Option<usize>], counts: &[usize]) {
        let replicas: Vec<Vec<usize>> = replicas.iter().map(|nodes| nodes.to_vec()).collect();
        let leaders = balance(&replicas, weights, before);
        for (shard, leader) in leaders.iter().enumerate() {
            assert!(replicas[shard].contains(leader));
        }
        let led = |node| leaders.iter().filter(|&&leader| leader == node).count();
        assert_eq!((0..weights.len()).map(led).collect::<Vec<_>>(), counts);
    }

    #[test]
    fn leaders_are_even_when_replicas_allow() {
        check(&[&[0, 1, 2][..]; 6], &[1, 1, 1], &[None; 6], &[2, 2, 2]);
        check(&[&[0, 1, 2][..]; 6], &[1, 1, 1], &[Some(0); 6], &[2, 2, 2]);
        check(&[&[0, 1, 2][..]; 8], &[2, 1, 1], &[None; 8], &[4, 2, 2]);
    }

    #[test]
    fn leadership_moves_along_chains() {
        // Node 0 leads three; node 2 none, and shares shards only with node 1.
        let replicas: &[&[usize]] = &[&[0, 1], &[0], &[0], &[1, 2]];
        check(replicas, &[1; 3], &[Some(0), Some(0), Some(0), Some(1)], &[2, 1, 1]);
    }

    #[test]
    fn forced_leaders_stay() {
        check(&[&[0], &[0], &[0]], &[1, 1], &[None; 3], &[3, 0]);
    }

    #[test]
    fn balanced_leaders_do_not_move() {
        let replicas = vec![vec![0, 1]; 4];
        let before = [Some(1), Some(0), Some(1), Some(0)];
        assert_eq!(balance(&replicas, &[1, 1], &before), [1, 0, 1, 0]);
        let gone = [Some(7), Some(0), Some(1), Some(0)];
        assert_eq!(balance(&replicas, &[1, 1], &gone), [1, 0, 1, 0]);
    }
}
