//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, builder::PossibleValuesParser};

use podherald_core::{event::EVENT_TYPES, gap};

use crate::{
    config::{Flag, Sources},
    contract,
};

/// Watches pods that run someone's code and tells, at once and for certain, what became of it.
#[derive(Debug, Parser)]
#[command(
    name = "podherald",
    version,
    after_help = "Settings come from podherald.toml, then PODHERALD_<SECTION>__<KEY> in the environment, then flags; the \
                  later outranks the earlier. `podherald config` lists them."
)]
pub struct Cli {
    /// The configuration file [default: $PODHERALD_CONFIG, else ./podherald.toml if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port to listen on: http.listen
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Directory of the journal and the output: data_dir
    #[arg(long, global = true, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// Keep a few example pods coming on the embedded cluster: embedded.demo
    #[arg(long, global = true)]
    demo: bool,
    /// Any setting, as its variable would have it; may be repeated
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Watch the cluster and answer requests (the default)
    #[default]
    Serve,
    /// Print the effective settings with their documentation, as a podherald.toml
    Config,
    /// Print the events that pods mean, one JSON line each, with why
    Explain {
        /// Pods, lists or watch events as JSON, JSON lines or YAML [default: standard input]
        file: Option<PathBuf>,
        /// Directory with the logs: POD.CONTAINER.log or POD.log
        #[arg(long, value_name = "DIRECTORY")]
        logs: Option<PathBuf>,
    },
    /// List the types of events: their topic, who sends them, and when
    Events {
        /// Print the JSON Schema of this type instead; without a type, that of all
        #[arg(long, value_name = "TYPE", num_args = 0..=1, default_missing_value = contract::ALL,
              value_parser = PossibleValuesParser::new(EVENT_TYPES.iter().chain([&gap::EVENT_TYPE, &contract::ALL])))]
        schema: Option<String>,
    },
    /// Bring the store up to date: the database of mongo.uri, or the file in the data directory
    Migrate,
    /// Show the pods that bear the finalizer podherald.dev/result, or let them go, whatever monitor.hold says
    #[command(subcommand)]
    Finalizers(Finalizers),
    /// Print the OpenAPI document of the REST interface
    Openapi,
    /// Print the AsyncAPI document of what is sent to Kafka and Redis
    Asyncapi,
}

/// What to do with pods that are held. The cluster is the one that KUBECONFIG names.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Finalizers {
    /// Print the pods that are held
    List {
        /// Only those of this namespace
        #[arg(long)]
        namespace: Option<String>,
    },
    /// Take the finalizer off; whatever was not told of these pods by then is lost if they go
    Release {
        /// Only of the pods of this namespace
        #[arg(long)]
        namespace: Option<String>,
        /// Only print which pods it would be
        #[arg(long)]
        dry_run: bool,
    },
}

impl Cli {
    /// Where the settings come from. `--listen` and `--data-dir` outrank `--set`.
    pub fn sources(&self) -> Sources {
        let set = self.set.iter().map(|(key, value)| (format!("--set {key}"), key.as_str(), value));
        let listen = self.listen.iter().map(|value| ("--listen".to_owned(), "http.listen", value));
        let data_dir = self.data_dir.iter().map(|value| ("--data-dir".to_owned(), "data_dir", value));
        let flags = set.chain(listen).chain(data_dir);
        let flags = flags.map(|(name, key, value)| Flag { name, key: key.to_owned(), value: value.clone() });
        let demo = self.demo.then(|| Flag {
            name: "--demo".to_owned(),
            key: "embedded.demo".to_owned(),
            value: "true".to_owned(),
        });
        Sources::of_process(self.config.clone(), flags.chain(demo).collect())
    }

    /// What to do.
    pub fn command(self) -> Command {
        self.command.unwrap_or_default()
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("it must be a key, `=` and a value, such as http.listen=127.0.0.1:9090".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_and_flags_may_stand_on_either_side() {
        let parse = |line: &str| Cli::parse_from(line.split(' '));
        assert_eq!(parse("podherald --listen [::1]:1").command(), Command::Serve);
        let before = parse("podherald --set a.b=c=d --listen [::1]:1 --data-dir /d config");
        let after = parse("podherald config --data-dir /d --set a.b=c=d --listen [::1]:1");
        assert_eq!(before.sources().flags, after.sources().flags);
        let flags: Vec<_> =
            after.sources().flags.into_iter().map(|flag| [flag.name, flag.key, flag.value].join(" ")).collect();
        assert_eq!(flags, ["--set a.b a.b c=d", "--listen http.listen [::1]:1", "--data-dir data_dir /d"]);
        assert_eq!(after.command(), Command::Config);
    }
}
