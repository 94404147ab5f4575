//! One event, or a gap, as a request: a CloudEvent over HTTP, signed after Standard Webhooks.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use podherald_core::cloud_event::{DATA_CONTENT_TYPE, Envelope, STRUCTURED_CONTENT_TYPE, structured};
use ring::hmac;
use uuid::Uuid;

use crate::{
    config::{WebhookMode, WebhookSecrets},
    sink::Item,
};

const USER_AGENT: &str = concat!("podherald/", env!("CARGO_PKG_VERSION"));

/// An event, ready to be signed and sent as often as it must be.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) event_id: String,
    pub(super) body: Bytes,
    headers: HeaderMap,
}

impl Message {
    /// The item in this mode.
    ///
    /// # Errors
    /// Why the bytes of an event are none.
    pub(super) fn of(item: &Item, mode: WebhookMode) -> Result<Self, String> {
        let bytes = item.bytes();
        let none = |error: serde_json::Error| format!("it is no event: {error}");
        match item {
            Item::Event(_) => {
                let envelope = Envelope::parse(&bytes).map_err(none)?;
                Self::new(envelope.event_id, &envelope.attributes(), &bytes, mode)
            }
            Item::Gap(gap) => Self::new(gap.event_id, &gap.attributes(), &bytes, mode),
        }
        .map_err(none)
    }

    fn new(
        event_id: Uuid,
        attributes: &[(&'static str, Cow<'_, str>)],
        data: &Bytes,
        mode: WebhookMode,
    ) -> Result<Self, serde_json::Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let body = match mode {
            WebhookMode::Structured => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(STRUCTURED_CONTENT_TYPE));
                structured(attributes, data)?.into()
            }
            WebhookMode::Binary => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(DATA_CONTENT_TYPE));
                for (name, value) in attributes {
                    let name: HeaderName = format!("ce-{name}").parse().expect("attributes are letters and digits");
                    let value = HeaderValue::from_str(&encoded(value)).expect("what is no ASCII is encoded");
                    headers.insert(name, value);
                }
                data.clone()
            }
        };
        Ok(Self { event_id: event_id.to_string(), body, headers })
    }

    /// Its headers when it is sent at this time, in seconds since 1970.
    pub(super) fn headers(&self, at: i64, secrets: &WebhookSecrets) -> HeaderMap {
        let ascii = |text: &str| HeaderValue::from_str(text).expect("ids, numbers and base64 are ASCII");
        let mut headers = self.headers.clone();
        headers.insert("webhook-id", ascii(&self.event_id));
        headers.insert("webhook-timestamp", HeaderValue::from(at));
        headers.insert("webhook-signature", ascii(&signature(secrets, &self.event_id, at, &self.body)));
        headers
    }
}

/// `v1,<base64>` for each secret, with spaces between.
fn signature(secrets: &WebhookSecrets, id: &str, at: i64, body: &[u8]) -> String {
    let sign = |key: &Vec<u8>| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        context.update(format!("{id}.{at}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    };
    secrets.expose().iter().map(sign).collect::<Vec<_>>().join(" ")
}

/// As the HTTP binding of CloudEvents has it: what is no visible ASCII, and `"` and `%`.
fn encoded(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%');
    let encode = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    value.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sink::conformance::record;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let secrets = WebhookSecrets::parse(secret).unwrap();
        let (id, at, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signature(&secrets, id, at, body), expected);

        let both = WebhookSecrets::parse(&format!("{secret}  whsec_{}", STANDARD.encode([7; 24]))).unwrap();
        let signed = signature(&both, id, at, body);
        let (first, second) = signed.split_once(' ').unwrap();
        assert!(first == expected && second.starts_with("v1,") && second != expected, "{signed}");
    }

    #[test]
    fn values_of_headers_are_encoded_as_the_binding_says() {
        assert_eq!(encoded("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encoded("a\"b%c\r\n~!"), "a%22b%25c%0D%0A~!");
    }

    #[test]
    fn each_mode_is_the_same_event() {
        let secrets = WebhookSecrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let event = Item::Event(record(7, "x"));
        let structured = Message::of(&event, WebhookMode::Structured).unwrap();
        let headers = structured.headers(1, &secrets);
        assert_eq!(headers["content-type"], "application/cloudevents+json");
        assert_eq!(headers["webhook-id"], structured.event_id);
        assert_eq!(headers["webhook-timestamp"], "1");
        assert!(!headers.contains_key("ce-id"));
        let binary = Message::of(&event, WebhookMode::Binary).unwrap();
        let headers = binary.headers(1, &secrets);
        assert_eq!(
            (&headers["content-type"], binary.body),
            (&HeaderValue::from_static("application/json"), event.bytes())
        );
        let whole: serde_json::Value = serde_json::from_slice(&structured.body).unwrap();
        for name in
            ["specversion", "id", "source", "type", "subject", "time", "sequence", "partitionkey", "traceparent"]
        {
            assert_eq!(headers[format!("ce-{name}")], whole[name].as_str().unwrap(), "{name}");
        }
    }
}
