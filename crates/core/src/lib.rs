//! podherald's decisions, without any doing: no clock, no randomness, no file, no network.
//!
//! In reading order: [`pod`] is what is seen, [`evidence`] what is kept of it, [`mapper`] turns the one into the other
//! and into [`event`]s, `cause` says why an attempt ended, [`silence`] what follows where nothing is heard of it, [`output`] reads a log as it streams by, and [`execution`]
//! folds it all into what a user asks for. [`evaluation`] says an event in the words of older systems, [`cloud_event`] in
//! those of CloudEvents; [`gap`] says what is missing; [`told`] is what another monitor was faster with; [`about`] which pod an event is about; [`expected`] what a monitor takes up that has lost its records; [`hold`] keeps a pod until its end is told; [`topic`] knows where it is published.

pub mod about;
mod cause;
pub mod cloud_event;
pub mod evaluation;
pub mod event;
pub mod evidence;
pub mod execution;
pub mod expected;
pub mod gap;
pub mod hold;
pub mod identity;
pub mod job;
pub mod mapper;
mod merge;
pub mod output;
pub mod pod;
pub mod silence;
pub mod time;
pub mod told;
pub mod topic;
