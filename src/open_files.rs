//! How many files the process may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside connections: the journal, outputs, the cluster.
const OTHERS: u64 = 256;

/// Takes all that the system allows. The lower limit that most processes start with is for those that use select(2).
pub fn make_room(connections: u32) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let allowed = getrlimit(Resource::Nofile).current;
    let wanted = u64::from(connections) + OTHERS;
    if let Some(allowed) = allowed.filter(|allowed| *allowed < wanted) {
        tracing::warn!(
            allowed,
            wanted,
            "fewer open files are allowed than http.max_connections can take: raise the limit (ulimit -n), or lower \
             http.max_connections"
        );
    }
}
