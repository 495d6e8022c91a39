//! One connected client: bytes in, replies out.
