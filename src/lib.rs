//! podherald's server.

pub mod health;
pub mod http;
pub mod journal;
