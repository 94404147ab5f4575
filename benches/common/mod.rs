//! What the benches that start podherald share: it as a process, and pods on its embedded cluster.

#![allow(dead_code, reason = "written for two benches, of which each uses its part")]

pub(crate) mod pods;
pub(crate) mod process;
