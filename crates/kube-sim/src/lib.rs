//! A small Kubernetes: enough of its API for pods, their logs and what stands around them, a node that really runs the
//! containers as local processes, and faults on demand.
//!
//! In reading order: [`cluster`] holds the objects, their versions and their history; [`api`] is the Kubernetes API over
//! it, as a tower service under `kube::Client` or on a loopback port; [`node`] runs pods; [`fault`] breaks things.
//! It shares no belief with podherald: objects are plain JSON here, and nothing in here knows what an execution is. What both
//! read alike is [`quantity`].

pub mod api;
pub mod cluster;
pub mod fault;
pub mod logs;
pub mod node;
pub mod quantity;
pub mod tls;
