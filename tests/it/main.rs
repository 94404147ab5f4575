//! podherald from outside: what a user, a client or a cluster sees of it.

#![allow(clippy::unwrap_used)]
#![allow(clippy::needless_pass_by_value, reason = "JSON is written where it is used")]

mod bad_input;
mod behaviours;
mod blobs;
mod cases;
mod cleaner;
mod config;
mod contract;
mod credentials;
mod faulty_journal;
#[path = "../real/herald.rs"]
mod herald;
mod hold;
mod inside;
mod jobs;
mod leadership;
mod limits;
mod live;
mod logs;
mod odd_server;
mod pods;
mod process;
mod results;
mod rules;
#[path = "../../src/blob/s3_server.rs"]
mod s3_server;
mod scripted_api;
mod shipped;
mod silence;
mod size;
mod stale;
mod walk;
mod watch;
mod webhooks;
mod world;

// Its counters say how much was asked for (size.rs).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
