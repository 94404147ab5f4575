//! One run of one container, from the node's side of its shim.

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Clock,
    log::Writer,
    shim::{End, Order, Report, Spec},
};

/// Read from a program at a time.
const CHUNK: usize = 64 << 10;

/// After its shim's end, a program's output is waited for so long: who could not be killed may hold it open for ever.
const DRAIN: Duration = Duration::from_secs(1);

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
    /// These processes of it could not be killed.
    Left(Vec<i32>),
    /// One of them holds its output open, which is read no further.
    OutputHeld,
    Ended(End),
}

/// Tells what happens to one container of a pod.
pub(super) struct Teller {
    /// Which, as the pod counts them.
    pub(super) container: usize,
    pub(super) to: mpsc::Sender<(usize, Happening)>,
}

impl Teller {
    async fn tell(&self, happening: Happening) {
        // Nobody listens only where the pod is gone.
        let _ = self.to.send((self.container, happening)).await;
    }
}

/// Runs a program to its end, and tells. Orders that come after that are ignored.
pub(super) async fn run(
    launcher: &Launcher,
    spec: &Spec,
    mut log: Writer,
    clock: Clock,
    mut orders: watch::Receiver<Option<Order>>,
    teller: &Teller,
) {
    let done = async {
        let mut shim = Shim::start(launcher, spec).await?;
        shim.follow(&mut log, &clock, &mut orders, teller).await
    };
    let last = match done.await {
        Ok(last) => last,
        Err(error) => Happening::NotStarted(format!("the container's shim failed: {error}")),
    };
    // Whoever follows the log has its end when anybody hears of the container's.
    drop(log);
    teller.tell(last).await;
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
            // It closes with this process or this value: that ends the shim too, and all below it.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let mut orders = child.stdin.take().expect("it was asked for");
        orders.write_all(&line(spec)).await?;
        Ok(Self { child, orders })
    }

    /// Until the shim's end; gives what remains to be told.
    async fn follow(
        &mut self,
        log: &mut Writer,
        clock: &Clock,
        orders: &mut watch::Receiver<Option<Order>>,
        teller: &Teller,
    ) -> io::Result<Happening> {
        let mut output = self.child.stdout.take().expect("it was asked for");
        let mut reports = BufReader::new(self.child.stderr.take().expect("it was asked for")).lines();
        let mut buffer = vec![0; CHUNK];
        // A shim that dies without a word takes the program with it.
        let mut last = Happening::Ended(End { code: 137, excess: None });
        let (mut has_output, mut has_reports) = (true, true);
        let mut drained_by = Instant::now();
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
                    Some(Ok(Report::Started)) => teller.tell(Happening::Started).await,
                    Some(Ok(Report::NotStarted { message })) => last = Happening::NotStarted(message),
                    Some(Ok(Report::Left { pids })) => teller.tell(Happening::Left(pids)).await,
                    Some(Ok(Report::Ended(end))) => last = Happening::Ended(end),
                    Some(Err(error)) => tracing::warn!(%error, "a container's shim said something that is no report"),
                    None => (has_reports, drained_by) = (false, Instant::now() + DRAIN),
                },
                () = sleep_until(drained_by), if !has_reports => {
                    has_output = false;
                    teller.tell(Happening::OutputHeld).await;
                }
                Ok(()) = orders.changed() => {
                    let order = *orders.borrow_and_update();
                    // A shim that has just ended takes no more orders.
                    let _ = self.orders.write_all(&line(&order)).await;
                }
            }
        }
        self.child.wait().await?;
        Ok(last)
    }
}

fn line(message: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages are plain");
    line.push(b'\n');
    line
}
