//! Who may read a log now.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Nodes that are remembered before the idle ones are forgotten.
const NODES: usize = 1024;

/// At most so many in all, and so many at one node.
#[derive(Debug)]
pub(super) struct Slots {
    all: Semaphore,
    per_node: usize,
    nodes: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// The right to read one log; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    _all: SemaphorePermit<'a>,
    _node: Option<OwnedSemaphorePermit>,
}

impl Slots {
    pub(super) fn new(concurrency: usize, per_node: usize) -> Self {
        Self { all: Semaphore::new(concurrency.max(1)), per_node: per_node.max(1), nodes: Mutex::default() }
    }

    /// Waits for the node first, so that those who wait for a slow node hold up nobody else.
    pub(super) async fn take(&self, node: Option<&str>) -> Slot<'_> {
        let node = match node {
            Some(name) => Some(self.node(name).acquire_owned().await.expect("never closed")),
            None => None,
        };
        Slot { _all: self.all.acquire().await.expect("never closed"), _node: node }
    }

    fn node(&self, name: &str) -> Arc<Semaphore> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() >= NODES && !nodes.contains_key(name) {
            nodes.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        let semaphore = nodes.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.per_node)));
        Arc::clone(semaphore)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_slow_node_holds_up_nobody_else() {
        let slots = Slots::new(3, 2);
        let slow: Vec<_> = (0..2).map(|_| slots.take(Some("slow")).now_or_never()).collect();
        assert!(slow.iter().all(Option::is_some));
        assert!(slots.take(Some("slow")).now_or_never().is_none(), "two at one node");
        let other = slots.take(Some("other")).now_or_never();
        assert!(other.is_some());
        assert!(slots.take(None).now_or_never().is_none(), "three in all");
        drop(slow);
        assert!(slots.take(Some("slow")).now_or_never().is_some());
    }

    #[test]
    fn idle_nodes_are_forgotten() {
        let slots = Slots::new(NODES * 4, 1);
        let busy = slots.take(Some("busy")).now_or_never();
        for n in 0..NODES * 3 {
            assert!(slots.take(Some(&format!("node-{n}"))).now_or_never().is_some());
        }
        assert!(slots.nodes.lock().unwrap_or_else(PoisonError::into_inner).len() <= NODES);
        assert!(slots.take(Some("busy")).now_or_never().is_none(), "a busy one is not");
        drop(busy);
    }
}
