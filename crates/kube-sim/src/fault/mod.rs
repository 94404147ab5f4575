//! Faults on demand, on virtual time.
