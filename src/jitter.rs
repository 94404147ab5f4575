//! Randomness where callers must not all come at once.

use std::{cell::RefCell, ops::RangeInclusive, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

thread_local! {
    static DICE: RefCell<StdRng> = RefCell::new(rand::make_rng());
}

/// A random part of `whole`, between these two.
pub fn part_of(whole: Duration, parts: RangeInclusive<f64>) -> Duration {
    DICE.with_borrow_mut(|dice| whole.mul_f64(dice.random_range(parts)))
}

/// From now on this thread's parts follow from `seed`: a test on one thread can be run again.
pub fn seed(seed: u64) {
    DICE.with_borrow_mut(|dice| *dice = StdRng::seed_from_u64(seed));
}
