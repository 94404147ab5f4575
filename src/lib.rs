//! podherald's server.

pub mod health;
pub mod journal;
