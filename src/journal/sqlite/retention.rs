//! Takes away what is too old or too much.
