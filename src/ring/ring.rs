//! The ring: every node's virtual nodes as sorted tokens, and the clockwise walk over distinct nodes.
//!
//! Tokens are kept sorted per node rather than merged: the walk then costs one binary search per node,
//! however many virtual nodes a heavy node has, and gives exactly the order of walking the merged ring.
//!
//! Source: Dynamo §4.2 (virtual nodes), §4.3 (preference list).

use crate::ring::token::Token;

/// The tokens of a set of nodes, which are known here by their position in the set.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Per node, its tokens in ascending order; never empty.
    tokens: Vec<Vec<Token>>,
}

impl Ring {
    /// The ring of `nodes`, given as name and number of virtual nodes (at least one is placed).
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let tokens = nodes.into_iter().map(|(name, count)| sorted_tokens(name, count)).collect();
        Self { tokens }
    }

    /// The positions of all nodes in the order in which a clockwise walk from `start` first meets them.
    ///
    /// Nodes that share a token are met in the order of their positions.
    pub fn walk(&self, start: Token) -> Vec<usize> {
        let mut met: Vec<(u64, usize)> = self
            .tokens
            .iter()
            .enumerate()
            .map(|(node, tokens)| (distance(start, tokens), node))
            .collect();
        met.sort_unstable();
        met.into_iter().map(|(_, node)| node).collect()
    }
}

fn sorted_tokens(name: &str, count: u32) -> Vec<Token> {
    let mut tokens: Vec<Token> =
        (0..count.max(1)).map(|replica| Token::of_virtual_node(name, replica)).collect();
    tokens.sort_unstable();
    tokens
}

/// How far the first of `tokens` is, clockwise from `start`.
fn distance(start: Token, tokens: &[Token]) -> u64 {
    let next = tokens.partition_point(|&token| token < start);
    start.clockwise_to(tokens[if next == tokens.len() { 0 } else { next }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    const NODES: [(&str, u32); 4] = [("a", 128), ("b", 256), ("c", 128), ("d", 1)];

    /// The walk as Dynamo describes it: over the merged ring, skipping nodes already met.
    fn walk_of_merged_ring(start: Token) -> Vec<usize> {
        let mut ring: Vec<(Token, usize)> = Vec::new();
        for (node, (name, count)) in NODES.into_iter().enumerate() {
            ring.extend((0..count).map(|r| (Token::of_virtual_node(name, r), node)));
        }
        ring.sort_unstable();
        let from = ring.partition_point(|&(token, _)| token < start);
        let mut met = Vec::new();
        for (_, node) in ring[from..].iter().chain(&ring[..from]) {
            if !met.contains(node) {
                met.push(*node);
            }
        }
        met
    }

    #[test]
    fn walk_agrees_with_the_merged_ring() {
        let ring = Ring::new(NODES);
        for shard in 0..500 {
            let start = Token::of_shard(ShardId(shard));
            assert_eq!(ring.walk(start), walk_of_merged_ring(start), "shard {shard}");
        }
        let own = Token::of_virtual_node("c", 3);
        for start in [Token(0), Token(u64::MAX), own] {
            assert_eq!(ring.walk(start), walk_of_merged_ring(start));
        }
        assert_eq!(ring.walk(own)[0], 2, "a token is its own successor");
    }

    #[test]
    fn no_nodes_no_walk() {
        assert!(Ring::new([]).walk(Token(7)).is_empty());
    }
}
