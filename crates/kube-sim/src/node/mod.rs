//! A node that runs containers as local process groups.
