//! `[blob]`: where output goes that events do not hold.

use std::{fmt, path::PathBuf, time::Duration};

use http::Uri;
use toml::Value as Toml;

use super::{
    Error,
    setting::settings,
    source::Effective,
    value::{Value, positive},
};

settings! {
    /// Whether and how output goes to a store that others can read.
    pub struct Blob in "blob." {
        /// Where output goes that an event does not hold, before the event that names it: a directory that is shared,
        /// `file:///DIRECTORY`, or an S3-compatible store, `s3://BUCKET/PREFIX`; `off` keeps it in the data directory only.
        /// `PODHERALD_BLOB__URL`, default `"off"`.
        url: Option<BlobUrl> = "off",
        /// The address of an S3-compatible store that is not Amazon's, such as `https://minio.example:9000`.
        /// `PODHERALD_BLOB__ENDPOINT`, default `"off"`.
        endpoint: Option<Endpoint> = "off",
        /// The region of the bucket; `off` takes that of `AWS_REGION`, or else `us-east-1`.
        /// `PODHERALD_BLOB__REGION`, default `"off"`.
        region: Option<Region> = "off",
        /// A file of credentials as AWS tools have it, of which the profile `default` counts, read again for each request; `off`
        /// takes what the environment says: `AWS_ACCESS_KEY_ID` and so on, a web identity, the container's or the machine's role.
        /// `PODHERALD_BLOB__CREDENTIALS_FILE`, default `"off"`.
        credentials_file: Option<PathBuf> = "off",
        /// A PEM file with the authorities that may vouch for the store, instead of the system's.
        /// `PODHERALD_BLOB__CA_FILE`, default `"off"`.
        ca_file: Option<PathBuf> = "off",
        /// Longest wait for a connection, and for the next bytes of an answer.
        /// `PODHERALD_BLOB__TIMEOUT`, default `"10s"`.
        timeout: Duration = "10s",
        /// How long the output of one attempt may take to be stored, retries included; the terminal event then goes out without
        /// naming a blob.
        /// `PODHERALD_BLOB__DEADLINE`, default `"30s"`.
        deadline: Duration = "30s",
    }
}

impl Blob {
    pub(super) fn validate(&self, effective: &Effective) -> Result<(), Error> {
        let is_s3 = matches!(self.url, Some(BlobUrl::S3 { .. }));
        for (key, is_set) in [
            ("blob.endpoint", self.endpoint.is_some()),
            ("blob.region", self.region.is_some()),
            ("blob.credentials_file", self.credentials_file.is_some()),
            ("blob.ca_file", self.ca_file.is_some()),
        ] {
            if is_set && !is_s3 {
                return Err(effective.refuse(key, "`off` unless `blob.url` begins with `s3://`"));
            }
        }
        let is_plain = self.endpoint.as_ref().is_some_and(|endpoint| !endpoint.is_tls());
        if self.ca_file.is_some() && is_plain {
            return Err(effective.refuse("blob.ca_file", "`off` unless `blob.endpoint` begins with `https://`"));
        }
        positive(effective, "blob.timeout", self.timeout)?;
        positive(effective, "blob.deadline", self.deadline)
    }
}

/// Where blobs are. Whatever is put below it has a URI that begins with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobUrl {
    /// A directory.
    File(PathBuf),
    /// A part of a bucket.
    S3 {
        /// Its name.
        bucket: String,
        /// Before each key, without slashes around it; may be empty.
        prefix: String,
    },
}

impl BlobUrl {
    /// Reads `file:///DIRECTORY` or `s3://BUCKET/PREFIX`. None if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.strip_suffix('/').unwrap_or(path);
        // A URI is what a reader takes apart again: nothing in it may need to be escaped.
        let is_plain = path.is_empty() || path.split('/').all(is_segment);
        match (scheme, is_plain) {
            ("file", true) if host.is_empty() && !path.is_empty() => {
                Some(Self::File(PathBuf::from(format!("/{path}"))))
            }
            ("s3", true) if is_bucket(host) => Some(Self::S3 { bucket: host.to_owned(), prefix: path.to_owned() }),
            _ => None,
        }
    }
}

fn is_segment(segment: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !segment.is_empty() && segment != "." && segment != ".." && segment.chars().all(is_plain)
}

fn is_bucket(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    (3..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(is_plain)
}

impl fmt::Display for BlobUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Value for BlobUrl {
    fn expects() -> String {
        "`file:///DIRECTORY` or `s3://BUCKET/PREFIX`, such as `s3://results/podherald`: in lower case for the bucket, letters, digits \
         and `.`, `_`, `-` for the rest"
            .into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::parse(value.as_str()?)
    }
}

/// Where an S3-compatible store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_tls(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl Value for Endpoint {
    fn expects() -> String {
        "a URL of a server such as `https://minio.example:9000`, without user, path and query".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        let text = value.as_str()?;
        let uri: Uri = text.parse().ok()?;
        let is_server = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
        let has_host = uri.authority().is_some_and(|it| !it.host().is_empty() && !it.as_str().contains('@'));
        (is_server && has_host && uri.path() == "/").then(|| Self(text.trim_end_matches('/').to_owned()))
    }
}

/// The name of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region(String);

impl Region {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Region {
    fn expects() -> String {
        "the name of a region such as `eu-central-1`".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        let text = value.as_str()?;
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (!text.is_empty() && text.len() <= 63 && text.chars().all(is_name)).then(|| Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_directory_or_a_part_of_a_bucket() {
        for (good, shown) in [
            ("file:///shared/blobs", "file:///shared/blobs"),
            ("file:///shared/", "file:///shared"),
            ("s3://results", "s3://results"),
            ("s3://results/", "s3://results"),
            ("s3://my.results-1/a/b_c", "s3://my.results-1/a/b_c"),
        ] {
            assert_eq!(BlobUrl::parse(good).map(|url| url.to_string()).as_deref(), Some(shown), "{good}");
        }
        for bad in [
            "",
            "/shared",
            "file://",
            "file:///",
            "file://shared/blobs",
            "file:///a/../b",
            "file:///a b",
            "file:///a~b",
            "file:///a%20b",
            "file:///a//b",
            "s3://",
            "s3:///a",
            "s3://ab",
            "s3://Results",
            "s3://results?x=y",
            "s3://key:secret@results",
            "gs://results",
            "https://results",
        ] {
            assert_eq!(BlobUrl::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_endpoint_is_a_server() {
        let parse = |text: &str| Endpoint::from_toml(&Toml::String(text.to_owned())).map(|it| it.0);
        assert_eq!(parse("https://minio.example:9000/").as_deref(), Some("https://minio.example:9000"));
        assert_eq!(parse("http://127.0.0.1:9000").as_deref(), Some("http://127.0.0.1:9000"));
        for bad in ["minio.example:9000", "ftp://a", "https://a/b", "https://key:secret@a", "https://a?b", "https://"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
