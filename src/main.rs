//! `podherald`: see the library for all that it does.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use kube_sim::node::shim;
use podherald::{
    app,
    cli::{Cli, Command, Finalizers},
    clock::SystemClock,
    cluster,
    config::{self, Config, Effective},
    contract, embedded, explain, http,
    monitor::hold::command,
    store, supervisor, telemetry, wording,
};
use podherald_core::mapper::Policy;

/// Frames are decoded on one thread and dropped on another, thousands a second: the system's allocator spends a sixth of
/// all time on that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As clap has it for a command line that is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == embedded::SHIM) {
        return shim::main(arguments);
    }
    let Err(error) = run(Cli::parse()) else { return ExitCode::SUCCESS };
    // There is nobody left to tell if standard error is gone.
    let _ = writeln!(io::stderr(), "podherald: {}", wording::of(error.as_ref()));
    if error.is::<config::Error>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let sources = cli.sources();
    match cli.command() {
        Command::Serve => serve(Config::load(&sources)?),
        Command::Config => {
            let effective = Effective::gather(&sources)?;
            Config::from_effective(&effective)?;
            print(&config::document(&effective))
        }
        Command::Explain { file, logs } => explain(&Config::load(&sources)?, file, logs),
        Command::Events { schema } => print(&events(schema.as_deref())),
        Command::Migrate => print(&migrate(&Config::load(&sources)?)?),
        Command::Finalizers(what) => finalizers(what),
        Command::Openapi => print(&http::openapi_document()),
        Command::Asyncapi => print(&contract::pretty(&contract::asyncapi_document())),
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::init(&config.telemetry)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async { Ok(app::run(config, supervisor::signals()?).await?) });
    // Dropping it would wait for blocking calls, which no signal aborts.
    runtime.shutdown_background();
    result
}

fn explain(config: &Config, file: Option<PathBuf>, logs: Option<PathBuf>) -> anyhow::Result<()> {
    let options = explain::Options {
        file,
        logs,
        // There is nobody to ask.
        policy: Policy { must_hear: None, ..app::policy(config) },
        places: config.kube.execution_id.clone(),
        limits: app::limits(config),
    };
    match explain::run(&options, &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Err(explain::Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

fn migrate(config: &Config) -> anyhow::Result<String> {
    telemetry::init(&config.telemetry)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(store::migrate(config, Arc::new(SystemClock)))?)
}

fn finalizers(what: Finalizers) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = cluster::client().await.map_err(|reason| app::Error::Cluster { reason })?;
        let out = &mut io::stdout();
        match what {
            Finalizers::List { namespace } => command::list(&client, namespace.as_deref(), out).await?,
            Finalizers::Release { namespace, dry_run } => {
                command::release(&client, namespace.as_deref(), dry_run, out).await?;
            }
        }
        Ok(())
    })
}

fn events(schema: Option<&str>) -> String {
    match schema.map(contract::of_type) {
        None => contract::table(),
        // The command line takes types that there are, and the word for all.
        Some(schema) => contract::pretty(&schema.unwrap_or_else(contract::of_all)),
    }
}

/// Writes to standard output; a reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot print"))
        }
        _ => Ok(()),
    }
}
