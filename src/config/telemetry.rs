//! `[telemetry]`: what podherald says of itself.

use super::{
    names::{Environment, LogFilter},
    setting::settings,
    value::choice,
};

settings! {
    /// Logs, and the name of this installation.
    pub struct Telemetry in "telemetry." {
        /// Which log lines to write: a level, or directives such as `info,podherald::monitor=debug`.
        /// `PODHERALD_TELEMETRY__LOG`, default `"info"`.
        log: LogFilter = "info",
        /// How log lines look on standard error: `text` or `json`.
        /// `PODHERALD_TELEMETRY__FORMAT`, default `"text"`.
        format: Format = "text",
        /// Name of the installation, which every event carries as `metadata.environment`.
        /// `PODHERALD_TELEMETRY__ENVIRONMENT`, default `"development"`.
        environment: Environment = "development",
    }
}

choice! {
    /// How log lines look.
    pub enum Format {
        /// For people.
        Text = "text",
        /// For programs: one JSON object a line.
        Json = "json",
    }
}
