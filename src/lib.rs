//! podherald's server.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crash;
pub mod explain;
pub mod health;
pub mod http;
pub mod journal;
pub mod lock;
pub mod monitor;
pub mod output_store;
pub mod retention;
pub mod supervisor;
pub mod telemetry;
pub mod wording;
