//! What comes off the wire, whatever its kind.

use std::{borrow::Cow, fmt::Debug, sync::LazyLock};

use jiff::Timestamp;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use podherald_core::identity::Marked;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

/// The few fields of one kind that decide.
pub trait Facts: Marked + Clone + Debug + Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// `kind`.
    const KIND: &'static str;
    /// Its group; empty for the core's.
    const GROUP: &'static str;
    /// The kind's name in paths.
    const PLURAL: &'static str;

    /// `metadata.creationTimestamp`.
    fn created(&self) -> Option<Timestamp>;

    /// Reads an object leniently.
    ///
    /// # Errors
    /// Only if it is no JSON.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Object<Self>, D::Error>;
}

/// An object with the few fields that decide.
#[derive(Debug, Clone, Default)]
pub struct Object<F> {
    pub(super) meta: Meta,
    /// What the object says; none if it lacks a name, namespace or uid.
    pub facts: Option<F>,
    /// Fields that were there and could not be read.
    pub malformed: Vec<&'static str>,
}

impl<F> Object<F> {
    /// One that kube has passed on.
    pub fn of(facts: Option<F>, malformed: Vec<&'static str>) -> Self {
        Self { meta: Meta::default(), facts, malformed }
    }
}

impl<F> From<F> for Object<F> {
    fn from(facts: F) -> Self {
        Self::of(Some(facts), Vec::new())
    }
}

impl<'de, F: Facts> Deserialize<'de> for Object<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        F::read(deserializer)
    }
}

impl<F: Facts> kube::Resource for Object<F> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        F::KIND.into()
    }
    fn group((): &()) -> Cow<'_, str> {
        F::GROUP.into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        F::PLURAL.into()
    }
    fn meta(&self) -> &ObjectMeta {
        self.meta.get()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.meta.get_mut()
    }
}

/// What kube's watcher has to know of an object, until it has passed it on.
#[derive(Debug, Clone, Default)]
pub(super) struct Meta(Option<Box<ObjectMeta>>);

static FORGOTTEN: LazyLock<ObjectMeta> = LazyLock::new(ObjectMeta::default);

impl Meta {
    pub(super) fn of([name, namespace, uid]: [&Option<String>; 3], resource_version: Option<String>) -> Self {
        Self(Some(Box::new(ObjectMeta {
            name: name.clone(),
            namespace: namespace.clone(),
            uid: uid.clone(),
            resource_version,
            ..ObjectMeta::default()
        })))
    }

    pub(super) fn get(&self) -> &ObjectMeta {
        self.0.as_deref().unwrap_or(&FORGOTTEN)
    }

    fn get_mut(&mut self) -> &mut ObjectMeta {
        self.0.get_or_insert_default()
    }
}
