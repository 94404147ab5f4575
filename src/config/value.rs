//! How the types of settings are written: in TOML, and as the plain text of a variable or flag.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use toml::Value as Toml;

use super::{Error, source::Effective};
use crate::health::Role;

/// What stands for a secret where it is shown.
pub(crate) const MASK: &str = "***";

/// A URL that shows itself without its secrets. Of what is no URL only the scheme is shown: nobody knows where in it a
/// password may be.
pub(super) fn shown_url<U: Value + fmt::Display>(value: &Toml) -> Toml {
    let Some(text) = value.as_str() else { return value.clone() };
    Toml::String(match (U::from_toml(value), text.split_once("://")) {
        (Some(url), _) => url.to_string(),
        (None, Some((scheme, _))) if scheme.chars().all(|c| c.is_ascii_lowercase()) => format!("{scheme}://{MASK}"),
        (None, _) => MASK.to_owned(),
    })
}

/// A type that a setting can have.
pub(super) trait Value: Sized {
    /// Between the elements of a list of these, in a variable or flag.
    const SEPARATOR: char = ',';

    /// What is right, for an error: "an address and port such as ...".
    fn expects() -> String;

    /// The value, unless it is of the wrong type or not one of those expected.
    fn from_toml(value: &Toml) -> Option<Self>;

    /// The TOML value that this text means.
    fn from_text(text: &str) -> Toml {
        Toml::String(text.to_owned())
    }

    /// What anybody may see of a value, right or wrong: all of it, unless it is a secret.
    fn shown(value: &Toml) -> Toml {
        value.clone()
    }
}

/// An amount of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// A size of this many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// How many bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Declares an enum whose values have names in the configuration.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $crate::config::value::Value for $name {
            fn expects() -> String {
                [$(concat!("`", $text, "`")),+].join(" or ")
            }

            fn from_toml(value: &toml::Value) -> Option<Self> {
                match value.as_str()? {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}
pub(super) use choice;

/// Refuses the zero of a setting that cannot do with it.
pub(super) fn positive<T: Copy + Default + PartialEq>(
    effective: &Effective,
    key: &'static str,
    value: T,
) -> Result<(), Error> {
    if value == T::default() { Err(effective.refuse(key, "more than nothing")) } else { Ok(()) }
}

impl Value for bool {
    fn expects() -> String {
        "`true` or `false`".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        value.as_bool()
    }

    fn from_text(text: &str) -> Toml {
        text.parse().map_or_else(|_| Toml::String(text.to_owned()), Toml::Boolean)
    }
}

impl Value for u32 {
    fn expects() -> String {
        "a whole number such as `32`".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        value.as_integer()?.try_into().ok()
    }

    fn from_text(text: &str) -> Toml {
        integer_or_text(text)
    }
}

impl Value for SocketAddr {
    fn expects() -> String {
        "an IP address and port such as `127.0.0.1:8080` or `[::1]:8080`".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl Value for PathBuf {
    fn expects() -> String {
        "a path such as `./data`".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        value.as_str().filter(|path| !path.is_empty()).map(Self::from)
    }
}

impl Value for Role {
    fn expects() -> String {
        "`api`, `monitor`, `result_processor` or `resource_cleaner`, the roles that this version has".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        match value.as_str()? {
            "api" => Some(Self::Api),
            "monitor" => Some(Self::Monitor),
            "result_processor" => Some(Self::ResultProcessor),
            "resource_cleaner" => Some(Self::ResourceCleaner),
            _ => None,
        }
    }
}

impl Value for Size {
    fn expects() -> String {
        "a size such as `16MiB`: a whole number and B, KiB, MiB, GiB or TiB".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        let text = value.as_str()?;
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let shift = match unit.trim_start() {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(1 << shift).map(Self)
    }
}

impl Value for Duration {
    fn expects() -> String {
        "a duration such as `500ms`, `5s`, `2m`, `1h30m` or `7d`".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        let mut rest = value.as_str()?;
        let mut sum = Self::ZERO;
        let mut smallest = u64::MAX;
        while smallest == u64::MAX || !rest.is_empty() {
            let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
            let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
            let millis = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            // `30m1h` and `1s1s` are slips of the pen.
            if millis >= smallest {
                return None;
            }
            smallest = millis;
            sum = sum.checked_add(Self::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?))?;
            rest = tail;
        }
        // What is longer than this overflows sums of times; nobody waits for a century.
        (sum <= Self::from_hours(24 * 36_525)).then_some(sum)
    }
}

/// `off` is none.
impl<T: Value> Value for Option<T> {
    fn expects() -> String {
        format!("`off`, or {}", T::expects())
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        if value.as_str() == Some("off") { Some(None) } else { T::from_toml(value).map(Some) }
    }

    fn from_text(text: &str) -> Toml {
        if text == "off" { Toml::String(text.to_owned()) } else { T::from_text(text) }
    }

    fn shown(value: &Toml) -> Toml {
        if value.as_str() == Some("off") { value.clone() } else { T::shown(value) }
    }
}

impl<T: Value> Value for Vec<T> {
    fn expects() -> String {
        format!("a list, each element {}", T::expects())
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        value.as_array()?.iter().map(T::from_toml).collect()
    }

    fn shown(value: &Toml) -> Toml {
        match value {
            Toml::Array(elements) => Toml::Array(elements.iter().map(T::shown).collect()),
            other => T::shown(other),
        }
    }

    fn from_text(text: &str) -> Toml {
        let elements = text.split(T::SEPARATOR).map(str::trim);
        Toml::Array(if text.trim().is_empty() { Vec::new() } else { elements.map(T::from_text).collect() })
    }
}

fn integer_or_text(text: &str) -> Toml {
    text.parse().map_or_else(|_| Toml::String(text.to_owned()), Toml::Integer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read<T: Value>(text: &str) -> Option<T> {
        T::from_toml(&T::from_text(text))
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in
            [("500ms", 500), ("5s", 5000), ("2m", 120_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("0s", 0)]
        {
            assert_eq!(read::<Duration>(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "5", "s", "5 s", "-5s", "1.5s", "5S", "5s ", "30m1h", "1s1s", "99999999999999999999s", "40000d", "5µs"]
        {
            assert_eq!(read::<Duration>(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [("0B", 0), ("512B", 512), ("16MiB", 16 << 20), ("4 GiB", 4 << 30), ("1TiB", 1 << 40)] {
            assert_eq!(read::<Size>(text), Some(Size::new(bytes)), "{text}");
        }
        for text in ["", "16", "16MB", "MiB", "-1MiB", "1.5GiB", "99999999999TiB", "16MiBs"] {
            assert_eq!(read::<Size>(text), None, "{text}");
        }
    }

    #[test]
    fn off_is_no_deadline() {
        assert_eq!(read::<Option<Duration>>("off"), Some(None));
        assert_eq!(read::<Option<Duration>>("5m"), Some(Some(Duration::from_mins(5))));
        assert_eq!(read::<Option<Duration>>("never"), None);
    }

    #[test]
    fn lists_are_comma_separated_and_an_empty_text_is_an_empty_list() {
        assert_eq!(read::<Vec<u32>>("1, 2,3"), Some(vec![1, 2, 3]));
        assert_eq!(read::<Vec<u32>>(" "), Some(vec![]));
        assert_eq!(read::<Vec<u32>>("1,,2"), None);
        assert_eq!(Vec::<u32>::from_toml(&Toml::Integer(1)), None);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(read::<u32>("4294967296"), None);
        assert_eq!(read::<u32>("-1"), None);
        assert_eq!(u32::from_toml(&Toml::Float(1.0)), None);
    }
}
