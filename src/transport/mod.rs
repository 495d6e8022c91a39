//! Node-to-node messages: frames, one multiplexed connection per peer and direction. Knows envelopes, not meaning.
