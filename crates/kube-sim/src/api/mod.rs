//! The Kubernetes API over a cluster.
