//! What the world asks of podherald: REST and server-sent events over HTTP/1.1.
//!
//! [`serve`] owns the listener and its connections, [`router`] the routes; a handler reads its parameters
//! (`query`), asks the journal (or, for what was before it, the store, and for what only the monitor has, `elsewhere`), and answers with JSON or an [`Error`]. Event streams are bodies that follow the
//! journal (`stream`): the path from a commit to the socket is one wake-up and one write of shared bytes. Nothing
//! in here writes the journal or knows Kubernetes; all that can be changed is how webhooks stand.

mod access;
mod audit;
mod cleanup;
mod cursor;
mod dead_letters;
mod elsewhere;
mod error;
mod events;
mod executions;
mod frame;
mod health;
mod kept;
mod lines;
mod metrics;
mod negotiate;
mod openapi;
mod options;
mod output;
mod page;
mod pods;
mod query;
mod range;
mod results;
mod resume;
mod router;
mod seats;
mod server;
mod socket;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod webhooks;

pub use access::{Access, Exposed};
pub use elsewhere::Monitor;
pub use error::{Error, Problem};
pub use metrics::Metrics;
pub use openapi::document as openapi_document;
pub use options::Options;
pub use router::router;
pub use seats::Seats;
pub use server::{serve, stand_by};
pub use state::State;
