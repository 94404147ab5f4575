//! Query parameters: every one is known, and wrong ones are named.

use std::{str::FromStr, time::Duration};

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use podherald_core::execution::Status;

use super::{Error, cursor};

/// Items of a page unless `limit` says otherwise.
pub(super) const DEFAULT_LIMIT: usize = 50;
/// Items of a page at most.
pub(super) const MAX_LIMIT: usize = 500;
/// The longest `wait`.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);

const STATUSES: [Status; 8] = [
    Status::Pending,
    Status::Queued,
    Status::Scheduled,
    Status::Running,
    Status::Completed,
    Status::Failed,
    Status::Timeout,
    Status::Cancelled,
];

/// The query of a request, in its order. Handlers take out what they know; [`Parameters::finish`] refuses the rest.
pub(super) struct Parameters {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let Query(pairs) = Query::try_from_uri(&parts.uri)
            .map_err(|_| Error::invalid("query", "must be name=value pairs joined by &"))?;
        Ok(Self { pairs, known: Vec::new() })
    }
}

impl Parameters {
    /// All values of a parameter that may be repeated.
    pub(super) fn all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        self.pairs.extract_if(.., |(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// The value of a parameter that may be there once.
    pub(super) fn one(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        let mut values = self.all(name);
        if values.len() > 1 {
            return Err(Error::invalid(name, "may be given once"));
        }
        Ok(values.pop())
    }

    /// The value, read by `read`, which says what would be right.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        self.one(name)?.map(|value| read(&value).map_err(|reason| Error::invalid(name, reason))).transpose()
    }

    /// A whole number.
    pub(super) fn number(&mut self, name: &'static str) -> Result<Option<u64>, Error> {
        self.read(name, |text| {
            u64::from_str(text).map_err(|_| format!("must be a whole number from 0 on, not {text:?}"))
        })
    }

    /// A word that may not be empty.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        self.read(name, |text| text.parse().map_err(|_| format!("must be true or false, not {text:?}")))
    }

    pub(super) fn word(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        self.read(name, |text| if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) })
    }

    /// `limit`: items of a page.
    pub(super) fn limit(&mut self) -> Result<usize, Error> {
        let limit = self.read("limit", |text| {
            usize::from_str(text)
                .ok()
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or_else(|| format!("must be a whole number from 1 to {MAX_LIMIT}, not {text:?}"))
        })?;
        Ok(limit.unwrap_or(DEFAULT_LIMIT))
    }

    /// `after`: the cursor with which the page begins.
    pub(super) fn after<T>(&mut self, decode: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Error> {
        self.read("after", |text| decode(text).ok_or_else(|| cursor::EXPECTED.to_owned()))
    }

    /// `status`, repeated or joined by commas.
    pub(super) fn statuses(&mut self) -> Result<Vec<Status>, Error> {
        let values = self.all("status");
        let names = values.iter().flat_map(|value| value.split(','));
        let statuses: Result<Vec<_>, _> = names.map(status).collect();
        statuses.map_err(|reason| Error::invalid("status", reason))
    }

    /// `label`, each as key=value.
    pub(super) fn labels(&mut self) -> Result<Vec<(String, String)>, Error> {
        let pair = |text: String| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Error::invalid("label", format!("must be key=value, like app=executor, not {text:?}"))),
        };
        self.all("label").into_iter().map(pair).collect()
    }

    /// `wait`: how long to hold.
    pub(super) fn wait(&mut self) -> Result<Option<Duration>, Error> {
        self.read("wait", |text| {
            duration(text)
                .filter(|wait| *wait <= MAX_WAIT)
                .ok_or_else(|| format!("must be a duration of at most 60s, like 30s or 500ms, not {text:?}"))
        })
    }

    /// Refuses what nobody has asked for.
    pub(super) fn finish(self) -> Result<(), Error> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let reason = if self.known.is_empty() {
            "is no parameter here; there is none".to_owned()
        } else {
            format!("is no parameter here; what may be asked for is {}", self.known.join(", "))
        };
        Err(Error::invalid(name, reason))
    }
}

fn status(name: &str) -> Result<Status, String> {
    STATUSES
        .into_iter()
        .find(|status| status.as_str() == name)
        .ok_or_else(|| format!("must be one of {}, not {name:?}", STATUSES.map(Status::as_str).join(", ")))
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Parameters { pairs, known: Vec::new() }
    }

    fn wait(text: &str) -> Result<Option<Duration>, Error> {
        parameters(&[("wait", text)]).wait()
    }

    #[test]
    fn waits_have_a_unit_and_a_bound() {
        assert_eq!(wait("30s"), Ok(Some(Duration::from_secs(30))));
        assert_eq!(wait("250ms"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(wait("1m"), Ok(Some(MAX_WAIT)));
        for text in ["", "30", "s", "-1s", "61s", "2m", "1h", "1.5s", "18446744073709551615m", "99999999999999999999s"]
        {
            let error = wait(text).unwrap_err();
            assert!(matches!(&error, Error::Invalid { parameter, .. } if parameter == "wait"), "{text}: {error:?}");
        }
    }

    #[test]
    fn statuses_come_repeated_or_joined() {
        let mut given = parameters(&[("status", "failed,timeout"), ("x", "y"), ("status", "running")]);
        assert_eq!(given.statuses(), Ok(vec![Status::Failed, Status::Timeout, Status::Running]));
        assert!(parameters(&[("status", "failed,")]).statuses().is_err());
    }

    #[test]
    fn what_nobody_knows_is_named_with_what_there_is() {
        let mut given = parameters(&[("limit", "7"), ("limt", "8")]);
        assert_eq!(given.limit(), Ok(7));
        let Err(Error::Invalid { parameter, reason }) = given.finish() else { panic!() };
        assert_eq!(
            (parameter.as_str(), reason.as_str()),
            ("limt", "is no parameter here; what may be asked for is limit")
        );
    }

    #[test]
    fn a_single_parameter_is_given_once() {
        assert!(parameters(&[("limit", "7"), ("limit", "8")]).limit().is_err());
        for limit in ["0", "501", "-1", "ten"] {
            assert!(parameters(&[("limit", limit)]).limit().is_err(), "{limit}");
        }
    }
}
