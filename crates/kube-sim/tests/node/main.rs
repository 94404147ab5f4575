//! A node that runs real processes, on the real clock: what a kubelet writes, and that nothing is ever left behind.

#![allow(clippy::unwrap_used)]

mod endings;
mod files;
mod limits;
mod logs;
mod order;
mod shapes;
mod sidecars;
mod survivors;
mod world;
