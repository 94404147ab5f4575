//! Settings that are text of a certain form: names, selectors, filters.

use podherald_core::identity::Place;
use toml::Value as Toml;
use tracing_subscriber::EnvFilter;

use super::value::Value;

/// Declares a text that a predicate has approved.
macro_rules! text {
    ($(#[$meta:meta])* pub struct $name:ident, if $accepts:expr, $expects:literal $(, separated by $separator:literal)?) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// As it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Value for $name {
            $(const SEPARATOR: char = $separator;)?

            fn expects() -> String {
                $expects.into()
            }

            fn from_toml(value: &Toml) -> Option<Self> {
                let accepts: fn(&str) -> bool = $accepts;
                value.as_str().filter(|text| accepts(text)).map(|text| Self(text.to_owned()))
            }
        }
    };
}

text! {
    /// A label selector in the notation of `kubectl --selector`.
    pub struct LabelSelector, if is_selector,
    "a label selector such as `execution-id`, `app=runner,tier!=test` or `tier in (a,b)`",
    separated by ';'
}

text! {
    /// Name of a namespace.
    pub struct Namespace, if is_dns_label, "the name of a namespace such as `default`"
}

text! {
    /// Name of a container.
    pub struct ContainerName, if is_dns_label, "the name of a container such as `executor`"
}

text! {
    /// Directives for the log.
    pub struct LogFilter, if |text| !text.trim().is_empty() && EnvFilter::try_new(text).is_ok(),
    "a level (`error`, `warn`, `info`, `debug`, `trace`, `off`) or directives such as `info,podherald::monitor=debug`"
}

text! {
    /// Name of this installation.
    pub struct Environment, if |text| !text.is_empty() && text.len() <= 63 && !text.contains(char::is_control),
    "a name of 1 to 63 characters such as `production`"
}

text! {
    /// A name of a host, without a port.
    pub struct HostName, if |text| text.len() <= 253 && text.split('.').all(is_dns_label),
    "a name in lower-case letters and without a port, such as `podherald.example`"
}

text! {
    /// A label and its value.
    pub struct LabelPair, if is_label_pair, "a label and its value such as `app=runner`"
}

impl LabelPair {
    /// Key and value.
    pub fn pair(&self) -> (&str, &str) {
        self.0.split_once('=').unwrap_or((&self.0, ""))
    }
}

text! {
    /// A Lease of the cluster.
    pub struct LeaseName, if |text| text.split_once('/').is_some_and(|(namespace, name)| is_dns_label(namespace) && is_dns_label(name)),
    "a Lease as `NAMESPACE/NAME`, `podherald/podherald` for instance"
}

impl LeaseName {
    /// Namespace and name.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or(("", &self.0))
    }
}

impl Value for Place {
    fn expects() -> String {
        "`label:KEY`, `annotation:KEY` or `prefix:TEXT`, such as `label:execution-id` or `prefix:exec-`".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        let place: Self = value.as_str()?.parse().ok()?;
        let possible = match &place {
            Self::Label(key) | Self::Annotation(key) => is_qualified_name(key),
            Self::NamePrefix(text) => is_name_prefix(text),
        };
        possible.then_some(place)
    }
}

/// Selects something, in the grammar of the API server: requirements, with commas between them.
fn is_selector(text: &str) -> bool {
    let mut depth = 0_i32;
    let mut requirements = text.split(|c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    requirements.all(|requirement| is_requirement(requirement.trim()))
}

/// `key`, `!key`, `key=value`, `key==value`, `key!=value`, `key in (a,b)`, `key notin (a,b)`, `key>1`, `key<1`.
fn is_requirement(text: &str) -> bool {
    if let Some(key) = text.strip_prefix('!') {
        return is_qualified_name(key.trim());
    }
    let end = text.find(|c: char| c.is_whitespace() || "=!<>(".contains(c)).unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    let rest = rest.trim();
    let compares = |value: &str| is_label_value(value.trim());
    let right = if rest.is_empty() {
        true
    } else if let Some(value) =
        rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).or_else(|| rest.strip_prefix("!="))
    {
        compares(value)
    } else if let Some(number) = rest.strip_prefix('>').or_else(|| rest.strip_prefix('<')) {
        number.trim().parse::<i64>().is_ok()
    } else {
        let set = rest.strip_prefix("notin").or_else(|| rest.strip_prefix("in")).map(str::trim_start);
        let values = set.and_then(|set| set.strip_prefix('(')?.strip_suffix(')'));
        values.is_some_and(|values| values.split(',').all(compares))
    };
    is_qualified_name(key) && right
}

/// `name` or `prefix/name`, as keys of labels and annotations are.
fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefixed = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_dns_label));
    prefixed && !name.is_empty() && is_label_value(name)
}

fn is_label_pair(text: &str) -> bool {
    text.split_once('=').is_some_and(|(key, value)| is_qualified_name(key) && is_label_value(value))
}

fn is_label_value(text: &str) -> bool {
    let outer = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && outer(text.chars().next())
        && outer(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_dns_label(text: &str) -> bool {
    !text.is_empty() && is_label_value(text) && !text.contains(|c: char| c.is_ascii_uppercase() || "_.".contains(c))
}

/// The beginning of an object's name, which unlike the whole may end in `-` or `.`.
fn is_name_prefix(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_those_that_the_api_server_takes() {
        for good in [
            "execution-id",
            "!batch",
            "app=runner",
            "app==runner",
            "app = runner , tier != test",
            "app=",
            "tier in (a,b),app",
            "tier notin(a, b)",
            "example.com/part=x_1.y",
            "size>3,size<9",
        ] {
            assert!(is_selector(good), "{good}");
        }
        for bad in [
            "",
            ",",
            "app,",
            "=x",
            "app=-x",
            "app=a b",
            "app in a,b",
            "app in (a",
            "app in a)",
            "app isin (a)",
            "a b",
            "!",
            "size>big",
            "a/b/c",
            "Upper.Example/x",
            "app=runner;tier",
            "exécution",
        ] {
            assert!(!is_selector(bad), "{bad}");
        }
        assert!(!is_selector(&"x".repeat(64)));
    }

    #[test]
    fn a_place_of_an_id_is_one_that_a_pod_can_have() {
        let read = |text: &str| Place::from_toml(&Toml::String(text.to_owned()));
        assert_eq!(read("annotation:a.b/c"), Some(Place::Annotation("a.b/c".into())));
        assert_eq!(read("prefix:exec-"), Some(Place::NamePrefix("exec-".into())));
        for bad in ["execution-id", "label:", "labels:x", "label:a b", "prefix:", "prefix:Exec-", "prefix:-x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_log_filter_is_a_level_or_directives() {
        let read = |text: &str| LogFilter::from_toml(&Toml::String(text.to_owned()));
        assert!(read("info").is_some());
        assert!(read("warn,podherald::journal=trace").is_some());
        assert!(read("").is_none());
        assert!(read("podherald=loud").is_none());
    }
}
