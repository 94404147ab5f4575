//! The process between the node and one container: it starts the container's program, measures it, and sees to it that
//! nothing of it is left.
//!
//! As a child subreaper the shim inherits every process that the program leaves behind, whatever it does to hide from its
//! group or session, so the shim's descendants are the container. When the program ends, when the node says so, or when the
//! node is gone (its end of the pipe closes, even by kill -9), the shim kills them all, and only then ends.
//!
//! Standard input: a [`Spec`] on the first line, then a line for each [`Order`]. Standard output: what the program prints, on both of
//! its streams. Standard error: a line for each [`Report`].

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsString,
    fs,
    io::{self, BufRead, Write},
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpid, getppid, kill_process, set_child_subreaper,
    set_parent_process_death_signal, setrlimit, wait,
};
use serde::{Deserialize, Serialize};

/// The second argument of a shim that only becomes the program.
const BECOME: &str = "become";
/// Between two looks at a container whose memory is limited; at others it looks for the number of processes only.
const LOOK_CLOSELY: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(250);

/// What to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) command: Vec<String>,
    /// All of the environment.
    pub(super) environment: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
    pub(super) memory_bytes: Option<u64>,
    pub(super) max_processes: usize,
}

/// What the node wants of a container that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Asks the program to end.
    Terminate,
    /// Ends everything.
    Kill,
}

/// What the node hears of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    Started,
    NotStarted { message: String },
    Ended(End),
}

/// How a container ended, with nothing of it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// As a shell has it: 128 and the signal for a program that a signal ended.
    pub(super) code: i32,
    /// Why the shim ended it, if it did by itself.
    pub(super) excess: Option<Excess>,
}

/// What a container had too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Excess {
    Memory,
    Processes,
}

enum Event {
    Order(Order),
    /// The node is gone.
    Orphaned,
    Reaped(Pid, ExitStatus),
}

/// Runs as a shim, if that is what these arguments, without the program's name, ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let done = match arguments.split_first() {
        Some((first, program)) if first == BECOME => become_program(program),
        _ => supervise(),
    };
    if let Err(error) = done {
        report(&Report::NotStarted { message: error.to_string() });
    }
    ExitCode::FAILURE
}

/// The program dies with the shim, should somebody kill that one.
fn become_program(program: &[OsString]) -> io::Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The shim may have gone before the line above took effect.
    if getppid() != parent {
        return Ok(());
    }
    let [path, name, arguments @ ..] = program else { return Err(io::ErrorKind::InvalidInput.into()) };
    Err(Command::new(path).arg0(name).args(arguments).exec())
}

fn supervise() -> io::Result<()> {
    let mut first = String::new();
    io::stdin().lock().read_line(&mut first)?;
    let spec: Spec = serde_json::from_str(&first)?;
    set_child_subreaper(Some(getpid()))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let program = match find(&spec) {
        Ok(program) => program,
        Err(message) => {
            report(&Report::NotStarted { message });
            return Ok(());
        }
    };
    // Both streams go down one pipe, so that they keep their order.
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    let child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1).take(1))
        .arg(BECOME)
        .arg(&program)
        .args(&spec.command)
        .env_clear()
        .envs(&spec.environment)
        .current_dir(&spec.directory)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()?;
    let main = Pid::from_child(&child);
    report(&Report::Started);

    let (tell, events) = mpsc::channel();
    let orders = tell.clone();
    thread::spawn(move || listen(&orders));
    thread::spawn(move || reap(&tell));
    let end = watch(&spec, main, &events);
    kill_all();
    report(&Report::Ended(end));
    Ok(())
}

/// Waits for the program's end and keeps it within its bounds.
fn watch(spec: &Spec, main: Pid, events: &mpsc::Receiver<Event>) -> End {
    let pause = if spec.memory_bytes.is_some() { LOOK_CLOSELY } else { LOOK };
    let mut excess = None;
    loop {
        match events.recv_timeout(pause) {
            // A program that its node asks to end may take its time.
            Ok(Event::Order(Order::Terminate)) => drop(kill_process(main, Signal::TERM)),
            Ok(Event::Order(Order::Kill) | Event::Orphaned) => kill_all(),
            Ok(Event::Reaped(pid, status)) if pid == main => {
                let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                return End { code: code.unwrap_or(255), excess };
            }
            Ok(Event::Reaped(..)) => {}
            // No child is left, and nobody reported this one: somebody else has reaped it.
            Err(RecvTimeoutError::Disconnected) => return End { code: 137, excess },
            Err(RecvTimeoutError::Timeout) => {
                let found = exceeded(spec);
                if found.is_some() {
                    excess = found;
                    kill_all();
                }
            }
        }
    }
}

fn exceeded(spec: &Spec) -> Option<Excess> {
    let processes = descendants();
    if processes.len() > spec.max_processes {
        return Some(Excess::Processes);
    }
    let limit = spec.memory_bytes?;
    let used: u64 = processes.into_iter().map(resident_bytes).sum();
    (used > limit).then_some(Excess::Memory)
}

fn listen(events: &mpsc::Sender<Event>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if let Ok(order) = serde_json::from_str(&line)
            && events.send(Event::Order(order)).is_err()
        {
            return;
        }
    }
    // Nobody listens any more only when all is over.
    let _ = events.send(Event::Orphaned);
}

fn reap(events: &mpsc::Sender<Event>) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::empty()) {
        if events.send(Event::Reaped(pid, ExitStatus::from_raw(status.as_raw()))).is_err() {
            return;
        }
    }
}

/// Kills every descendant until none is left. All are stopped first: what forks for ever would win a race with a list that
/// grows while it is read.
fn kill_all() {
    loop {
        let mut stopped = HashSet::new();
        loop {
            let mut new = descendants();
            new.retain(|pid| !stopped.contains(pid));
            if new.is_empty() {
                break;
            }
            for pid in new {
                let _ = kill_process(pid, Signal::STOP);
                stopped.insert(pid);
            }
        }
        if stopped.is_empty() {
            return;
        }
        for pid in stopped {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// All processes below this one that are not dead already.
fn descendants() -> Vec<Pid> {
    let mut found = Vec::new();
    let mut to_visit = vec![getpid()];
    while let Some(parent) = to_visit.pop() {
        for child in children(parent) {
            to_visit.push(child);
            if !is_zombie(child) {
                found.push(child);
            }
        }
    }
    found
}

/// A thread has children of its own, hence all threads.
fn children(parent: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", parent.as_raw_pid())) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>());
    pids.filter_map(Pid::from_raw).collect()
}

fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    // The name before it may hold anything, parentheses too.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn resident_bytes(pid: Pid) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_pid())).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// The program's file, or why it cannot be run, in the words of a container runtime.
fn find(spec: &Spec) -> Result<PathBuf, String> {
    let name = spec.command.first().map(String::as_str).unwrap_or_default();
    let (candidates, place): (Vec<PathBuf>, _) = if name.contains('/') {
        (vec![spec.directory.join(name)], "no such file or directory")
    } else {
        let path = spec.environment.get("PATH").map(String::as_str).unwrap_or_default();
        let places = path.split(':').map(|directory| spec.directory.join(directory).join(name));
        (places.collect(), "executable file not found in $PATH")
    };
    let is_file = |path: &&PathBuf| path.is_file() && !name.is_empty();
    let found = candidates.iter().filter(is_file).find(|path| is_executable(path));
    found.cloned().ok_or_else(|| {
        let why = if candidates.iter().any(|path| path.is_file()) { "permission denied" } else { place };
        format!("exec: {name:?}: {why}")
    })
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn report(report: &Report) {
    let mut line = serde_json::to_vec(report).expect("reports are plain");
    line.push(b'\n');
    // Nobody is there to hear it where the node is gone.
    let _ = io::stderr().lock().write_all(&line);
}
