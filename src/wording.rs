//! Errors as people read them: one line, without anybody's debug output.

use std::error::Error;

/// The error and its causes, outermost first. What an error repeats of its cause is said once; of a text with several
/// lines the first counts, for below it parsers draw pictures.
pub fn of(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let part = match error.downcast_ref() {
            // Its own text ends in a dump of the whole status.
            Some(kube::Error::Api(status)) => {
                next = None;
                status_text(status)
            }
            _ => own_text(error),
        };
        if !part.is_empty() && parts.last() != Some(&part) {
            parts.push(part);
        }
    }
    parts.join(": ")
}

/// What was said last of something that is tried again and again.
#[derive(Debug, Default)]
pub struct Said(String);

impl Said {
    /// True if this is worth a line: it is not what was said last.
    pub fn is_news(&mut self, text: &str) -> bool {
        let is_news = self.0 != text;
        if is_news {
            text.clone_into(&mut self.0);
        }
        is_news
    }
}

fn status_text(status: &kube::core::Status) -> String {
    let said = [&status.message, &status.reason].into_iter().find(|text| !text.is_empty());
    format!("{} ({})", said.map_or("the API server refused", String::as_str), status.code)
}

/// What the error says without repeating its cause.
fn own_text(error: &(dyn Error + 'static)) -> String {
    let whole = error.to_string();
    let cause = error.source().map(ToString::to_string);
    let own = cause.and_then(|cause| whole.strip_suffix(&cause)).unwrap_or(&whole);
    let line = own.lines().next().unwrap_or_default().trim_end_matches([':', ' ']);
    // kube puts quotes around a path that Debug has quoted.
    line.replace("'\"", "'").replace("\"'", "'")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;

    use kube::{config::KubeconfigError, core::Status, runtime::watcher};

    use super::*;

    #[test]
    fn a_refusal_of_the_api_server_is_its_message_and_code() {
        let status = Status { message: "pods is forbidden".into(), code: 403, ..Status::default() };
        let error = kube::Error::Api(Box::new(status.clone()));
        assert_eq!(of(&error), "pods is forbidden (403)");
        let error = watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status)));
        assert_eq!(of(&error), "failed to start watching object: pods is forbidden (403)");
        let bare = Status { reason: "Expired".into(), code: 410, ..Status::default() };
        assert_eq!(of(&kube::Error::Api(Box::new(bare))), "Expired (410)");
    }

    #[test]
    fn causes_are_said_once() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(of(&kube::Error::ReadEvents(refused())), "Error reading events stream: connection refused");
        let nested = anyhow::Error::new(refused()).context("inner").context("outer");
        assert_eq!(of(nested.as_ref()), "outer: inner: connection refused");
    }

    #[test]
    fn a_path_is_quoted_once() {
        let error = KubeconfigError::ReadConfig(io::ErrorKind::NotFound.into(), "/no/file".into());
        assert_eq!(of(&error), "failed to read kubeconfig from '/no/file': entity not found");
    }

    #[test]
    fn pictures_are_left_out() {
        let error = serde_saphyr::from_str::<serde_json::Value>("{{{ not").unwrap_err();
        assert_eq!(of(&error), "error: line 1 column 3: unclosed bracket '{'");
        let error = "[http".parse::<toml::Table>().unwrap_err();
        assert_eq!(of(&error), "TOML parse error at line 1, column 6");
    }
}
