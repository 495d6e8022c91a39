//! A Raft group that serves a keyspace: the one room where the data wing and the consensus wing meet.
