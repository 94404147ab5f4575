//! Where a webhook is, and what of that nobody may see.

use std::fmt;

use http::Uri;
use toml::Value as Toml;

use super::value::{MASK, Value, shown_url};

/// A part of a URL that is shorter is no secret, and is in every other word.
const SHORTEST_SECRET: usize = 4;

/// An endpoint: shown without its path and query, for either may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Uri);

impl WebhookUrl {
    /// Reads `https://` or `http://`, a host, and a path and query that may follow. None if it is no such URL.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority()?;
        let host = authority.host();
        let port = authority.as_str().strip_prefix(host)?;
        let is_port = port.is_empty() || port.strip_prefix(':')?.parse::<u16>().is_ok_and(|port| port != 0);
        // The mask is what somebody copied from where the URL was shown.
        let is_masked = uri.path().strip_prefix('/') == Some(MASK) || uri.query() == Some(MASK);
        let is_whole = !host.is_empty() && is_port && !is_masked;
        (is_web && is_whole && !text.contains('#')).then_some(Self(uri))
    }

    /// All of it.
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Path and query, whole and in parts, as they are written and as they are meant: what an answer must not be quoted with.
    /// The longest come first.
    pub fn secrets(&self) -> Vec<String> {
        let (path, query) = (self.0.path(), self.0.query().unwrap_or_default());
        let values = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
        let parts = path.split('/').chain(values);
        let parts = parts.chain([path]).filter(|part| part.chars().count() >= SHORTEST_SECRET);
        let whole = self.0.path_and_query().map(|whole| whole.as_str()).filter(|_| !query.is_empty());
        let written: Vec<&str> = parts.chain([query]).chain(whole).filter(|part| !part.is_empty()).collect();
        let meant = |part: &&str| [percent_decoded(part), percent_decoded(&part.replace('+', " "))];
        let mut secrets: Vec<String> = written.iter().flat_map(meant).collect();
        secrets.extend(written.iter().map(|part| (*part).to_owned()));
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        secrets
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

/// What is no `%` and two digits stays.
pub(crate) fn percent_decoded(text: &str) -> String {
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let byte = match tail {
            [high, low, ..] if *first == b'%' => hexadecimal(*high).zip(hexadecimal(*low)).map(|(a, b)| a << 4 | b),
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| digit.try_into().ok())
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.0.scheme_str().unwrap_or_default(), self.0.authority());
        write!(f, "{scheme}://{}/", authority.map_or("", |authority| authority.as_str()))?;
        if self.0.path().len() > 1 || self.0.query().is_some() { f.write_str(MASK) } else { Ok(()) }
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for WebhookUrl {
    fn expects() -> String {
        "a URL such as `https://hooks.example/podherald`, without user, password and fragment".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::parse(value.as_str()?)
    }

    fn shown(value: &Toml) -> Toml {
        shown_url::<Self>(value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_one_of_the_web_without_a_user() {
        for good in ["https://a", "http://a:81/x?y=z", "https://[::1]:8/", "https://127.0.0.1"] {
            assert!(WebhookUrl::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "a",
            "/x",
            "ftp://a",
            "https://",
            "https://u@a",
            "https://u:p@a",
            "https://a#x",
            "https://a:0",
            "https://a:99999",
            "https://a:",
            "https://a/x?***",
            "https://a/***",
            "https://exämple",
        ] {
            assert_eq!(WebhookUrl::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn of_a_url_only_the_host_is_shown() {
        for (text, expected) in [
            ("https://a:81", "https://a:81/"),
            ("https://a/", "https://a/"),
            ("https://a/s3cret", "https://a/***"),
            ("http://a?s3cret", "http://a/***"),
            ("http://a/x?k=s3cret", "http://a/***"),
            ("http://u:s3cret@a", "http://***"),
            ("s3cret", "***"),
            ("https:s3cret://a", "***"),
        ] {
            assert_eq!(WebhookUrl::shown(&Toml::String(text.to_owned())).as_str(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_secret_is_each_part_of_path_and_query_as_it_is_written_and_meant() {
        let secrets = WebhookUrl::parse("https://a/v1/T%2fAB?key=s%20+cr%C3%A9t%&x=1&bare").unwrap().secrets();
        for expected in ["/v1/T%2fAB", "T%2fAB", "T/AB", "s%20+cr%C3%A9t%", "s +crét%", "s  crét%", "bare"] {
            assert!(secrets.iter().any(|secret| secret == expected), "{expected}: {secrets:?}");
        }
        assert_eq!(secrets[0], "/v1/T%2fAB?key=s%20+cr%C3%A9t%&x=1&bare");
        assert!(!secrets.iter().any(|secret| ["v1", "1", ""].contains(&secret.as_str())), "{secrets:?}");
    }
}
