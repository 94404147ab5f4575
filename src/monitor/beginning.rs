//! How a log began, told by a digest: whether what is read later is the same log, or one that the kubelet has begun anew
//! since (T66).

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Less is no proof: the kubelet's sentence in place of a log (T62) is shorter, and a log that is begun anew was larger.
const TELLING: u64 = 1024;

/// Length and digest of the first bytes of a log.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    length: u64,
    digest: Sha256,
}

impl Beginning {
    /// The next bytes of it.
    pub fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.digest.update(bytes);
    }

    /// True if it is long enough to tell one log from another.
    pub fn is_telling(&self) -> bool {
        self.length >= TELLING
    }
}

/// A log compared with a known beginning as it streams by.
#[derive(Debug)]
pub struct Comparison {
    known: Beginning,
    read: Beginning,
}

impl Comparison {
    /// With this beginning.
    pub fn new(known: Beginning) -> Self {
        Self { known, read: Beginning::default() }
    }

    /// Takes off `bytes` what is as far as the beginning goes.
    pub fn push(&mut self, bytes: &mut Bytes) {
        let left =
            usize::try_from(self.known.length - self.read.length).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.read.push(&bytes.split_to(left));
    }

    /// True once all of it can be compared.
    pub fn is_over(&self) -> bool {
        self.read.length == self.known.length
    }

    /// True if what was read is all of the beginning.
    pub fn fits(&self) -> bool {
        self.is_over() && self.read.digest.clone().finalize() == self.known.digest.clone().finalize()
    }
}

/// What a follow has taken of a log's beginning so far, for whoever reads the log after its end.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Beginning>>);

impl Shared {
    /// As it is now.
    pub fn get(&self) -> Beginning {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next bytes of it.
    pub(super) fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}
