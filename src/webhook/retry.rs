//! What an answer means, and when to try again.

use std::time::Duration;

use http::StatusCode;
use jiff::{Timestamp, fmt::rfc2822};

use crate::jitter;

/// What an endpoint may ask for by `Retry-After` at most.
const LONGEST_ASKED: Duration = Duration::from_hours(1);
/// An event that is refused so often while the endpoint takes others is not taken for what it is, ...
const TRIES: u32 = 5;
/// ... and so often if nobody knows whether it would take any: it may be the endpoint after all.
const TRIES_WITHOUT_PROOF: u32 = 10;
/// Between tries of an event that is refused: what follows it waits as well, some seven minutes in all.
const LONGEST_FOR_ONE: Duration = Duration::from_mins(1);

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is done.
    Acknowledged,
    /// It does not want this event as it is.
    Refused,
    /// It wants no event ever again.
    Gone,
    /// It takes nothing now.
    Unable,
}

impl Meaning {
    /// For a metric.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Unable => "failed",
        }
    }
}

/// What this status means.
pub(super) fn meaning(status: StatusCode) -> Meaning {
    match status {
        status if status.is_success() => Meaning::Acknowledged,
        StatusCode::GONE => Meaning::Gone,
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::URI_TOO_LONG
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Meaning::Refused,
        _ => Meaning::Unable,
    }
}

/// True once an event that was refused so often can be left out.
pub(super) fn is_hopeless(refusals: u32, takes_others: bool) -> bool {
    refusals >= if takes_others { TRIES } else { TRIES_WITHOUT_PROOF }
}

/// The pause after so many failures in a row, from 1 on, the last of which means this, if the endpoint has asked for that
/// one.
pub(super) fn pause(schedule: &[Duration], failures: u32, meaning: Meaning, asked: Option<Duration>) -> Duration {
    let step = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    let own = schedule.get(step).or(schedule.last()).copied().unwrap_or_default();
    let pause = jitter::part_of(own, 0.8..=1.0).max(asked.unwrap_or_default().min(LONGEST_ASKED));
    if meaning == Meaning::Refused { pause.min(LONGEST_FOR_ONE) } else { pause }
}

/// `Retry-After`, in seconds or as a date.
pub(super) fn asked(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(date.duration_since(now).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_they_say() {
        for (statuses, expected) in [
            (&[200, 201, 202, 204][..], Meaning::Acknowledged),
            (&[400, 413, 414, 415, 422, 431], Meaning::Refused),
            (&[410], Meaning::Gone),
            (&[101, 301, 302, 307, 308, 401, 403, 404, 405, 408, 409, 429, 500, 502, 503, 504], Meaning::Unable),
        ] {
            for status in statuses {
                assert_eq!(StatusCode::from_u16(*status).map(meaning).ok(), Some(expected), "{status}");
            }
        }
    }

    #[test]
    fn pauses_follow_the_schedule_and_what_was_asked_within_bounds() {
        let seconds = Duration::from_secs;
        let schedule = [seconds(1), seconds(5), seconds(30)];
        for (failures, asked, longest) in
            [(1, None, 1), (2, None, 5), (3, None, 30), (4, None, 30), (u32::MAX, None, 30), (3, Some(2), 30)]
        {
            let pause = pause(&schedule, failures, Meaning::Unable, asked.map(seconds));
            assert!(pause >= seconds(longest).mul_f64(0.79) && pause <= seconds(longest), "{failures}: {pause:?}");
        }
        assert_eq!(pause(&schedule, 1, Meaning::Unable, Some(seconds(120))), seconds(120));
        assert_eq!(pause(&schedule, 1, Meaning::Unable, Some(seconds(86_400))), LONGEST_ASKED);
        assert!(pause(&schedule, 2, Meaning::Refused, None) <= seconds(5));
        assert_eq!(pause(&[seconds(1800)], 1, Meaning::Refused, None), LONGEST_FOR_ONE);
        assert_eq!(pause(&schedule, 1, Meaning::Refused, Some(seconds(3600))), LONGEST_FOR_ONE);
    }

    #[test]
    fn what_is_asked_is_a_number_or_a_date() {
        let now = Timestamp::from_second(1_800_000_000).unwrap_or_default();
        assert_eq!(asked("120", now), Some(Duration::from_secs(120)));
        assert_eq!(asked("Fri, 15 Jan 2027 08:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(asked("Fri, 15 Jan 2027 07:00:00 GMT", now), Some(Duration::ZERO), "that is over");
        for text in ["", "soon", "-1", "1.5"] {
            assert_eq!(asked(text, now), None, "{text}");
        }
    }

    #[test]
    fn an_event_is_given_up_sooner_if_others_are_taken() {
        assert!(!is_hopeless(4, true) && is_hopeless(5, true) && !is_hopeless(9, false) && is_hopeless(10, false));
    }
}
