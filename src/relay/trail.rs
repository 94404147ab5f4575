//! Where the journal stood when: by that a relay that follows another podherald's knows from where on it would have to carry.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::leadership::Carried;

/// Samples kept; of more, every other one goes.
const SAMPLES: usize = 4096;
/// Until what is new is counted as lag.
const MARGIN: Duration = Duration::from_secs(1);

/// Positions by time.
#[derive(Debug, Default)]
pub(super) struct Trail(VecDeque<(Instant, u64)>);

impl Trail {
    /// The journal stands here now.
    pub(super) fn note(&mut self, now: Instant, head: u64) {
        if self.0.len() >= SAMPLES {
            let mut is_kept = false;
            self.0.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.0.push_back((now, head));
    }

    /// Up to here the sink has all, by what its relay said, and that since then.
    pub(super) fn carried(&mut self, sink: &str, said: &Carried) -> Option<(Instant, u64)> {
        let lag = said.lag.get(sink)?;
        let complete = said.after?.checked_sub(*lag + MARGIN)?;
        let passed = self.0.iter().take_while(|(at, _)| *at <= complete).count();
        let last = self.0.drain(..passed).next_back()?;
        self.0.push_front(last);
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(after: Instant, lag: u64) -> Carried {
        Carried { after: Some(after), lag: [("one".to_owned(), Duration::from_secs(lag))].into() }
    }

    #[test]
    fn what_was_here_before_the_other_had_carried_all_need_not_be_carried_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut trail = Trail::default();
        for second in 0..10 {
            trail.note(at(100 + second), second);
        }
        assert_eq!(trail.carried("one", &said(at(108), 3)), Some((at(104), 4)));
        assert_eq!(trail.carried("one", &said(at(109), 3)), Some((at(105), 5)));
        assert_eq!(trail.carried("one", &said(at(109), 8)), None);
        assert_eq!(trail.carried("other", &said(at(109), 3)), None);
        assert_eq!(trail.carried("one", &Carried::default()), None);
    }

    #[test]
    fn a_long_trail_gets_coarse_and_never_says_too_much() {
        let start = Instant::now();
        let mut trail = Trail::default();
        for second in 0..3 * SAMPLES as u64 {
            trail.note(start + Duration::from_secs(second), second);
        }
        assert!(trail.0.len() <= SAMPLES);
        let (_, position) = trail.carried("one", &said(start + Duration::from_secs(1000), 0)).unwrap();
        assert!((900..=999).contains(&position), "{position}");
    }
}
