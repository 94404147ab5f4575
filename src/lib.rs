//! podherald's server.

pub mod clock;
pub mod config;
pub mod crash;
pub mod health;
pub mod journal;
pub mod monitor;
