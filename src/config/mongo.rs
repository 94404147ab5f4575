//! `[mongo]`: where results stay when several processes are to read them.

use std::{fmt, path::PathBuf, time::Duration};

use mongodb::options::ConnectionString;
use toml::Value as Toml;

use super::{
    Error,
    setting::settings,
    source::Effective,
    value::{Value, positive},
};

settings! {
    /// Whether and how a MongoDB is the store.
    pub struct Mongo in "mongo." {
        /// The servers, `mongodb://USER:PASSWORD@HOST:PORT/?OPTIONS` or `mongodb+srv://`; `off` for none. TLS is an option of it:
        /// `tls=true`, with `tlsCAFile` where no authority of Mozilla's list vouches for the servers. Writes wait for a majority
        /// and its disks, whatever the options say.
        /// `PODHERALD_MONGO__URI`, default `"off"`.
        uri: Option<MongoUri> = "off",
        /// A file that holds the URI, instead of `uri`.
        /// `PODHERALD_MONGO__URI_FILE`, default `"off"`.
        uri_file: Option<PathBuf> = "off",
        /// The database. Its user needs the roles `readWrite` and `dbAdmin` there.
        /// `PODHERALD_MONGO__DATABASE`, default `"podherald"`.
        database: Database = "podherald",
        /// Longest wait for a connection, and for the answer to a command.
        /// `PODHERALD_MONGO__TIMEOUT`, default `"10s"`.
        timeout: Duration = "10s",
        /// Whether all that is in the database is of the cluster that this monitor watches. Then it takes up, at its start, what is open there and
        /// unknown here (its data directory may be a new one), and ends those whose pods are gone.
        /// `PODHERALD_MONGO__ONE_CLUSTER`, default `false`.
        one_cluster: bool = false,
    }
}

impl Mongo {
    pub(super) fn validate(&self, effective: &Effective) -> Result<(), Error> {
        if self.uri.is_some() && self.uri_file.is_some() {
            return Err(effective.refuse("mongo.uri_file", "`off` while `mongo.uri` is set: only one of them counts"));
        }
        positive(effective, "mongo.timeout", self.timeout)
    }
}

/// What stands for a secret where a URI is shown.
const MASK: &str = "***";

/// Where a MongoDB is, and the password for it: shown without that.
#[derive(Clone, PartialEq, Eq)]
pub struct MongoUri(String);

impl MongoUri {
    /// Reads a connection string. None if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = ConnectionString::parse(text).ok()?;
        // The mask is what somebody copied from where the URI was shown.
        let is_masked = parsed.credential.and_then(|credential| credential.password).is_some_and(|word| word == MASK);
        (!is_masked).then(|| Self(text.to_owned()))
    }

    /// With the password.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The password alone, in the forms in which an error may repeat it.
    pub fn secrets(&self) -> Vec<String> {
        let meant = ConnectionString::parse(&self.0).ok().and_then(|parsed| parsed.credential?.password);
        let written = userinfo(&self.0).and_then(|(_, password, _)| password).map(str::to_owned);
        [written, meant].into_iter().flatten().filter(|secret| !secret.is_empty()).collect()
    }
}

/// What is before the password, the password, and what is after it.
fn userinfo(uri: &str) -> Option<(&str, Option<&str>, &str)> {
    let begin = uri.find("://")? + 3;
    let end = begin + uri[begin..].find(['/', '?']).unwrap_or(uri.len() - begin);
    let at = begin + uri[begin..end].rfind('@')?;
    Some(match uri[begin..at].split_once(':') {
        Some((user, password)) => (&uri[..begin + user.len()], Some(password), &uri[at..]),
        None => (&uri[..at], None, &uri[at..]),
    })
}

/// Options that hold secrets are shown without them.
fn mask_options(text: &str) -> String {
    let Some((before, options)) = text.split_once('?') else { return text.to_owned() };
    let mask = |option: &str| match option.split_once('=') {
        Some((name, _)) if name.to_lowercase().contains("password") || name == "authMechanismProperties" => {
            format!("{name}={MASK}")
        }
        _ => option.to_owned(),
    };
    let options: Vec<_> = options.split('&').map(mask).collect();
    format!("{before}?{}", options.join("&"))
}

impl fmt::Display for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match userinfo(&self.0) {
            Some((before, Some(_), after)) => write!(f, "{before}:{MASK}{}", mask_options(after)),
            _ => f.write_str(&mask_options(&self.0)),
        }
    }
}

impl fmt::Debug for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for MongoUri {
    fn expects() -> String {
        "a connection string such as `mongodb://localhost:27017` or `mongodb://USER:PASSWORD@mongo.example/?tls=true`, where \
         special characters of user and password are percent-encoded"
            .into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::parse(value.as_str()?)
    }

    /// Of what is no URI only the scheme is shown: nobody knows where in it a password may be.
    fn shown(value: &Toml) -> Toml {
        let Some(text) = value.as_str() else { return value.clone() };
        Toml::String(match (Self::parse(text), text.split_once("://")) {
            (Some(uri), _) => uri.to_string(),
            (None, Some((scheme, _))) => format!("{scheme}://{MASK}"),
            (None, None) => MASK.to_owned(),
        })
    }
}

/// The name of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database(String);

impl Database {
    /// Takes what MongoDB takes on every platform.
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed = |c: char| !c.is_whitespace() && !c.is_control() && !"/\\.\"$*<>:|?".contains(c);
        let is_own = !matches!(text, "admin" | "local" | "config");
        ((1..64).contains(&text.len()) && text.chars().all(is_allowed) && is_own).then(|| Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Database {
    fn expects() -> String {
        "a name of at most 63 bytes without spaces and any of /\\.\"$*<>:|?, and none of MongoDB's own (admin, local, config)".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::parse(value.as_str()?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_what_the_driver_takes() {
        for good in [
            "mongodb://localhost",
            "mongodb://one:27017,two:27018/?replicaSet=rs0&tls=true",
            "mongodb://app:s%40crt@[::1]:1/admin?authSource=admin",
            "mongodb+srv://app:pw@cluster.example/",
        ] {
            assert!(MongoUri::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "localhost:27017",
            "http://localhost",
            "mongodb://",
            "mongodb://host:port",
            "mongodb://app:p@ss@host",
            "mongodb://host/?tls=maybe",
            "mongodb://app:***@host",
        ] {
            assert_eq!(MongoUri::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let shown = |text: &str| MongoUri::shown(&Toml::String(text.to_owned())).as_str().unwrap().to_owned();
        for (text, expected) in [
            ("mongodb://app:s%40crt@host:1/?tls=true", "mongodb://app:***@host:1/?tls=true"),
            ("mongodb://host:1", "mongodb://host:1"),
            ("mongodb://app:s%40crt@", "mongodb://***"),
            ("http://app:s%40crt@host", "http://***"),
            ("app:s%40crt@host", "***"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(mask_options("@h/?a=b&proxyPassword=x"), "@h/?a=b&proxyPassword=***");
        let uri = MongoUri::parse("mongodb://app:s%40crt@host").unwrap();
        assert_eq!(format!("{uri} {uri:?}"), "mongodb://app:***@host mongodb://app:***@host");
        assert_eq!(uri.secrets(), ["s%40crt", "s@crt"]);
    }

    #[test]
    fn a_database_has_a_name_of_its_own() {
        assert!(Database::parse("lab_2").is_some());
        for bad in ["", "admin", "a b", "a.b", "a$b", "a/b", &"x".repeat(64)] {
            assert_eq!(Database::parse(bad), None, "{bad}");
        }
    }
}
