//! This process: the shards it hosts, its peers, what operators ask of it.
