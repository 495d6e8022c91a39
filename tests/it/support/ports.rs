//! Free TCP ports on 127.0.0.1, each this process's own until the last holder is dropped.
//!
//! They lie below the kernel's range for outgoing connections (32768 and up on Linux): a port from that range,
//! as binding port 0 gives, can be taken by any client while its node is down, even by a client that tries
//! to reach that very node and so meets itself. A lock file per port keeps concurrent test processes apart,
//! which a trial bind alone cannot where servers listen with `SO_REUSEPORT`.

use std::fs::File;
use std::net::TcpListener;

use kvorum::stdx::prng::SplitMix64;

use super::now_us;

const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// A port nobody listens on, reserved while this lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Its number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// Reserves a free port.
    pub(crate) fn reserve() -> Self {
        let folder = std::env::temp_dir().join("kvorum-it-ports");
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        let mut prng = SplitMix64::new(u64::from(std::process::id()) << 32 ^ now_us());
        for _ in 0..COUNT {
            let number = FIRST + u16::try_from(prng.below(u64::from(COUNT))).unwrap();
            let lock = File::create(folder.join(number.to_string())).expect("a lock file");
            let is_free =
                lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok();
            if is_free {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }
}
