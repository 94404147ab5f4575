//! Names: which are allowed, and those that are made up.

use uuid::{Builder, Uuid};

/// Letters of a generated suffix: no vowels, so that they make no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
/// What is left of `generateName`, so that the whole fits into a label.
const MAX_BASE: usize = MAX_LABEL - SUFFIX;

/// What the API server says of a name that is none.
pub(super) const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
     characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(super) const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
     '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation \
     is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// How long they may be.
pub(super) const MAX_LABEL: usize = 63;
pub(super) const MAX_SUBDOMAIN: usize = 253;

/// uids and suffixes, always the same ones from the same seed (SplitMix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: Option<u64>) -> Self {
        Self(seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0))
    }

    pub(super) fn uid(&mut self) -> String {
        let (high, low) = (u128::from(self.next()), u128::from(self.next()));
        Builder::from_random_bytes((high << 64 | low).to_be_bytes()).into_uuid().to_string()
    }

    /// A name that begins like this.
    pub(super) fn name(&mut self, base: &str) -> String {
        let base: String = base.chars().take(MAX_BASE).collect();
        let mut bits = self.next();
        let letters = ALPHABET.len() as u64;
        (0..SUFFIX).fold(base, |mut name, _| {
            let index = usize::try_from(bits % letters).expect("less than the number of letters");
            bits /= letters;
            name.push(char::from(ALPHABET[index]));
            name
        })
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// An RFC 1123 label: a container's or a namespace's name.
pub(super) fn is_label(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    has_proper_ends(name, |c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.len() <= MAX_LABEL
        && name.bytes().all(inner)
}

/// An RFC 1123 subdomain: what most objects are called.
pub(super) fn is_subdomain(name: &str) -> bool {
    name.len() <= MAX_SUBDOMAIN && name.split('.').all(is_label_of_any_length)
}

fn is_label_of_any_length(part: &str) -> bool {
    let is_end = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    has_proper_ends(part, is_end) && part.bytes().all(|c| is_end(c) || c == b'-')
}

/// The value of a label, which may be empty.
pub(crate) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_qualified_name(value)
}

/// The key of a label or annotation, with or without a prefix.
pub(crate) fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified_name(name),
        None => is_qualified_name(key),
    }
}

fn is_qualified_name(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    has_proper_ends(name, |c| c.is_ascii_alphanumeric()) && name.len() <= MAX_LABEL && name.bytes().all(inner)
}

fn has_proper_ends(name: &str, is_proper: impl Fn(u8) -> bool) -> bool {
    let bytes = name.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if is_proper(*first) && is_proper(*last))
}
