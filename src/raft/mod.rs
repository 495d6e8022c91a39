//! Adapters that make openraft run over wal and transport, for any state machine.
