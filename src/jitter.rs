//! Randomness where callers must not all come at once.

use std::{cell::RefCell, ops::RangeInclusive, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

thread_local! {
    static DICE: RefCell<Dice> = RefCell::new(Dice::Random(Box::new(rand::make_rng())));
}

enum Dice {
    Random(Box<StdRng>),
    Seeded { seed: u64, since: Instant },
}

/// A random part of `whole`, between these two.
pub fn part_of(whole: Duration, parts: RangeInclusive<f64>) -> Duration {
    DICE.with_borrow_mut(|dice| whole.mul_f64(dice.throw(whole, parts)))
}

/// From now on this thread's parts follow from `seed`: a test on one thread can be run again. They depend on what is asked
/// when, not on who asks first, for tasks that wake in one moment run in any order.
pub fn seed(seed: u64) {
    DICE.with_borrow_mut(|dice| *dice = Dice::Seeded { seed, since: Instant::now() });
}

impl Dice {
    fn throw(&mut self, whole: Duration, parts: RangeInclusive<f64>) -> f64 {
        match self {
            Self::Random(random) => random.random_range(parts),
            Self::Seeded { seed, since } => {
                let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                let asked = nanoseconds(since.elapsed()).rotate_left(21) ^ nanoseconds(whole).rotate_left(42);
                StdRng::seed_from_u64(*seed ^ asked).random_range(parts)
            }
        }
    }
}
