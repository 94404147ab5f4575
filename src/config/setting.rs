//! One declaration per setting: its key, its documentation, its type and its default stand in one place.

use super::value::Value;

/// A key of the configuration, as `podherald config` and the errors speak of it.
#[derive(Debug)]
pub struct Setting {
    /// `section.name`, or just the name at the top level.
    pub key: &'static str,
    /// Lines of documentation; the last ends with the variable and the default.
    pub doc: &'static [&'static str],
    /// The default in TOML.
    pub default: &'static str,
    /// Reads the notation of variables and flags; what does not fit stays a string, which the type then refuses.
    pub(super) from_text: fn(&str) -> toml::Value,
    /// What of a value may be printed.
    pub(super) shown: fn(&toml::Value) -> toml::Value,
}

impl Setting {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("PODHERALD_{}", self.key.replace('.', "__").to_uppercase())
    }
}

/// `T`'s reading of text; a function of its own so that the macro below stays short.
pub(super) fn from_text<T: Value>(text: &str) -> toml::Value {
    T::from_text(text)
}

/// `T`'s way to show a value.
pub(super) fn shown<T: Value>(value: &toml::Value) -> toml::Value {
    T::shown(value)
}

/// Declares a section: a struct, the table of its settings, and how the one is read from the other.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident in $prefix:literal {
            $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr,)*
        }
        $(sections {
            $($(#[doc = $section_doc:literal])+ $section:ident: $section_type:ty,)*
        })?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)*
            $($($(#[doc = $section_doc])+ pub $section: $section_type,)*)?
        }

        impl $name {
            /// Every setting declared here, in order, those of sections last.
            pub fn settings() -> Vec<&'static $crate::config::Setting> {
                const OWN: &[$crate::config::Setting] = &[$($crate::config::Setting {
                    key: concat!($prefix, stringify!($field)),
                    doc: &[$($doc),+],
                    default: stringify!($default),
                    from_text: $crate::config::setting::from_text::<$type>,
                    shown: $crate::config::setting::shown::<$type>,
                }),*];
                #[allow(unused_mut)]
                let mut settings: Vec<_> = OWN.iter().collect();
                $($(settings.extend(<$section_type>::settings());)*)?
                settings
            }

            pub(super) fn read(
                effective: &$crate::config::source::Effective,
            ) -> Result<Self, $crate::config::Error> {
                Ok(Self {
                    $($field: effective.get(concat!($prefix, stringify!($field)))?,)*
                    $($($section: <$section_type>::read(effective)?,)*)?
                })
            }
        }
    };
}
pub(super) use settings;
