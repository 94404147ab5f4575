//! What happens to the objects of a kind, for those inside this process.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use futures::stream::{self, BoxStream, StreamExt};
use serde_json::Value;
use tokio::sync::watch;

use super::{Change, Cluster, Key, Kind};

struct Follower {
    cluster: Cluster,
    kind: Kind,
    bell: watch::Receiver<u64>,
    /// Told of everything up to here; nothing yet if none.
    version: Option<u64>,
    told: BTreeMap<Key, Arc<Value>>,
    queue: VecDeque<Change>,
}

pub(super) fn follow(cluster: Cluster, kind: Kind) -> BoxStream<'static, Change> {
    let bell = cluster.lock().bell();
    let follower = Follower { cluster, kind, bell, version: None, told: BTreeMap::new(), queue: VecDeque::new() };
    stream::unfold(follower, |mut follower| async move { Some((follower.next().await, follower)) }).boxed()
}

impl Follower {
    async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.queue.pop_front() {
                return change;
            }
            self.bell.mark_unchanged();
            self.look();
            if self.queue.is_empty() && self.bell.changed().await.is_err() {
                unreachable!("the follower holds the cluster, and that the bell");
            }
        }
    }

    fn look(&mut self) {
        let cluster = self.cluster.clone();
        let state = cluster.lock();
        let news = self.version.and_then(|version| state.after(self.kind, version));
        match news {
            Some(events) => {
                for event in events {
                    self.queue.push_back(if event.is_gone {
                        self.told.remove(&event.key);
                        Change::Deleted(event.now.clone())
                    } else if self.told.insert(event.key.clone(), event.now.clone()).is_some() {
                        Change::Modified(event.now.clone())
                    } else {
                        Change::Added(event.now.clone())
                    });
                }
            }
            // At the beginning, and when the history is not as long as this one was asleep.
            None => {
                let there: BTreeMap<Key, Arc<Value>> =
                    state.all(self.kind).map(|(k, o)| (k.clone(), o.clone())).collect();
                for (key, object) in &there {
                    match self.told.remove(key) {
                        None => self.queue.push_back(Change::Added(object.clone())),
                        Some(old) if is_another(&old, object) => {
                            self.queue.push_back(Change::Deleted(old));
                            self.queue.push_back(Change::Added(object.clone()));
                        }
                        Some(old) if old != *object => self.queue.push_back(Change::Modified(object.clone())),
                        Some(_) => {}
                    }
                }
                self.queue.extend(std::mem::replace(&mut self.told, there).into_values().map(Change::Deleted));
            }
        }
        self.version = Some(state.version());
    }
}

fn is_another(old: &Value, new: &Value) -> bool {
    old["metadata"]["uid"] != new["metadata"]["uid"]
}
