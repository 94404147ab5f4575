//! A list that is not complete yet.
//!
//! Nothing of it is passed on before it is: attempts are numbered by their age, and lists come by name. A hundred thousand
//! objects may wait here, so each is one piece of text; as many small pieces, given back in another order than they were
//! taken, would leave the memory full of holes.

use std::{collections::HashSet, marker::PhantomData};

use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};

use super::{
    watcher::Sighting,
    wire::{Facts, Object},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Listing<F> {
    /// When the list was asked for.
    pub(super) asked_at: Instant,
    waiting: Vec<Waiting>,
    /// The fields that could not be read of each object without an identity.
    unidentified: Vec<Vec<&'static str>>,
    kind: PhantomData<fn() -> F>,
}

#[derive(Debug)]
struct Waiting {
    created: Option<Timestamp>,
    uid: String,
    facts: Box<[u8]>,
    malformed: Vec<&'static str>,
}

impl<F: Facts> Listing<F> {
    /// Of a list that is asked for now.
    pub(super) fn begin() -> Self {
        Self { asked_at: Instant::now(), waiting: Vec::new(), unidentified: Vec::new(), kind: PhantomData }
    }

    pub(super) fn add(&mut self, object: Object<F>) {
        let Object { facts, malformed, .. } = object;
        let Some(facts) = facts else { return self.unidentified.push(malformed) };
        let (created, uid) = (facts.created(), facts.marks().uid.to_owned());
        let facts = serde_json::to_vec(&facts).expect("facts are texts, numbers and lists of them").into_boxed_slice();
        self.waiting.push(Waiting { created, uid, facts, malformed });
    }

    /// Passes on a list that is complete, object by object, so that one of any size waits where the watch does. False if
    /// nobody takes it.
    pub(super) async fn pass_on(
        mut self,
        watch: usize,
        is_check: bool,
        out: &mpsc::Sender<Sighting<Object<F>>>,
    ) -> bool {
        self.waiting.sort_unstable_by(|a, b| (a.created, &a.uid).cmp(&(b.created, &b.uid)));
        let unidentified = self.unidentified.into_iter().map(|malformed| Object::of(None, malformed));
        let mut uids = HashSet::with_capacity(self.waiting.len());
        let identified = self.waiting.into_iter().map(|object| {
            let facts = serde_json::from_slice(&object.facts).expect("it was written above");
            uids.insert(object.uid);
            Object::of(Some(facts), object.malformed)
        });
        for object in unidentified.chain(identified) {
            if out.send(Sighting::Seen { watch, object, is_check }).await.is_err() {
                return false;
            }
        }
        out.send(Sighting::Listed { watch, asked_at: self.asked_at, is_check, uids }).await.is_ok()
    }
}
