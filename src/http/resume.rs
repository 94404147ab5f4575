//! Ids of event streams: where a reader is, in a text that survives a header, a URL and a browser.

use std::fmt;

use http::HeaderMap;
use podherald_core::execution::VersionVector;

use super::{Error, query::Parameters};

/// From the beginning of history; also the id of a reader that has nothing yet.
const BEGINNING: &str = "0";
/// Closes the id of an `end` frame: who resumes from it has everything.
const END: &str = "~end";

/// Comes between what events and what output a reader has.
const OUTPUT: char = '@';

/// A place in one execution's stream: `source=seq`, joined by commas, then `@attempt.run.offset` of the output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OnePlace {
    pub(super) seen: VersionVector,
    pub(super) output: Option<OutputPlace>,
    pub(super) ended: bool,
}

/// How much of the output a reader has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OutputPlace {
    pub(super) attempt: u32,
    pub(super) run: u32,
    pub(super) offset: u64,
}

/// A place in the stream of all executions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ManyPlace {
    Beginning,
    At { epoch: String, position: u64 },
}

/// Writes a version vector as an id.
pub(super) struct Seen<'a>(pub(super) &'a VersionVector);

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.0.is_empty() {
            return f.write_str(BEGINNING);
        }
        for (index, (source, seq)) in self.0.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{source}={seq}")?;
        }
        Ok(())
    }
}

impl fmt::Display for OnePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Seen(&self.seen))?;
        if let Some(OutputPlace { attempt, run, offset }) = self.output {
            write!(f, "{OUTPUT}{attempt}.{run}.{offset}")?;
        }
        f.write_str(if self.ended { END } else { "" })
    }
}

impl fmt::Display for ManyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str(BEGINNING),
            Self::At { epoch, position } => write!(f, "{epoch}:{position}"),
        }
    }
}

impl OnePlace {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (text, ended) = text.strip_suffix(END).map_or((text, false), |text| (text, true));
        let (text, output) = match text.split_once(OUTPUT) {
            Some((text, output)) => (text, Some(OutputPlace::parse(output)?)),
            None => (text, None),
        };
        let mut seen = VersionVector::default();
        if text != BEGINNING {
            for entry in text.split(',') {
                let (source, seq) = entry.split_once('=')?;
                let seq = number(seq)?;
                if source.is_empty() || !source.bytes().all(is_plain) || seen.0.insert(source.to_owned(), seq).is_some()
                {
                    return None;
                }
            }
        }
        Some(Self { seen, output, ended })
    }
}

impl OutputPlace {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(number);
        let mut next = || numbers.next().flatten();
        let place = Self { attempt: next()?.try_into().ok()?, run: next()?.try_into().ok()?, offset: next()? };
        numbers.next().is_none().then_some(place)
    }
}

impl ManyPlace {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == BEGINNING {
            return Some(Self::Beginning);
        }
        let (epoch, position) = text.split_once(':')?;
        let plain = !epoch.is_empty() && epoch.bytes().all(|byte| byte != b':' && is_plain(byte));
        plain.then_some(Self::At { epoch: epoch.to_owned(), position: number(position)? })
    }
}

/// Only what [`fmt::Display`] writes, so that no two texts mean the same place.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b":-._/".contains(&byte)
}

/// The place to resume from. The header outranks the query: it is the browser's own and newer than the page's URL.
///
/// # Errors
/// [`Error::Invalid`] that names the one that is malformed.
pub(super) fn read<T>(
    headers: &HeaderMap,
    parameters: &mut Parameters,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Error> {
    const EXPECTED: &str = "must be the id of an earlier frame of this stream, or 0 for its beginning";
    const HEADER: &str = "Last-Event-ID";
    let query = parameters.one("last_event_id")?;
    let (name, text) = match (headers.get(HEADER), query) {
        (Some(value), _) => (HEADER, value.to_str().map_err(|_| Error::invalid(HEADER, EXPECTED))?.trim().to_owned()),
        (None, Some(value)) => ("last_event_id", value),
        (None, None) => return Ok(None),
    };
    // An empty id is what a browser has before the first one.
    if text.is_empty() {
        return Ok(None);
    }
    parse(&text).map(Some).ok_or_else(|| Error::invalid(name, EXPECTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back() {
        for text in ["0", "0~end", "pod-monitor:0192-a=7", "a:1=1,b:2=22", "a:1=1~end", "a:1=1@2.0.7~end", "0@1.0.0"] {
            assert_eq!(OnePlace::parse(text).map(|place| place.to_string()).as_deref(), Some(text));
        }
        for text in ["0", "0192-a:0", "0192-a:77"] {
            assert_eq!(ManyPlace::parse(text).map(|place| place.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "7",
            "a=",
            "=7",
            "a=7,",
            "a=-1",
            "a=+1",
            "a=1,a=2",
            "a b=1",
            "a=18446744073709551616",
            "~end",
            "x:1",
            "a=1@1.2",
            "a=1@1.2.3.4",
            "a=1@1.2.-3",
        ] {
            assert_eq!(OnePlace::parse(text), None, "{text}");
        }
        for text in ["7", ":7", "a:", "a:-1", "a:b:7", "a=7", "é:7"] {
            assert_eq!(ManyPlace::parse(text), None, "{text}");
        }
    }
}
