//! The beginning of an answer, for the log. It may repeat what it was asked, with what may be a secret in that.

use crate::config::{MASK, percent_decoded};

/// Characters of an answer at most.
const MAX_QUOTE: usize = 200;

/// In one line and parentheses, with a space before; empty where there is nothing to quote. The longest secrets come first.
pub(super) fn quote(text: &str, secrets: &[String]) -> String {
    let masked = secrets.iter().fold(in_one_line(text), |line, secret| masked(&line, &in_one_line(secret)));
    let said = skeleton(&masked);
    // In whatever other spelling: nobody needs to read that.
    if secrets.iter().map(|secret| skeleton(secret)).any(|secret| !secret.is_empty() && said.contains(&secret)) {
        return " (its answer is not shown: it repeats the URL)".to_owned();
    }
    let line: String = masked.chars().take(MAX_QUOTE).collect();
    if line.is_empty() { line } else { format!(" ({line})") }
}

fn in_one_line(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() || c.is_whitespace()).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The line without the secret, whose case does not count.
fn masked(line: &str, secret: &str) -> String {
    let (mut masked, mut rest) = (String::new(), line);
    let secret = secret.to_ascii_lowercase();
    // Lower case in ASCII is as long as upper case.
    while let Some(at) = rest.to_ascii_lowercase().find(&secret).filter(|_| !secret.is_empty()) {
        masked.push_str(&rest[..at]);
        masked.push_str(MASK);
        rest = &rest[at + secret.len()..];
    }
    masked + rest
}

/// Its letters and digits: what is left of it however it is escaped, for URLs (once or more), JSON or HTML.
fn skeleton(text: &str) -> String {
    let mut plain = text.to_owned();
    loop {
        let decoded = percent_decoded(&plain);
        if decoded == plain {
            break;
        }
        plain = decoded;
    }
    let mut letters = String::new();
    let mut rest = plain.as_str();
    while let Some(next) = rest.chars().next() {
        let length = escape(rest).unwrap_or(next.len_utf8());
        letters.extend(next.is_alphanumeric().then(|| next.to_lowercase()).into_iter().flatten());
        rest = &rest[length..];
    }
    letters
}

/// The length of `&name;`, `&#58;` or `\u003a`, if it begins with one.
fn escape(text: &str) -> Option<usize> {
    if let Some(entity) = text.strip_prefix('&') {
        let end = entity.find(|c: char| !c.is_ascii_alphanumeric() && c != '#')?;
        return entity[end..].starts_with(';').then_some(end + 2);
    }
    let digits = text.strip_prefix("\\u")?.as_bytes().get(..4)?;
    digits.iter().all(u8::is_ascii_hexdigit).then_some(6)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::WebhookUrl;

    #[test]
    fn no_answer_is_quoted_with_a_part_of_the_url_however_it_spells_it() {
        let secrets = WebhookUrl::parse("https://a/services/T0K3N%2fx?key=s%3Acr+et&v=1").unwrap().secrets();
        let long = format!("{} t0k3n/x", "y".repeat(MAX_QUOTE - 4));
        for (text, expected) in [
            ("", ""),
            ("no\r\n\tsuch \u{0}thing v=1", " (no such thing v=1)"),
            ("Cannot POST /services/T0K3N%2fx?key=s%3Acr+et&v=1", " (Cannot POST ***)"),
            ("Cannot POST /services/T0K3N%2Fx", " (Cannot POST ***)"),
            ("no T0K3N/x", " (no ***)"),
            ("key s%3Acr+et", " (key ***)"),
            ("key 's:cr et'", " (key '***')"),
            ("key s:cr+et", " (key ***)"),
            ("key s:\u{0}cr\n et", " (key ***)"),
            (r#"{"at":"T0K3N\/x"}"#, " (its answer is not shown: it repeats the URL)"),
            ("key s%253Acr%2520et", " (its answer is not shown: it repeats the URL)"),
            ("key s&#58;cr&nbsp;et", " (its answer is not shown: it repeats the URL)"),
            (r"key s\u003acr\u0020et", " (its answer is not shown: it repeats the URL)"),
            ("a & b; c\\u d", " (a & b; c\\u d)"),
        ] {
            assert_eq!(quote(text, &secrets), expected, "{text}");
        }
        assert_eq!(quote(&long, &secrets).len(), MAX_QUOTE + 3);
        assert!(!quote(&long, &secrets).contains("t0k"));
    }
}
