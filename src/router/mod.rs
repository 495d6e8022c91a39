//! From a request to the shards that answer it.
