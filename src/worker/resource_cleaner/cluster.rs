//! The cleaner's way to the API server: marked objects, a page at a time, and how one of them goes.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{NamespaceResourceScope, api::core::v1};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::{ObjectMeta, PartialObjectMeta},
};
use podherald_core::{evidence::Intent, pod::INTENT_ANNOTATION};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout;

use super::plan::{Cause, EXECUTION_LABEL, Kind, MARK, Object};
use crate::{crash, wording};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Objects of a page of a list, where nobody asks for fewer.
pub(super) const PAGE: u32 = 500;
/// `by` of the intent.
const NAME: &str = "resource-cleaner";

/// Why the API server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not answer, or not now.
    #[error("the API server could not {doing}: {reason}")]
    Away {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        reason: String,
    },
    /// It will not, whoever asks again.
    #[error(
        "the API server will not {doing}: {reason}; the role in deploy/cleaner.yaml has the rights that this takes"
    )]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
    /// The list has to be begun anew.
    #[error("the list has changed since its first page; begin anew")]
    Expired,
}

/// How it was with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// Its deletion is under way, or done.
    Deleted,
    /// It was not there any more (T98).
    Before,
    /// Another one has its name by now (T92).
    Another,
}

/// Which objects of which cluster.
pub(super) struct Cluster {
    pub(super) client: Client,
    /// None: all.
    pub(super) namespaces: Vec<String>,
    /// `cleaner.selector`.
    pub(super) selector: String,
}

impl Cluster {
    /// Lists that make up the whole: one a namespace.
    pub(super) fn scopes(&self) -> usize {
        self.namespaces.len().max(1)
    }

    /// A page of the marked objects of a scope, and the token of the next.
    pub(super) async fn page(
        &self,
        kind: Kind,
        scope: usize,
        token: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<Object>, Option<String>), Fault> {
        let mut parameters = ListParams::default().labels(&self.marked(EXECUTION_LABEL)).limit(limit);
        parameters.continue_token = token.map(str::to_owned);
        match kind {
            Kind::Pod => list(self.api::<v1::Pod>(scope), kind, &parameters).await,
            Kind::Script => list(self.api::<v1::ConfigMap>(scope), kind, &parameters).await,
        }
    }

    /// The marked objects of one execution.
    pub(super) async fn of_execution(&self, kind: Kind, execution_id: &str) -> Result<Vec<Object>, Fault> {
        let selector = self.marked(&format!("{EXECUTION_LABEL}={execution_id}"));
        let parameters = ListParams::default().labels(&selector).limit(PAGE);
        let mut found = Vec::new();
        for scope in 0..self.scopes() {
            let (objects, _) = match kind {
                Kind::Pod => list(self.api::<v1::Pod>(scope), kind, &parameters).await?,
                Kind::Script => list(self.api::<v1::ConfigMap>(scope), kind, &parameters).await?,
            };
            found.extend(objects);
        }
        Ok(found)
    }

    /// The pods beside this script that name its execution, whoever made them.
    pub(super) async fn pods_beside(&self, script: &Object, execution_id: &str) -> Result<Vec<Object>, Fault> {
        let pods = Api::<v1::Pod>::namespaced(self.client.clone(), &script.namespace);
        let parameters = ListParams::default().labels(&format!("{EXECUTION_LABEL}={execution_id}")).limit(PAGE);
        Ok(list(pods, Kind::Pod, &parameters).await?.0)
    }

    /// Has an object go, and no other of its name. Of a pod the intent is said first (T37); it gets its own grace period.
    pub(super) async fn remove(&self, object: &Object, cause: Cause) -> Result<Gone, Fault> {
        let namespace = &object.namespace;
        match object.kind {
            Kind::Pod => {
                let pods = Api::<v1::Pod>::namespaced(self.client.clone(), namespace);
                crash::at(crash::Point::Clean);
                if !object.annotations.contains_key(INTENT_ANNOTATION) {
                    let gone = say_intent(&pods, object, cause).await?;
                    if gone != Gone::Deleted {
                        return Ok(gone);
                    }
                    crash::at(crash::Point::Clean);
                }
                delete(&pods, object).await
            }
            Kind::Script => delete(&Api::<v1::ConfigMap>::namespaced(self.client.clone(), namespace), object).await,
        }
    }

    fn marked(&self, execution: &str) -> String {
        let mark: Vec<String> = MARK.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{},{execution},{}", mark.join(","), self.selector)
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, scope: usize) -> Api<K> {
        match self.namespaces.get(scope) {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// From the API server's own store: what a cache has is no reason to delete anything (T7, T99).
async fn list<K>(api: Api<K>, kind: Kind, parameters: &ListParams) -> Result<(Vec<Object>, Option<String>), Fault>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let doing = match kind {
        Kind::Pod => "list pods",
        Kind::Script => "list ConfigMaps",
    };
    let listed = asked(doing, api.list_metadata(parameters)).await?;
    let next = listed.metadata.continue_.filter(|token| !token.is_empty());
    let objects = listed.items.into_iter().map(|PartialObjectMeta { metadata, .. }| object(kind, metadata));
    Ok((objects.collect(), next))
}

async fn say_intent(pods: &Api<v1::Pod>, pod: &Object, cause: Cause) -> Result<Gone, Fault> {
    let intent = Intent::to_clean_up(cause.sentence(), NAME);
    let intent = serde_json::to_string(&intent).expect("an intent holds only strings");
    // A uid cannot be changed: of another pod of this name the patch is refused.
    let patch = Patch::Merge(json!({"metadata": {"uid": pod.uid, "annotations": {INTENT_ANNOTATION: intent}}}));
    let parameters = PatchParams::default();
    match asked("annotate a pod", pods.patch_metadata(&pod.name, &parameters, &patch)).await {
        Err(Refusal { code: 422, fault }) => {
            let there = asked("get a pod", pods.get_metadata_opt(&pod.name)).await?;
            match there.map(|there| there.metadata.uid) {
                None => Ok(Gone::Before),
                Some(uid) if uid.as_ref() != Some(&pod.uid) => Ok(Gone::Another),
                Some(_) => Err(fault),
            }
        }
        answer => gone(answer),
    }
}

async fn delete<K>(api: &Api<K>, object: &Object) -> Result<Gone, Fault>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let parameters = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(object.uid.clone()), ..Preconditions::default() }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    let doing = match object.kind {
        Kind::Pod => "delete a pod",
        Kind::Script => "delete a ConfigMap",
    };
    let deleted = gone(asked(doing, api.delete(&object.name, &parameters)).await);
    crash::at(crash::Point::Clean);
    deleted
}

/// What the API server said instead of doing it.
struct Refusal {
    code: u16,
    fault: Fault,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        refusal.fault
    }
}

fn gone<T>(answer: Result<T, Refusal>) -> Result<Gone, Fault> {
    match answer {
        Ok(_) => Ok(Gone::Deleted),
        Err(Refusal { code: 404, .. }) => Ok(Gone::Before),
        Err(Refusal { code: 409, .. }) => Ok(Gone::Another),
        Err(Refusal { fault, .. }) => Err(fault),
    }
}

async fn asked<T>(doing: &'static str, request: impl Future<Output = kube::Result<T>>) -> Result<T, Refusal> {
    let away = |reason| Fault::Away { doing, reason };
    let Ok(answer) = timeout(PATIENCE, request).await else {
        return Err(Refusal { code: 0, fault: away("it does not answer".to_owned()) });
    };
    answer.map_err(|error| {
        let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
        let reason = wording::of(&error);
        let fault = match code {
            410 => Fault::Expired,
            // A token that is being renewed, and a server that has too much to do.
            401 | 408 | 429 => away(reason),
            400..500 => Fault::Refused { doing, reason },
            _ => away(reason),
        };
        Refusal { code, fault }
    })
}

fn object(kind: Kind, metadata: ObjectMeta) -> Object {
    let owners = metadata.owner_references.unwrap_or_default();
    let another = owners.into_iter().find(|owner| match kind {
        Kind::Pod => owner.controller == Some(true),
        Kind::Script => owner.kind != "Pod",
    });
    Object {
        kind,
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default().into_iter().collect(),
        annotations: metadata.annotations.unwrap_or_default().into_iter().collect(),
        created: metadata.creation_timestamp.map(|time| time.0),
        is_leaving: metadata.deletion_timestamp.is_some(),
        belongs_to: another.map(|owner| format!("{} {}", owner.kind, owner.name)),
    }
}
