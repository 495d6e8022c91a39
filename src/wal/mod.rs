//! The write-ahead log all groups of a node share, and small durable files. Knows bytes and positions only.
