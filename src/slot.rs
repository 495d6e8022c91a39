//! Key to slot, exactly as Redis Cluster: CRC16/XMODEM of the key or of its hash tag, modulo 16384.
//!
//! Source: Redis cluster specification, "Key distribution model" and "Hash tags".

use std::fmt;

/// One of the 16384 hash slots of the key space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// How many slots there are.
    pub const COUNT: u16 = 16_384;

    /// The slot of `key`: of the text between its first `{` and the next `}`, when that is not empty.
    pub fn of(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key)) & (Self::COUNT - 1))
    }

    /// The slot numbered `number`, when there is one.
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// Its number, 0..16384.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Its number as an index into a table of [`Slot::COUNT`] rows.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn hash_tag(key: &[u8]) -> &[u8] {
    if !may_hold_brace(key) {
        return key;
    }
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let after = &key[open + 1..];
    match after.iter().position(|&byte| byte == b'}') {
        Some(length) if length > 0 => &after[..length],
        Some(_) | None => key,
    }
}

/// Whether there may be a `{` in `key`: exact for the bytes looked at eight at a time, else yes.
fn may_hold_brace(key: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (eights, rest) = key.as_chunks::<8>();
    let found = eights.iter().any(|eight| {
        // The classic test for a zero byte, on what is zero where there is a brace.
        let differs = u64::from_le_bytes(*eight) ^ (ONES * u64::from(b'{'));
        differs.wrapping_sub(ONES) & !differs & HIGH != 0
    });
    found || rest.contains(&b'{')
}

/// Row `n` holds the checksum of each byte followed by `n` zero bytes, so that eight bytes are folded in at
/// once (slicing-by-8): every command computes a slot, a write once more where it is applied.
static TABLES: [[u16; 256]; 8] = crc16_tables();

const fn crc16_tables() -> [[u16; 256]; 8] {
    let mut tables = [[0_u16; 256]; 8];
    let mut byte = 0_u16;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        tables[0][byte as usize] = crc;
        byte += 1;
    }
    let mut row = 1;
    while row < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[row - 1][byte];
            tables[row][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        row += 1;
    }
    tables
}

fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        // One load; eight of single bytes would cost as much as the rest.
        let word = u64::from_be_bytes(*eight) ^ (u64::from(crc) << 48);
        let bytes = word.to_be_bytes().map(usize::from);
        crc = TABLES[7][bytes[0]]
            ^ TABLES[6][bytes[1]]
            ^ TABLES[5][bytes[2]]
            ^ TABLES[4][bytes[3]]
            ^ TABLES[3][bytes[4]]
            ^ TABLES[2][bytes[5]]
            ^ TABLES[1][bytes[6]]
            ^ TABLES[0][bytes[7]];
    }
    for &byte in rest {
        let [high, _] = crc.to_be_bytes();
        crc = (crc << 8) ^ TABLES[0][usize::from(high ^ byte)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_crc16_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn a_brace_is_seen_wherever_it_stands() {
        for length in 1..40 {
            let plain = vec![b'z'; length];
            assert!(!may_hold_brace(&plain));
            for place in 0..length {
                let mut key = plain.clone();
                key[place] = b'{';
                assert!(may_hold_brace(&key), "{place} of {length}");
            }
        }
    }

    #[test]
    fn folding_eight_bytes_at_once_changes_nothing() {
        let bytes: Vec<u8> = (0..100_u8).map(|byte| byte.wrapping_mul(73)).collect();
        for length in 0..bytes.len() {
            let bitwise = bytes[..length].iter().fold(0_u16, |crc, &byte| {
                (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
                    if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
                })
            });
            assert_eq!(crc16(&bytes[..length]), bitwise, "{length}");
        }
    }

    #[test]
    fn slots_agree_with_redis_cluster() {
        for (key, slot) in
            [("foo", 12182), ("bar", 5061), ("hello", 866), ("", 0), ("somekey", 11058)]
        {
            assert_eq!(Slot::of(key.as_bytes()).number(), slot, "{key}");
        }
    }

    #[test]
    fn hash_tags_choose_the_slot() {
        let slot = |key: &str| Slot::of(key.as_bytes());
        assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
        assert_eq!(slot("foo{}{bar}").number(), crc16(b"foo{}{bar}") % Slot::COUNT);
        assert_eq!(slot("foo{{bar}}zap").number(), crc16(b"{bar") % Slot::COUNT);
        assert_eq!(slot("foo{bar}{zap}").number(), slot("bar").number());
        assert_eq!(slot("foo{bar").number(), crc16(b"foo{bar") % Slot::COUNT);
    }
}
