//! Who may call a podherald that asks nobody for a password.
//!
//! On loopback only this machine can connect, but a browser on it can be made to: a foreign page may send requests, and
//! a foreign name may be pointed at 127.0.0.1. Hence Host must name loopback, and Origin the same host. Beyond loopback a foreign
//! page may still change nothing: whatever is not a mere reading must come from the same host, or from no page at all.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, Uri, header, uri::Authority};

use super::Error;

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// This machine; Host and Origin are checked.
    Loopback,
    /// Whoever can connect: the operator said so.
    Anybody,
}

/// A listener that would let in everybody although nobody allowed that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "http.listen = {0} can be reached from other machines and podherald does not ask who is calling: listen on a loopback \
     address such as 127.0.0.1:8080, or set http.allow_unauthenticated = true as well"
)]
pub struct Exposed(pub SocketAddr);

impl Access {
    /// The access that a listener on this address gives.
    ///
    /// # Errors
    /// [`Exposed`] if the address is beyond loopback and `allow_unauthenticated` is false.
    pub fn of(listener: SocketAddr, allow_unauthenticated: bool) -> Result<Self, Exposed> {
        match (is_loopback(listener.ip()), allow_unauthenticated) {
            (true, _) => Ok(Self::Loopback),
            (false, true) => Ok(Self::Anybody),
            (false, false) => Err(Exposed(listener)),
        }
    }

    /// # Errors
    /// [`Error::Forbidden`] that says which header is wrong and what would be right.
    pub(super) fn check(self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
        if self == Self::Anybody && method.is_safe() {
            return Ok(());
        }
        let host = one(headers, header::HOST, "Host")?.or(uri.authority().map(Authority::as_str));
        let Some(host) = host else {
            return Err(Error::Forbidden("the Host header is missing"));
        };
        let is_loopback =
            names_loopback(host) && uri.authority().is_none_or(|authority| names_loopback(authority.as_str()));
        if self == Self::Loopback && !is_loopback {
            return Err(Error::Forbidden("Host must be localhost, 127.0.0.1 or [::1], with any port"));
        }
        match one(headers, header::ORIGIN, "Origin")? {
            // Beyond loopback somebody in between may speak TLS.
            Some(origin) if !is_same(origin, host, self == Self::Anybody) => {
                Err(Error::Forbidden("Origin must be absent or this server's own: pages of other sites may not call"))
            }
            _ => Ok(()),
        }
    }
}

/// The header's only value; two would let the checked one differ from the one that somebody else reads.
fn one<'a>(headers: &'a HeaderMap, name: header::HeaderName, shown: &'static str) -> Result<Option<&'a str>, Error> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) if value.to_str().is_ok() => Ok(value.to_str().ok()),
        _ if shown == "Host" => Err(Error::Forbidden("the Host header must be there once, in ASCII")),
        _ => Err(Error::Forbidden("the Origin header must be there at most once, in ASCII")),
    }
}

fn names_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_loopback)
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn is_same(origin: &str, host: &str, or_tls: bool) -> bool {
    let of_tls = origin.strip_prefix("https://").filter(|_| or_tls);
    origin.strip_prefix("http://").or(of_tls).is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::HeaderValue;

    use super::*;

    fn check(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        Access::Loopback.check(&Method::GET, &Uri::from_static("/executions"), &headers).is_ok()
    }

    #[test]
    fn only_names_of_loopback_pass_as_host() {
        for host in
            ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "127.9.8.7", "[::1]:80", "[::1]", "[::ffff:127.0.0.1]"]
        {
            assert!(check(host, None), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "127.0.0.1.nip.io", "10.0.0.1", "[::2]", "a@localhost", ""]
        {
            assert!(!check(host, None), "{host}");
        }
    }

    #[test]
    fn an_origin_must_be_the_host_itself() {
        assert!(check("localhost:8080", Some("http://localhost:8080")));
        for origin in ["http://localhost:8081", "https://localhost:8080", "http://evil.example", "null", ""] {
            assert!(!check("localhost:8080", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn beyond_loopback_a_page_of_another_host_may_read_and_change_nothing() {
        let check = |method: Method, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("herald.example"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            Access::Anybody.check(&method, &Uri::from_static("/"), &headers).is_ok()
        };
        assert!(check(Method::GET, Some("https://evil.example")));
        for origin in [None, Some("http://herald.example"), Some("https://herald.example")] {
            assert!(check(Method::POST, origin), "{origin:?}");
        }
        for origin in ["https://evil.example", "null", "https://herald.example:8443", "ftp://herald.example"] {
            assert!(!check(Method::POST, Some(origin)), "{origin}");
        }
    }

    #[test]
    fn two_hosts_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        headers.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(Access::Loopback.check(&Method::GET, &Uri::from_static("/"), &headers).is_err());
    }

    #[test]
    fn a_listener_beyond_loopback_needs_a_word() {
        let open: SocketAddr = "0.0.0.0:80".parse().unwrap();
        let text = Access::of(open, false).unwrap_err().to_string();
        assert!(
            text.contains("http.listen = 0.0.0.0:80") && text.contains("http.allow_unauthenticated = true"),
            "{text}"
        );
        assert_eq!(Access::of(open, true), Ok(Access::Anybody));
        assert_eq!(Access::of("127.0.0.1:0".parse().unwrap(), false), Ok(Access::Loopback));
    }
}
