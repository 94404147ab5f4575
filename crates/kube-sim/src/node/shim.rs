//! The process between the node and one container: it starts the container's program, measures it, and sees to it that
//! nothing of it is left.
//!
//! As a child subreaper the shim inherits every process that the program leaves behind, whatever it does to hide from its
//! group or session, so the shim's descendants are the container. When the program ends, when the node says so, or when the
//! node is gone (its end of the pipe closes, even by kill -9), the shim kills them all, and only then ends.
//!
//! Standard input: what to run, on the first line, then a line for each order. Standard output: what the program prints, on
//! both of its streams. Standard error: a line for each report.

#![expect(clippy::disallowed_methods, reason = "a small synchronous program: it has no runtime and no paused clock")]

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
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpid, getppid, kill_process, set_child_subreaper,
    set_parent_process_death_signal, setrlimit, wait,
};
use serde::{Deserialize, Serialize};

/// The second argument of a shim that only becomes the program.
const BECOME: &str = "become";
/// How a program ends that cannot be executed although its file can be, as runc has it.
const NOT_EXECUTED: u8 = 255;
/// How a killed one ends.
const KILLED: i32 = 137;
/// Between two looks at what a container uses.
const LOOK: Duration = Duration::from_millis(50);
/// Until the first look at what is left of a killed one; then longer and longer.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// What is not gone so long after it was killed cannot be killed: another user's, or stuck in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Orders and the end: the program's end, one wish to end, one order to.
const EVENTS: usize = 4;

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
    NotStarted {
        message: String,
    },
    /// Processes that could not be killed and are left to themselves.
    Left {
        pids: Vec<i32>,
    },
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
    Ended(ExitStatus),
}

/// Runs as a shim, if that is what these arguments, without the program's name, ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some((first, program)) = arguments.split_first()
        && first == BECOME
    {
        return become_program(program);
    }
    if let Err(error) = supervise() {
        report(&Report::NotStarted { message: error.to_string() });
    }
    ExitCode::SUCCESS
}

/// Replaces itself by the program, which dies with the shim, should somebody kill that one.
fn become_program(arguments: &[OsString]) -> ExitCode {
    let [shim, path, name, arguments @ ..] = arguments else { return NOT_EXECUTED.into() };
    let parent = || getppid().map(|pid| pid.as_raw_pid().to_string().into());
    // The shim may have gone before its death was asked to be told.
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() || parent().as_ref() != Some(shim) {
        return NOT_EXECUTED.into();
    }
    let error = Command::new(path).arg0(name).args(arguments).exec();
    // Standard error is the container's output by now.
    let _ = writeln!(io::stderr(), "exec {}: {error}", path.display());
    NOT_EXECUTED.into()
}

fn supervise() -> io::Result<()> {
    let mut first = String::new();
    io::stdin().lock().read_line(&mut first)?;
    let spec: Spec = serde_json::from_str(&first)?;
    fs::read("/proc/thread-self/children")
        .map_err(|_| io::Error::other("this kernel has no /proc/PID/task/TID/children"))?;
    set_child_subreaper(Some(getpid()))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let main = match find(&spec).and_then(|program| start(&spec, &program)) {
        Ok(main) => main,
        Err(message) => {
            report(&Report::NotStarted { message });
            return Ok(());
        }
    };
    report(&Report::Started);

    let (tell, events) = mpsc::sync_channel(EVENTS);
    let orders = tell.clone();
    // Ends with this process: it waits for standard input.
    thread::spawn(move || listen(&orders));
    let reaper = thread::spawn(move || reap(main, &tell));
    let (end, left) = watch(&spec, main, &events, &reaper);
    if !left.is_empty() {
        report(&Report::Left { pids: left.into_iter().map(Pid::as_raw_pid).collect() });
    }
    report(&Report::Ended(end));
    Ok(())
}

fn start(spec: &Spec, program: &Path) -> Result<Pid, String> {
    if !spec.directory.is_dir() {
        return Err(format!(
            "chdir to cwd ({:?}) set in config.json failed: no such file or directory",
            spec.directory
        ));
    }
    let spawned = || {
        // Both streams go down one pipe, so that they keep their order.
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Command::new("/proc/self/exe")
            .args(std::env::args_os().skip(1).take(1))
            .arg(BECOME)
            .arg(getpid().as_raw_pid().to_string())
            .arg(program)
            .args(&spec.command)
            .env_clear()
            .envs(&spec.environment)
            .current_dir(&spec.directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
    };
    let child = spawned().map_err(|error| format!("exec: {:?}: {error}", spec.command[0]))?;
    Ok(Pid::from_child(&child))
}

/// Waits for the program's end, keeps it within its bounds, and ends all that is left then. Gives what cannot be ended too.
fn watch(spec: &Spec, main: Pid, events: &mpsc::Receiver<Event>, reaper: &JoinHandle<()>) -> (End, Vec<Pid>) {
    let mut excess = None;
    loop {
        let must_end = match events.recv_timeout(LOOK) {
            // A program that its node asks to end may take its time.
            Ok(Event::Order(Order::Terminate)) => {
                let _ = kill_process(main, Signal::TERM);
                false
            }
            Ok(Event::Order(Order::Kill)) => true,
            Ok(Event::Ended(status)) => {
                let left = kill_all(reaper).err().unwrap_or_default();
                return (End { code: code_of(status), excess }, left);
            }
            // No child is left, and nobody was told of this one: somebody else has reaped it.
            Err(RecvTimeoutError::Disconnected) => return (End { code: KILLED, excess }, Vec::new()),
            Err(RecvTimeoutError::Timeout) => {
                excess = excess.or_else(|| exceeded(spec));
                excess.is_some()
            }
        };
        if must_end && let Err(left) = kill_all(reaper) {
            let ended = events.try_iter().find_map(|event| match event {
                Event::Ended(status) => Some(code_of(status)),
                Event::Order(_) => None,
            });
            return (End { code: ended.unwrap_or(KILLED), excess }, left);
        }
    }
}

fn code_of(status: ExitStatus) -> i32 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.unwrap_or(i32::from(NOT_EXECUTED))
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

/// Hands on what the node says, and takes its silence for an order to end everything; nothing comes after that order.
fn listen(events: &mpsc::SyncSender<Event>) {
    let orders = io::stdin().lock().lines().map_while(Result::ok);
    for order in orders.filter_map(|line| serde_json::from_str(&line).ok()).chain([Order::Kill]) {
        if events.send(Event::Order(order)).is_err() || order == Order::Kill {
            return;
        }
    }
}

/// Takes note of every end, until this process has no children any more. Whatever loses its parent becomes a child of this
/// process, so nothing of the container is left then.
fn reap(main: Pid, events: &mpsc::SyncSender<Event>) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == main => {
                // Nobody waits for it any more only when all is over.
                let _ = events.send(Event::Ended(ExitStatus::from_raw(status.as_raw())));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Kills every descendant until none is left.
///
/// # Errors
/// Those that will not go.
fn kill_all(reaper: &JoinHandle<()>) -> Result<(), Vec<Pid>> {
    // Who has ended meanwhile needs no signal, and who may not be sent one shows by staying.
    let signal = |pid, signal| {
        let _ = kill_process(pid, signal);
    };
    kill_until(|| reaper.is_finished(), descendants, signal, KILL_PATIENCE)
}

/// All are stopped first: what forks for ever would win a race with a list that grows while it is read.
fn kill_until(
    is_over: impl Fn() -> bool,
    list: impl Fn() -> Vec<Pid>,
    signal: impl Fn(Pid, Signal),
    patience: Duration,
) -> Result<(), Vec<Pid>> {
    let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
    while !is_over() {
        let mut stopped = HashSet::new();
        loop {
            let mut new = list();
            new.retain(|pid| stopped.insert(*pid));
            new.iter().for_each(|pid| signal(*pid, Signal::STOP));
            if new.is_empty() || begun.elapsed() > patience {
                break;
            }
        }
        stopped.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        thread::sleep(pause);
        pause = (pause * 2).min(LOOK);
        // Whatever the list says: it may lack what is not over all the same.
        if begun.elapsed() > patience {
            return Err(list());
        }
    }
    Ok(())
}

/// All processes below this one that are not dead already.
fn descendants() -> Vec<Pid> {
    let mut found = Vec::new();
    let mut to_visit = vec![getpid()];
    while let Some(parent) = to_visit.pop() {
        for child in children(parent) {
            to_visit.push(child);
            if !is_dead(&stat(child)) {
                found.push(child);
            }
        }
    }
    found
}

/// A thread has children of its own, hence all threads.
fn children(parent: Pid) -> Vec<Pid> {
    let lists = threads(parent).filter_map(|thread| fs::read_to_string(thread.join("children")).ok());
    let pids = lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>());
    pids.filter_map(Pid::from_raw).collect()
}

/// Where the kernel tells of a process's threads.
fn threads(pid: Pid) -> impl Iterator<Item = PathBuf> {
    let directory = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid()));
    directory.into_iter().flatten().flatten().map(|thread| thread.path())
}

/// Empty where there is no such process.
fn stat(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default()
}

/// A process whose first thread has ended is called a zombie while others of its threads still run.
fn is_dead(stat: &str) -> bool {
    // The name before it may hold anything, parentheses too.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return true };
    let threads = rest.split(' ').nth(17).and_then(|threads| threads.parse::<u32>().ok());
    rest.starts_with(['Z', 'X']) && threads.is_none_or(|threads| threads <= 1)
}

/// All threads share it, and one that has ended has none: the first may be such a one.
fn resident_bytes(pid: Pid) -> u64 {
    let pages = |statm: String| statm.split(' ').nth(1)?.parse::<u64>().ok().filter(|pages| *pages > 0);
    let shared = threads(pid).find_map(|thread| pages(fs::read_to_string(thread.join("statm")).ok()?));
    shared.unwrap_or(0) * rustix::param::page_size() as u64
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    fn pid(raw: i32) -> Pid {
        Pid::from_raw(raw).unwrap()
    }

    #[test]
    fn what_cannot_be_killed_is_given_up_and_the_rest_is_not() {
        let alive = RefCell::new(vec![pid(7), pid(8), pid(9)]);
        let refuses = pid(8);
        let signal = |pid, signal| {
            if signal == Signal::KILL && pid != refuses {
                alive.borrow_mut().retain(|one| *one != pid);
            }
        };
        let left =
            kill_until(|| alive.borrow().is_empty(), || alive.borrow().clone(), signal, Duration::from_millis(20));
        assert_eq!(left, Err(vec![refuses]));
    }

    #[test]
    fn what_breeds_and_cannot_be_stopped_is_given_up_too() {
        let born = Cell::new(100);
        let breed = || {
            born.set(born.get() + 1);
            vec![pid(7), pid(born.get())]
        };
        let left = kill_until(|| false, breed, |_, _| {}, Duration::from_millis(20));
        assert!(left.is_err_and(|left| !left.is_empty()));
    }

    #[test]
    fn what_is_not_over_though_nobody_is_seen_is_given_up_too() {
        let left = kill_until(|| false, Vec::new, |_, _| {}, Duration::from_millis(20));
        assert_eq!(left, Err(Vec::new()));
    }

    #[test]
    fn only_a_process_none_of_whose_threads_runs_is_dead() {
        let stat = |state, threads| {
            format!("7 (a) Z (b)) {state} 1 7 7 0 -1 4227084 47 0 0 0 0 0 0 0 20 0 {threads} 0 1084 0 0")
        };
        for (state, threads, dead) in [("S", 1, false), ("Z", 2, false), ("Z", 1, true), ("X", 0, true)] {
            assert_eq!(is_dead(&stat(state, threads)), dead, "{state} {threads}");
        }
        assert!(is_dead(""), "one that is not there");
    }
}
