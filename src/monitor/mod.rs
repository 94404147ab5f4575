//! The spine: from the cluster's frames to durable events.

pub mod collector;
