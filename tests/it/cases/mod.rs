//! Acceptance cases: what is told of a pod's life, in every order and with every interruption that the field has.

mod expect;
mod grammar;
mod own;
mod pure;
mod server;
mod variants;
