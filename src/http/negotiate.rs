//! Which of the representations on offer a caller wants.

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};

use super::Error;

/// A representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    EventStream,
    JsonLines,
    Text,
    Bytes,
}

impl Media {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::EventStream => "text/event-stream",
            Self::JsonLines => "application/x-ndjson",
            Self::Text => "text/plain",
            Self::Bytes => "application/octet-stream",
        }
    }
}

/// The offer that the caller likes best; among equals the one named most exactly, then the first.
///
/// # Errors
/// [`Error::NotAcceptable`] if it accepts none.
pub(super) fn choose(headers: &HeaderMap, offers: &[Media]) -> Result<Media, Error> {
    let mut accept = headers.get_all(header::ACCEPT).iter().peekable();
    if accept.peek().is_none() {
        return Ok(offers[0]);
    }
    let ranges: Vec<(String, u16)> =
        accept.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(range).collect();
    let mut best = None;
    for offer in offers {
        // The most exact range that matches an offer decides its quality.
        let liking = ranges
            .iter()
            .filter_map(|(range, quality)| Some((exactness(range, offer.name())?, *quality)))
            .max_by_key(|(exactness, _)| *exactness);
        if let Some((exactness, quality)) = liking
            && quality > 0
            && best.is_none_or(|(known, _)| (quality, exactness) > known)
        {
            best = Some(((quality, exactness), *offer));
        }
    }
    best.map(|(_, offer)| offer)
        .ok_or_else(|| Error::NotAcceptable(offers.iter().map(|offer| offer.name()).collect::<Vec<_>>().join(" or ")))
}

/// Media range and quality in thousandths; a quality that cannot be read counts as none given.
fn range(text: &str) -> (String, u16) {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().unwrap_or_default().to_ascii_lowercase();
    let quality = parts
        .filter_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
        .find_map(|quality| quality.parse::<f32>().ok())
        .map_or(1000, |quality| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
            let thousandths = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
            thousandths
        });
    (range, quality)
}

fn exactness(range: &str, name: &str) -> Option<u8> {
    if range == name {
        return Some(2);
    }
    if range == "*/*" {
        return Some(0);
    }
    let class = range.strip_suffix("/*")?;
    (name.split_once('/')?.0 == class).then_some(1)
}

/// For handlers that only speak JSON.
pub(super) struct AcceptsJson;

impl<S: Sync> FromRequestParts<S> for AcceptsJson {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        choose(&parts.headers, &[Media::Json]).map(|_| Self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn chosen(accept: &[&str]) -> Option<Media> {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        choose(&headers, &[Media::Json, Media::EventStream]).ok()
    }

    #[test]
    fn the_best_liked_offer_is_chosen() {
        use Media::{EventStream, Json};
        for (accept, expected) in [
            (&[][..], Some(Json)),
            (&["*/*"], Some(Json)),
            (&["application/*"], Some(Json)),
            (&["text/*"], Some(EventStream)),
            (&["text/event-stream"], Some(EventStream)),
            (&["Text/Event-Stream; charset=utf-8"], Some(EventStream)),
            (&["text/event-stream, */*"], Some(EventStream)),
            (&["application/json, text/event-stream"], Some(Json)),
            (&["application/json;q=0.5, text/event-stream"], Some(EventStream)),
            (&["application/json;q=0.5", "text/event-stream;q=0.4"], Some(Json)),
            (&["application/json;q=0, */*"], Some(EventStream)),
            (&["text/html"], None),
            (&["application/xml, image/*"], None),
            (&["*/*;q=0"], None),
            (&[""], None),
        ] {
            assert_eq!(chosen(accept), expected, "{accept:?}");
        }
    }
}
