//! A key, its value and its deadline: what the tables hold.

use xxhash_rust::xxh3::Xxh3;

use crate::ids::DbIndex;
use crate::stdx::clock::UnixMillis;
use crate::stdx::codec::{self, Sink};

use super::parts::{Cursor, Elements, Spelling};
use super::{Bin, Value};

/// A key with its value and, perhaps, a deadline.
#[derive(Debug)]
#[repr(align(64))]
pub struct Entry {
    key: Bin,
    /// What the key holds.
    pub value: Value,
    /// Milliseconds since the epoch; [`NO_DEADLINE`] when the key never expires.
    deadline: u64,
}

const NO_DEADLINE: u64 = 0;

// One cache line. Half of it is key and deadline; every byte more is paid for each key of the store.
const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    /// A new entry. A deadline at the epoch itself is kept as one millisecond after it.
    pub(super) fn new(key: &[u8], value: Value, expire_at: Option<UnixMillis>) -> Self {
        Self::with_key(Bin::from_slice(key), value, expire_at)
    }

    /// As [`Entry::new`], without a copy of the key.
    pub(super) fn with_key(key: Bin, value: Value, expire_at: Option<UnixMillis>) -> Self {
        Self { key, value, deadline: deadline_of(expire_at) }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// When the key expires; `None` means never.
    pub fn expire_at(&self) -> Option<UnixMillis> {
        (self.deadline != NO_DEADLINE).then_some(UnixMillis(self.deadline))
    }

    /// Whether the deadline has come at `now`: then no command may see the key.
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        self.deadline != NO_DEADLINE && self.deadline <= now.0
    }

    /// Something of the entry: reading it brings the entry near.
    pub(super) fn glance(&self) -> u64 {
        self.deadline ^ self.key.len() as u64
    }

    /// The same entry, if its value is shared with it rather than copied.
    pub(super) fn shared(&self) -> Option<Self> {
        self.is_shared().then(|| Self {
            key: self.key.clone(),
            value: self.value.clone(),
            deadline: self.deadline,
        })
    }

    /// Whether to clone it costs the same however long it is.
    pub(super) fn is_shared(&self) -> bool {
        matches!(&self.value, Value::Str(string) if string.is_shared())
    }

    /// The digest of the key in `db`, its value and its deadline.
    pub(super) fn digest(&self, db: DbIndex) -> u64 {
        let mut hasher = Xxh3::new();
        hasher.put(&[db.0]);
        self.put(Spelling::Digest, &mut Cursor::default(), &mut hasher);
        hasher.digest()
    }

    /// Writes what `cursor` says is not written yet, as far as there is room; whether that was all. The format is that of
    /// [`snapshot`](super::snapshot).
    pub(super) fn put<S: Elements>(
        &self,
        spelling: Spelling,
        cursor: &mut Cursor,
        sink: &mut S,
    ) -> bool {
        let head = |sink: &mut S| {
            sink.put(&[self.value.type_code(spelling)]);
            codec::put_bytes(sink, &self.key);
            codec::put_varint(sink, self.deadline);
            self.value.put_head(spelling, sink);
        };
        cursor.put_head(sink, head) && self.value.put_elements(cursor, sink)
    }

    pub(super) fn set_expire_at(&mut self, expire_at: Option<UnixMillis>) {
        self.deadline = deadline_of(expire_at);
    }
}

fn deadline_of(expire_at: Option<UnixMillis>) -> u64 {
    expire_at.map_or(NO_DEADLINE, |at| at.0.max(1))
}
