//! Log lines on standard error, for people or for programs.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter,
    fmt::MakeWriter,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config;

/// kube reports each failed request here, without its cause or with a dump of it; whoever made the request reports it too.
const TOLD_BY_US: &str = "kube_client::client::builder=off,kube_runtime::watcher=off";

/// Sends this process's log lines to standard error from now on.
///
/// # Errors
/// Somebody else has set up logging already.
pub fn init(config: &config::Telemetry) -> Result<(), TryInitError> {
    subscriber(config, io::stderr().is_terminal(), io::stderr).try_init()
}

fn subscriber(
    config: &config::Telemetry,
    colours: bool,
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> Box<dyn Subscriber + Send + Sync> {
    let filter = format!("{TOLD_BY_US},{}", config.log.as_str());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        // Reporting that standard error is gone, on standard error, would panic.
        .log_internal_errors(false)
        .with_writer(writer);
    match config.format {
        config::Format::Text => Box::new(lines.with_ansi(colours).finish()),
        config::Format::Json => Box::new(lines.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::Config;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(settings: &[(&str, &str)], speak: impl FnOnce()) -> String {
        let page = Page::default();
        let config = Config::of(settings).unwrap().telemetry;
        let writer = page.clone();
        tracing::subscriber::with_default(subscriber(&config, false, move || writer.clone()), speak);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_has_the_fields_beside_the_message() {
        let line = written(&[("telemetry.format", "json")], || tracing::warn!(pods = 3, "behind"));
        let line: serde_json::Value = serde_json::from_str(line.trim_end()).unwrap();
        assert_eq!(line["message"], "behind");
        assert_eq!(line["pods"], 3);
        assert_eq!(line["level"], "WARN");
    }

    #[test]
    fn a_text_line_reads_from_left_to_right() {
        let line = written(&[], || tracing::info!(pods = 3, "caught up"));
        assert!(line.contains("INFO podherald::telemetry::tests: caught up pods=3"), "{line}");
    }

    #[test]
    fn the_filter_decides_what_is_written() {
        let speak = || {
            tracing::debug!("small talk");
            tracing::error!(target: "other", "loud");
        };
        assert_eq!(written(&[("telemetry.log", "info,other=off")], speak), "");
        assert!(written(&[("telemetry.log", "off,podherald=debug")], speak).contains("small talk"));
        let speak = || tracing::error!(target: "kube_runtime::watcher", "failed with error");
        assert_eq!(written(&[], speak), "");
        assert!(written(&[("telemetry.log", "kube_runtime::watcher=info")], speak).contains("failed"));
    }
}
