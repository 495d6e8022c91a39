//! Patterns of KEYS, SCAN, PSUBSCRIBE and ACL: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a byte meant as itself.
//!
//! Bytes, not characters. Time is at most pattern × text, for hostile patterns too: after a mismatch only the last `*`
//! takes one byte more, since an earlier one that took more could match nothing that the last one cannot. Redis'
//! own recursion gives the same answers and takes exponential time for `a*a*a*b`, which it answers by a limit.
//!
//! Source: Redis `stringmatchlen`, with its quirks: an unclosed `[` ends with the pattern, `[z-a]` is `[a-z]`, an
//! empty class matches nothing, and a `\` at the end is itself. Unlike there, `*` fits the empty text (for KEYS and SCAN
//! Redis makes it so before it matches).

/// Whether the whole of `text` fits `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    fits(pattern, text, |byte| byte)
}

/// [`matches()`] with ASCII letters of either case as equal.
pub fn matches_nocase(pattern: &[u8], text: &[u8]) -> bool {
    fits(pattern, text, |byte| byte.to_ascii_lowercase())
}

/// The literal bytes that every match of `pattern` starts with, up to its first special byte.
pub fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let end = pattern.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(pattern.len());
    &pattern[..end]
}

fn fits(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8 + Copy) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last `*`, and the end of what it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() || p < pattern.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            if p == pattern.len() {
                return true;
            }
            star = Some((p, t));
            continue;
        }
        if let (Some(byte), Some(rest)) = (text.get(t), pattern.get(p..))
            && let Some(taken) = one(rest, *byte, fold)
        {
            p += taken;
            t += 1;
            continue;
        }
        match star {
            Some((after, taken)) if taken < text.len() => {
                star = Some((after, taken + 1));
                (p, t) = (after, taken + 1);
            }
            _ => return false,
        }
    }
    true
}

/// How many bytes the element at the start of `pattern` has, if it takes `byte`. The element is not `*`.
fn one(pattern: &[u8], byte: u8, fold: impl Fn(u8) -> u8 + Copy) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ref class @ ..] => {
            let (is_match, length) = class_takes(class, byte, fold);
            is_match.then_some(1 + length)
        }
        [b'\\', literal, ..] => (fold(literal) == fold(byte)).then_some(2),
        [literal, ..] => (fold(literal) == fold(byte)).then_some(1),
    }
}

/// Whether the class behind `[` takes `byte`, and the length of the class with its `]`.
fn class_takes(class: &[u8], byte: u8, fold: impl Fn(u8) -> u8) -> (bool, usize) {
    let byte = fold(byte);
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut is_in = false;
    loop {
        match class[at..] {
            [] => break,
            [b'\\', literal, ..] => {
                is_in |= fold(literal) == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [low, b'-', high, ..] => {
                let (low, high) = (fold(low.min(high)), fold(low.max(high)));
                is_in |= (low..=high).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                is_in |= fold(literal) == byte;
                at += 1;
            }
        }
    }
    (is_in != negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::prng::SplitMix64;

    /// Recorded from redis-server 7.0.15, except for the empty text.
    #[test]
    fn patterns_fit_what_they_fit_in_redis() {
        let table: &[(&str, &str, bool)] = &[
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*", "", true),
            ("**", "", true),
            ("*", "anything", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "hllo", true),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("[z-a]", "m", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hxllo", false),
            ("[\\]]", "]", true),
            ("[a\\-z]", "-", true),
            ("[a\\-z]", "m", false),
            ("[a-", "-", true),
            ("[a", "a", true),
            ("[", "[", false),
            ("[]", "]", false),
            ("[^]", "x", true),
            ("\\", "\\", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("*.*.c", "a.b.c", true),
            ("a**", "a", true),
            ("news.*", "news.art.figurative", true),
            ("A", "a", false),
        ];
        for (pattern, text, expected) in table {
            let fits = matches(pattern.as_bytes(), text.as_bytes());
            assert_eq!(fits, *expected, "{pattern} {text}");
        }
    }

    #[test]
    fn case_matters_only_when_asked() {
        for (pattern, text) in
            [("HELLO", "hello"), ("h[A-E]llo", "heLLo"), ("max*", "MAXMEMORY"), ("[^X]", "a")]
        {
            assert!(matches_nocase(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        assert!(!matches_nocase(b"[^X]", b"x"));
        assert!(!matches(b"HELLO", b"hello"));
    }

    /// Tries every length for every `*`.
    fn matches_slowly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|taken| matches_slowly(rest, &text[taken..])),
            _ => text
                .split_first()
                .and_then(|(byte, rest)| Some((one(pattern, *byte, |b| b)?, rest)))
                .is_some_and(|(taken, rest)| matches_slowly(&pattern[taken..], rest)),
        }
    }

    #[test]
    fn last_star_alone_finds_what_trying_everything_finds() {
        let seed = 11;
        let mut prng = SplitMix64::new(seed);
        let mut string = |alphabet: &[u8], length_max: u64| -> Vec<u8> {
            let length = prng.below(length_max + 1);
            let count = u64::try_from(alphabet.len()).unwrap();
            (0..length).map(|_| alphabet[usize::try_from(prng.below(count)).unwrap()]).collect()
        };
        let mut fitting = 0;
        for _ in 0..50_000 {
            let (pattern, text) = (string(b"aab**?[]^-\\", 8), string(b"aab-]", 7));
            let fits = matches(&pattern, &text);
            let shown = (pattern.escape_ascii().to_string(), text.escape_ascii().to_string());
            assert_eq!(fits, matches_slowly(&pattern, &text), "seed {seed}: {shown:?}");
            fitting += u32::from(fits);
        }
        assert!(fitting > 1000, "seed {seed}: too few of the patterns fit to prove much");
    }

    #[test]
    fn hostile_patterns_cost_no_more_than_pattern_times_text() {
        let pattern = [b"a*".repeat(2000), b"b".to_vec()].concat();
        assert!(!matches(&pattern, &b"a".repeat(20_000)));
    }

    #[test]
    fn literal_prefixes_end_at_the_first_special_byte() {
        for (pattern, prefix) in [
            ("user:*", "user:"),
            ("*", ""),
            ("a?", "a"),
            ("a[b]", "a"),
            ("a\\*", "a"),
            ("ab", "ab"),
        ] {
            assert_eq!(literal_prefix(pattern.as_bytes()), prefix.as_bytes());
        }
    }
}
