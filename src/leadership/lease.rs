//! What a Lease says, and who may take it. Times are those at which something was seen here: no clock of another machine counts.

use std::time::Duration;

use tokio::time::Instant;

/// What a Lease says of its holder, as far as it decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// Who holds it; none if it was given back.
    pub(super) holder: Option<String>,
    /// For how long without a renewal.
    pub(super) duration: Duration,
    /// When it was last renewed, by the holder's clock: only a change of it says something.
    pub(super) renewed: Option<String>,
    /// How often it has changed hands.
    pub(super) transitions: i32,
}

/// A claim, and since when it is known to be as it is.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) claim: Claim,
    pub(super) since: Instant,
    /// When the look before was begun, which showed another: it was made after that.
    pub(super) made_after: Option<Instant>,
    /// When the latest look was begun.
    looked: Instant,
}

impl Observed {
    /// The first look, begun at `asked` and answered now.
    pub(super) fn first(claim: Claim, asked: Instant, now: Instant) -> Self {
        Self { claim, since: now, made_after: None, looked: asked }
    }

    /// A further look. True if the claim has changed.
    pub(super) fn look(&mut self, claim: Claim, asked: Instant, now: Instant) -> bool {
        let is_news = self.claim != claim;
        if is_news {
            *self = Self { claim, since: now, made_after: Some(self.looked), looked: asked };
        }
        self.looked = asked;
        is_news
    }

    /// True if `me` may take or renew it.
    pub(super) fn may_be_taken(&self, me: &str, now: Instant) -> bool {
        match &self.claim.holder {
            Some(holder) if holder != me => now >= self.since + self.claim.duration,
            Some(_) | None => true,
        }
    }
}

/// From a renewal that was asked for at `asked` on: until when its holder may rely on it. Everybody else waits longer, and
/// from a later time on.
pub(super) fn reliable_until(asked: Instant, duration: Duration) -> Instant {
    asked + duration * 2 / 3
}

/// Between two renewals, or two looks.
pub(super) fn interval(duration: Duration) -> Duration {
    duration / 5
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn claim(holder: Option<&str>, renewed: &str) -> Claim {
        Claim {
            holder: holder.map(str::to_owned),
            duration: DURATION,
            renewed: Some(renewed.to_owned()),
            transitions: 0,
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_stood_still_for_its_time_before_our_eyes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // However long ago its holder's clock says that was.
        let mut observed = Observed::first(claim(Some("other"), "1970"), at(0), at(1));
        assert!(!observed.may_be_taken("me", at(15)));
        assert!(observed.look(claim(Some("other"), "1971"), at(15), at(15)));
        assert!(!observed.look(claim(Some("other"), "1971"), at(29), at(29)));
        assert!(!observed.may_be_taken("me", at(29)));
        assert!(observed.may_be_taken("me", at(30)));
        assert!(observed.may_be_taken("other", at(16)));
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let now = Instant::now();
        assert!(Observed::first(claim(None, "1970"), now, now).may_be_taken("me", now));
    }

    #[test]
    fn what_has_changed_was_written_after_the_look_that_did_not_show_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut observed = Observed::first(claim(Some("other"), "1"), at(0), at(1));
        observed.look(claim(Some("other"), "1"), at(3), at(4));
        observed.look(claim(Some("other"), "2"), at(6), at(7));
        assert_eq!(observed.made_after, Some(at(3)));
        assert_eq!(observed.since, at(7));
    }

    #[test]
    fn the_holder_lets_go_before_anybody_may_take_it() {
        let renewed = Instant::now();
        let seen = renewed;
        assert!(reliable_until(renewed, DURATION) + interval(DURATION) < seen + DURATION);
    }
}
