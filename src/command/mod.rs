//! What a command means: its declaration (Spec) and its effect on a keyspace.
