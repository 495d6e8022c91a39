//! How many files and sockets this process may have open.
//!
//! The system answers `EMFILE` when the process has too many, and `ENFILE` when all processes together have. Both pass:
//! somebody closes one.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, and returns how many descriptors the process may have then.
///
/// The hard limit stays, also where it could be raised: whoever set it meant it.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let hard = maximum.unwrap_or(u64::MAX);
    let soft = current.unwrap_or(u64::MAX);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => hard,
        // The machine's own limit may have been lowered below it since.
        Err(_) => soft,
    }
}

/// Whether `error` says that there is no descriptor left.
pub fn is_lack(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
        assert_eq!(raise_limit(), maximum.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: maximum, maximum });
    }

    #[test]
    fn only_a_lack_of_descriptors_is_one() {
        for (errno, expected) in
            [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::NOSPC, false), (Errno::IO, false)]
        {
            assert_eq!(is_lack(&errno.into()), expected);
        }
        assert!(!is_lack(&io::Error::other("a lack of something else")));
    }
}
