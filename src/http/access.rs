//! Who may call a podherald that asks nobody for a password.
//!
//! On loopback only this machine can connect, but a browser on it can be made to: a foreign page may send requests, and
//! a foreign name may be pointed at 127.0.0.1. Hence Host must name loopback, and Origin the same host. Beyond loopback whoever
//! connects may read. A foreign page may still change nothing: whatever is not a mere reading must come from the same host, or from
//! no page at all. A foreign name can be pointed at any address, and then the page's Origin is the Host; so that must be a name that
//! nobody else can give: an address, or one that the operator has told.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, Method, Uri, header, uri::Authority};

use super::Error;

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// This machine; Host and Origin are checked.
    Loopback,
    /// Whoever can connect: the operator said so.
    Anybody {
        /// Names under which something may be changed.
        hosts: Arc<[String]>,
    },
}

/// A listener that would let in everybody although nobody allowed that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "http.listen = {0} can be reached from other machines and podherald does not ask who is calling: listen on a loopback \
     address such as 127.0.0.1:8080, or set http.allow_unauthenticated = true as well"
)]
pub struct Exposed(pub SocketAddr);

impl Access {
    /// The access that a listener on this address gives, where it goes by these names.
    ///
    /// # Errors
    /// [`Exposed`] if the address is beyond loopback and `allow_unauthenticated` is false.
    pub fn of(listener: SocketAddr, allow_unauthenticated: bool, hosts: &[String]) -> Result<Self, Exposed> {
        match (is_loopback(listener.ip()), allow_unauthenticated) {
            (true, _) => Ok(Self::Loopback),
            (false, true) => Ok(Self::Anybody { hosts: hosts.into() }),
            (false, false) => Err(Exposed(listener)),
        }
    }

    /// # Errors
    /// [`Error::Forbidden`] that says which header is wrong and what would be right.
    pub(super) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
        let is_open = *self != Self::Loopback;
        if is_open && method.is_safe() {
            return Ok(());
        }
        let host = one(headers, header::HOST, "Host")?.or(uri.authority().map(Authority::as_str));
        let Some(host) = host else {
            return Err(Error::Forbidden("the Host header is missing"));
        };
        if !self.knows(host) || uri.authority().is_some_and(|authority| !self.knows(authority.as_str())) {
            return Err(Error::Forbidden(match self {
                Self::Loopback => "Host must be localhost, 127.0.0.1 or [::1], with any port",
                Self::Anybody { .. } => {
                    "Host must be an IP address, localhost or a name in http.hosts, with any port: a page can point any other \
                     name here"
                }
            }));
        }
        match one(headers, header::ORIGIN, "Origin")? {
            // Beyond loopback somebody in between may speak TLS.
            Some(origin) if !is_same(origin, host, is_open) => {
                Err(Error::Forbidden("Origin must be absent or this server's own: pages of other sites may not call"))
            }
            _ => Ok(()),
        }
    }

    /// True if this Host is no name that somebody else may have given to this server's address.
    fn knows(&self, host: &str) -> bool {
        let Some(name) = name(host) else { return false };
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name).parse::<IpAddr>();
        match self {
            Self::Loopback => address.is_ok_and(is_loopback),
            Self::Anybody { hosts } => {
                address.is_ok() || hosts.iter().any(|host| host.as_str().eq_ignore_ascii_case(&name))
            }
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

/// Without the port. None where there is a user too, or what is no host.
fn name(host: &str) -> Option<String> {
    let authority = host.parse::<Authority>().ok()?;
    (!authority.as_str().contains('@')).then(|| authority.host().to_owned())
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
    fn beyond_loopback_all_may_read_and_only_who_calls_it_by_a_name_of_its_own_and_no_foreign_page_may_change() {
        let hosts = ["herald.example", "podherald"].map(str::to_owned);
        let access = Access::of("0.0.0.0:80".parse().unwrap(), true, &hosts).unwrap();
        let check = |method: Method, uri: &'static str, host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            access.check(&method, &Uri::from_static(uri), &headers).is_ok()
        };
        for (host, origin, may_change) in [
            // Scripts.
            ("10.1.2.3:8080", None, true),
            ("[2001:db8::1]", None, true),
            ("localhost:8080", None, true),
            ("herald.example", None, true),
            ("Herald.Example:8443", None, true),
            ("podherald", None, true),
            // Its own pages, with somebody in between who speaks TLS or without.
            ("herald.example", Some("https://herald.example"), true),
            ("herald.example", Some("http://herald.example"), true),
            ("10.1.2.3:8080", Some("http://10.1.2.3:8080"), true),
            // Pages of others.
            ("herald.example", Some("https://evil.example"), false),
            ("herald.example", Some("null"), false),
            ("herald.example", Some("https://herald.example:8443"), false),
            ("herald.example", Some("ftp://herald.example"), false),
            // Names of others that are pointed here: Origin and Host are the same.
            ("evil.example", Some("http://evil.example"), false),
            ("evil.example:8080", Some("http://evil.example:8080"), false),
            ("herald.example.evil.example", Some("http://herald.example.evil.example"), false),
            ("10.1.2.3.nip.io", Some("http://10.1.2.3.nip.io"), false),
            ("evil.example", None, false),
            ("a@herald.example", None, false),
            ("", None, false),
        ] {
            for method in [Method::POST, Method::PUT, Method::DELETE] {
                assert_eq!(check(method, "/", host, origin), may_change, "{host:?} {origin:?}");
            }
            assert!(check(Method::GET, "/", host, origin), "{host:?} {origin:?}");
        }
        assert!(!check(Method::POST, "http://evil.example/", "herald.example", None));
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
        let text = Access::of(open, false, &[]).unwrap_err().to_string();
        assert!(
            text.contains("http.listen = 0.0.0.0:80") && text.contains("http.allow_unauthenticated = true"),
            "{text}"
        );
        assert_eq!(Access::of(open, true, &[]), Ok(Access::Anybody { hosts: Arc::default() }));
        assert_eq!(Access::of("127.0.0.1:0".parse().unwrap(), false, &[]), Ok(Access::Loopback));
    }
}
