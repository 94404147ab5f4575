//! What breaks such programs in the field, held against the mapper. The T-numbers are those of docs/TRAPS.md.
#![allow(clippy::unwrap_used, missing_docs)]

mod causes;
mod life;
mod lives;
