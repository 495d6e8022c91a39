//! Looking up a key as one type: `None` when it is missing, [`WrongType`] when it holds another.

use super::value::Stored;
use super::{At, Hash, Key, Keyspace, List, Set, Str, Stream, WrongType, ZSet};

impl Keyspace {
    /// The string of `key`.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    #[inline]
    pub fn string(&self, at: At, key: Key<'_>) -> Result<Option<&Str>, WrongType> {
        self.typed(at, key)
    }

    /// The string of `key`, to be changed.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn string_mut(&mut self, at: At, key: Key<'_>) -> Result<Option<&mut Str>, WrongType> {
        self.typed_mut(at, key)
    }

    /// The string of `key`, to be changed; an empty one is created when the key is missing.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    ///
    /// # Panics
    /// As [`Keyspace::contains`] says.
    pub fn string_or_create(&mut self, at: At, key: Key<'_>) -> Result<&mut Str, WrongType> {
        self.typed_or_create(at, key)
    }

    /// The list of `key`.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn list(&self, at: At, key: Key<'_>) -> Result<Option<&List>, WrongType> {
        self.typed(at, key)
    }

    /// The list of `key`, to be changed.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn list_mut(&mut self, at: At, key: Key<'_>) -> Result<Option<&mut List>, WrongType> {
        self.typed_mut(at, key)
    }

    /// The list of `key`, to be changed; an empty one is created when the key is missing.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    ///
    /// # Panics
    /// As [`Keyspace::contains`] says.
    pub fn list_or_create(&mut self, at: At, key: Key<'_>) -> Result<&mut List, WrongType> {
        self.typed_or_create(at, key)
    }

    /// The hash of `key`.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn hash(&self, at: At, key: Key<'_>) -> Result<Option<&Hash>, WrongType> {
        self.typed(at, key)
    }

    /// The hash of `key`, to be changed.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn hash_mut(&mut self, at: At, key: Key<'_>) -> Result<Option<&mut Hash>, WrongType> {
        self.typed_mut(at, key)
    }

    /// The hash of `key`, to be changed; an empty one is created when the key is missing.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    ///
    /// # Panics
    /// As [`Keyspace::contains`] says.
    pub fn hash_or_create(&mut self, at: At, key: Key<'_>) -> Result<&mut Hash, WrongType> {
        self.typed_or_create(at, key)
    }

    /// The set of `key`.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn set(&self, at: At, key: Key<'_>) -> Result<Option<&Set>, WrongType> {
        self.typed(at, key)
    }

    /// The set of `key`, to be changed.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn set_mut(&mut self, at: At, key: Key<'_>) -> Result<Option<&mut Set>, WrongType> {
        self.typed_mut(at, key)
    }

    /// The set of `key`, to be changed; an empty one is created when the key is missing.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    ///
    /// # Panics
    /// As [`Keyspace::contains`] says.
    pub fn set_or_create(&mut self, at: At, key: Key<'_>) -> Result<&mut Set, WrongType> {
        self.typed_or_create(at, key)
    }

    /// The sorted set of `key`.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn zset(&self, at: At, key: Key<'_>) -> Result<Option<&ZSet>, WrongType> {
        self.typed(at, key)
    }

    /// The sorted set of `key`, to be changed.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn zset_mut(&mut self, at: At, key: Key<'_>) -> Result<Option<&mut ZSet>, WrongType> {
        self.typed_mut(at, key)
    }

    /// The sorted set of `key`, to be changed; an empty one is created when the key is missing.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    ///
    /// # Panics
    /// As [`Keyspace::contains`] says.
    pub fn zset_or_create(&mut self, at: At, key: Key<'_>) -> Result<&mut ZSet, WrongType> {
        self.typed_or_create(at, key)
    }

    /// The stream of `key`.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn stream(&self, at: At, key: Key<'_>) -> Result<Option<&Stream>, WrongType> {
        self.typed(at, key)
    }

    /// The stream of `key`, to be changed.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    pub fn stream_mut(&mut self, at: At, key: Key<'_>) -> Result<Option<&mut Stream>, WrongType> {
        self.typed_mut(at, key)
    }

    /// The stream of `key`, to be changed; an empty one is created when the key is missing.
    ///
    /// # Errors
    /// [`WrongType`] when the key holds another type.
    ///
    /// # Panics
    /// As [`Keyspace::contains`] says.
    pub fn stream_or_create(&mut self, at: At, key: Key<'_>) -> Result<&mut Stream, WrongType> {
        self.typed_or_create(at, key)
    }

    fn typed<T: Stored>(&self, at: At, key: Key<'_>) -> Result<Option<&T>, WrongType> {
        self.get(at, key).map(T::of).transpose()
    }

    fn typed_mut<T: Stored>(&mut self, at: At, key: Key<'_>) -> Result<Option<&mut T>, WrongType> {
        self.entry_mut(at, key).map(|entry| T::of_mut(&mut entry.value)).transpose()
    }

    fn typed_or_create<T: Stored>(&mut self, at: At, key: Key<'_>) -> Result<&mut T, WrongType> {
        T::of_mut(&mut self.entry_or_insert(at, key, T::empty).value)
    }
}
