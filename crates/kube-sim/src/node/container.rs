//! One run of one container, from the node's side of its shim.

use std::{io, path::PathBuf, process::Stdio, sync::Arc};

use jiff::Timestamp;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};

use super::{
    environment::Program,
    log::Writer,
    shim::{End, Order, Report, Spec},
};

/// Read from a program at a time.
const CHUNK: usize = 64 << 10;

/// How shims are started.
#[derive(Debug, Clone)]
pub(super) struct Launcher {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) max_processes: usize,
}

/// What happens to a run.
#[derive(Debug)]
pub(super) enum Happening {
    Started,
    /// In a container runtime's words.
    NotStarted(String),
    Ended(End),
}

/// Runs a program to its end, and tells. Orders that come after that are ignored.
pub(super) async fn run(
    launcher: &Launcher,
    program: Program,
    memory_bytes: Option<u64>,
    mut log: Writer,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    tell: impl Fn(Happening),
) {
    let spec = Spec {
        command: program.command,
        environment: program.environment,
        directory: program.directory,
        memory_bytes,
        max_processes: launcher.max_processes,
    };
    let done = async {
        let mut shim = Shim::start(launcher, &spec).await?;
        shim.follow(&mut log, &clock, orders, &tell).await
    };
    if let Err(error) = done.await {
        tell(Happening::NotStarted(format!("the container's shim failed: {error}")));
    }
}

struct Shim {
    child: Child,
    orders: ChildStdin,
}

impl Shim {
    async fn start(launcher: &Launcher, spec: &Spec) -> io::Result<Self> {
        let mut child = Command::new(&launcher.program)
            .args(&launcher.arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its standard input closes with this process, which ends it too, and all below it.
            .kill_on_drop(false)
            .process_group(0)
            .spawn()?;
        let mut orders = child.stdin.take().expect("it was asked for");
        orders.write_all(&line(spec)).await?;
        Ok(Self { child, orders })
    }

    async fn follow(
        &mut self,
        log: &mut Writer,
        clock: &Arc<dyn Fn() -> Timestamp + Send + Sync>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        tell: &impl Fn(Happening),
    ) -> io::Result<()> {
        let mut output = self.child.stdout.take().expect("it was asked for");
        let mut reports = BufReader::new(self.child.stderr.take().expect("it was asked for")).lines();
        let mut buffer = vec![0; CHUNK];
        // A shim that dies without a word takes the program with it.
        let mut end = Some(End { code: 137, excess: None });
        let (mut has_output, mut has_reports) = (true, true);
        while has_output || has_reports {
            tokio::select! {
                read = output.read(&mut buffer), if has_output => {
                    let read = read?;
                    has_output = read > 0;
                    if has_output {
                        log.write(&buffer[..read], clock()).await?;
                    }
                }
                report = reports.next_line(), if has_reports => match report?.map(|line| serde_json::from_str(&line)) {
                    Some(Ok(Report::Started)) => tell(Happening::Started),
                    Some(Ok(Report::NotStarted { message })) => {
                        tell(Happening::NotStarted(message));
                        end = None;
                    }
                    Some(Ok(Report::Ended(ended))) => end = Some(ended),
                    // Something that is no report: a shim does not print anything else.
                    Some(Err(_)) => {}
                    None => has_reports = false,
                },
                Some(order) = orders.recv() => {
                    // A shim that has just ended takes no more orders.
                    let _ = self.orders.write_all(&line(&order)).await;
                }
            }
        }
        self.child.wait().await?;
        // All of the output is in the log before anybody hears of the end.
        if let Some(end) = end {
            tell(Happening::Ended(end));
        }
        Ok(())
    }
}

fn line(message: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages are plain");
    line.push(b'\n');
    line
}
