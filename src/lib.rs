//! podherald's server.

pub mod clock;
pub mod config;
pub mod health;
pub mod journal;
