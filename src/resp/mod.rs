//! REdis Serialization Protocol 2 and 3: bytes to requests, replies to bytes.
