//! What a blob is called: the same output has the same name, whoever puts it there, and how often.

use podherald_core::event::EVENT_NAMESPACE;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::output_store::{self, Reader, Stream};

/// Longest part of a key that is taken from outside as it is.
const LONGEST: usize = 200;
/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Whose output it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The execution.
    pub execution_id: &'a str,
    /// The attempt, by the key that outlives podherald's own disk.
    pub attempt_key: &'a str,
    /// The index of an Indexed Job.
    pub index: Option<u32>,
}

/// `<execution>/<attempt>/[index-<n>/]<stream>-<digest of the bytes>`.
pub(super) async fn of(owner: Owner<'_>, stream: Stream, content: &Reader) -> output_store::Result<String> {
    let digest = digest(content).await?;
    let Owner { execution_id, attempt_key, index } = owner;
    let index = index.map(|index| format!("index-{index}/")).unwrap_or_default();
    let stream = stream.as_str();
    Ok(format!("{}/{}/{index}{stream}-{digest}", segment(execution_id), segment(attempt_key)))
}

async fn digest(content: &Reader) -> output_store::Result<String> {
    let mut digest = Sha256::new();
    let mut offset = 0;
    loop {
        let bytes = content.read(offset, CHUNK).await?;
        if bytes.is_empty() {
            return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        digest.update(&bytes);
        offset += bytes.len() as u64;
    }
}

/// Text from outside as a part of a path and of a URI that means the same to everybody: itself if it is plain.
fn segment(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !text.is_empty() && text.len() <= LONGEST && !text.starts_with(['.', '_']) && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("_{}", Uuid::new_v5(&EVENT_NAMESPACE, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_not_plain_is_named_by_its_digest() {
        for plain in ["7c1f", "eval-2026.03_a", "A"] {
            assert_eq!(segment(plain), plain);
        }
        let long = "x".repeat(LONGEST + 1);
        let odd = ["", ".", "..", ".hidden", "a/b", "a b", "a%2Fb", "é", "_a", &long];
        let named: BTreeSet<_> = odd.iter().map(|text| segment(text)).collect();
        assert_eq!(named.len(), odd.len());
        assert!(named.iter().all(|name| name.starts_with('_') && name.len() == 37), "{named:?}");
    }
}
