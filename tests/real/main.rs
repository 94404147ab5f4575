//! podherald, the program, beside a real API server, KWOK and a real node, under its own role.
//!
//! `tests/real.sh` starts what is needed and runs this. Without it every test fails: nothing passes by being skipped.

#![allow(clippy::unwrap_used)]

mod behaviours;
mod cleaner;
mod cluster;
mod conformance;
mod crash;
mod faults;
mod full_disk;
mod herald;
mod hold;
mod inbox;
mod jobs;
mod kafka;
mod limits;
mod lives;
mod load;
mod node;
mod outages;
mod proxy;
mod publisher;
mod readers;
mod results;
mod silence;
mod sink;
mod soak;
mod store;
mod turns;
