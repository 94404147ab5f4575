//! podherald's server.

pub mod health;
pub mod journal;
pub mod monitor;
pub mod output_store;
