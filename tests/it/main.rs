//! podherald from outside: what a user, a client or a cluster sees of it.

mod config;
