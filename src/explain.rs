//! `podherald explain`: what podherald would say of pods and Jobs that somebody has at hand.
//!
//! The same mapper as in the server, fed from a file or standard input instead of a watch: pods, Jobs, lists, watch events, as
//! JSON, JSON lines or YAML. Nothing is asked of a cluster and no clock is read: the present is the latest time that the
//! input names, so the same input always gives the same output.

mod jobs;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, Read, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use podherald_core::{
    event::{Draft, Payload},
    evidence::Evidence,
    identity::{self, Place},
    job::Job,
    mapper::{self, Observation, Policy},
    output::{Collected, Limits, LogEnd, Scanner},
    pod::{ContainerState, Pod},
};
use serde_json::Value;

use crate::{monitor::wire, wording};

/// Bytes of input at most; a cluster's list of pods is far smaller.
const MAX_INPUT: u64 = 1 << 30;

/// What to explain and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file to read; none: standard input.
    pub file: Option<PathBuf>,
    /// Where the logs are: `<pod>.<container>.log` or `<pod>.log`.
    pub logs: Option<PathBuf>,
    /// For the mapper.
    pub policy: Policy,
    /// Where execution ids stand.
    pub places: Vec<Place>,
    /// For the logs.
    pub limits: Limits,
}

/// Why nothing, or not all, could be explained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The input is not what it should be.
    #[error(
        "{path} is neither JSON nor YAML ({reason}); give pods, Jobs, a list of them or watch events, as `kubectl get pod NAME -o json` prints them"
    )]
    Syntax {
        /// Which.
        path: String,
        /// What the parser said.
        reason: String,
    },
    /// It can be read, but no pod or Job is in it.
    #[error(
        "{path} holds no pod or Job; give pods, Jobs, a list of them or watch events, as `kubectl get pod NAME -o json` prints them"
    )]
    Empty {
        /// Which.
        path: String,
    },
    /// Nobody takes the output.
    #[error("cannot print: {0}")]
    Write(#[from] io::Error),
}

/// One frame of the input.
enum Frame {
    Pod { pod: Box<Pod>, is_gone: bool },
    Job { job: Box<Job>, is_gone: bool },
}

/// Explains the input on `out`, an event a line, and remarks on `remarks`.
///
/// # Errors
/// The input cannot be read or understood, or the output not written.
pub fn run(options: &Options, out: &mut dyn Write, remarks: &mut dyn Write) -> Result<(), Error> {
    let name = options.file.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    let text = read(options.file.as_deref()).map_err(|source| Error::Read { path: name.clone(), source })?;
    let values = parse(&text).map_err(|reason| Error::Syntax { path: name.clone(), reason })?;
    let mut frames = Vec::new();
    for value in values {
        collect_frames(value, &mut frames, remarks)?;
    }
    if frames.is_empty() {
        return Err(Error::Empty { path: name });
    }
    let mut printer = Printer { out, remarks, written: 0 };
    let now = frames.iter().flat_map(times).max().unwrap_or(Timestamp::UNIX_EPOCH);
    let mut explanation =
        Explanation { options, now, records: BTreeMap::new(), attempts: BTreeMap::new(), jobs: jobs_of(&frames) };
    for frame in &frames {
        match frame {
            Frame::Pod { pod, is_gone } => explanation.frame(pod, *is_gone, &mut printer)?,
            Frame::Job { job, is_gone } => explanation.job_frame(job, *is_gone, &mut printer)?,
        }
    }
    explanation.no_more_pods(&mut printer)?;
    explanation.close(printer.remarks)
}

/// Every Job as it was first seen: its pods may stand before it.
fn jobs_of(frames: &[Frame]) -> BTreeMap<String, Job> {
    let mut jobs = BTreeMap::new();
    for frame in frames {
        if let Frame::Job { job, .. } = frame {
            jobs.entry(job.uid.clone()).or_insert_with(|| Job::clone(job));
        }
    }
    jobs
}

fn read(file: Option<&Path>) -> io::Result<String> {
    let mut bytes = Vec::new();
    match file {
        Some(path) => File::open(path)?.take(MAX_INPUT).read_to_end(&mut bytes)?,
        None => io::stdin().lock().take(MAX_INPUT).read_to_end(&mut bytes)?,
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// JSON documents one after the other (so JSON lines too), else YAML documents.
fn parse(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with(['{', '[']) {
        return serde_json::Deserializer::from_str(text)
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|error| wording::of(&error));
    }
    serde_saphyr::from_multiple(text).map_err(|error| wording::of(&error))
}

fn collect_frames(value: Value, frames: &mut Vec<Frame>, remarks: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Array(values) => values.into_iter().try_for_each(|value| collect_frames(value, frames, remarks)),
        Value::Object(mut object) => {
            if let (Some(Value::String(kind)), Some(inner)) = (object.get("type").cloned(), object.get_mut("object")) {
                let inner = inner.take();
                return match kind.as_str() {
                    "ADDED" | "MODIFIED" => collect_frames(inner, frames, remarks),
                    "DELETED" => {
                        frames.extend(frame(inner, true, remarks)?);
                        Ok(())
                    }
                    "BOOKMARK" => Ok(()),
                    other => writeln!(remarks, "skipped a watch event of type {other}"),
                };
            }
            if let Some(Value::Array(items)) = object.get_mut("items") {
                let items = std::mem::take(items);
                return items.into_iter().try_for_each(|item| collect_frames(item, frames, remarks));
            }
            frames.extend(frame(Value::Object(object), false, remarks)?);
            Ok(())
        }
        Value::Null => Ok(()),
        other => writeln!(remarks, "skipped `{other}`: it is no object"),
    }
}

fn frame(value: Value, is_gone: bool, remarks: &mut dyn Write) -> io::Result<Option<Frame>> {
    // Reading is lenient down to the identity, so this cannot fail on content.
    let (frame, malformed) = match value.get("kind").and_then(Value::as_str) {
        Some("Pod") | None => {
            let read: wire::Pod = serde_json::from_value(value).unwrap_or_default();
            (read.facts.map(|pod| Frame::Pod { pod: Box::new(pod), is_gone }), read.malformed)
        }
        Some("Job") => {
            let read: wire::Job = serde_json::from_value(value).unwrap_or_default();
            (read.facts.map(|job| Frame::Job { job: Box::new(job), is_gone }), read.malformed)
        }
        Some(kind) => {
            writeln!(remarks, "skipped a {kind}: only pods and Jobs are explained")?;
            return Ok(None);
        }
    };
    for field in &malformed {
        writeln!(remarks, "{field} cannot be read and is taken as absent")?;
    }
    if frame.is_none() {
        writeln!(remarks, "skipped an object without metadata.name, metadata.namespace or metadata.uid")?;
    }
    Ok(frame)
}

/// All times that a frame names.
fn times(frame: &Frame) -> Vec<Timestamp> {
    let pod = match frame {
        Frame::Pod { pod, .. } => pod,
        Frame::Job { job, .. } => {
            let since = job.conditions.iter().filter_map(|condition| condition.since);
            return job.created.into_iter().chain(job.start_time).chain(job.deletion).chain(since).collect();
        }
    };
    let of_state = |state: &ContainerState| {
        let finished = state.terminated().and_then(|end| end.finished_at);
        [state.started_at(), finished].into_iter().flatten().collect::<Vec<_>>()
    };
    let statuses = pod.container_statuses.iter().chain(&pod.init_container_statuses);
    let mut times: Vec<Timestamp> =
        statuses.flat_map(|s| [of_state(&s.state), of_state(&s.last_state)].concat()).collect();
    times.extend(pod.created.into_iter().chain(pod.start_time).chain(pod.deletion));
    times.extend(pod.conditions.iter().filter_map(|condition| condition.since));
    times
}

struct Explanation<'a> {
    options: &'a Options,
    /// The present.
    now: Timestamp,
    /// Of pods and Jobs, and when each would be looked at again.
    records: BTreeMap<String, (Evidence, Option<Timestamp>)>,
    attempts: BTreeMap<String, u32>,
    /// The Jobs of the whole input.
    jobs: BTreeMap<String, Job>,
}

/// Where events and remarks go.
struct Printer<'a> {
    out: &'a mut dyn Write,
    remarks: &'a mut dyn Write,
    written: u64,
}

impl Printer<'_> {
    fn print(&mut self, draft: Draft) -> Result<(), Error> {
        let why = why(&draft);
        self.written += 1;
        let event = draft.number("pod-monitor:explain", self.written);
        let mut line = event.to_bytes();
        line.pop();
        self.out.write_all(&line)?;
        Ok(writeln!(self.out, ",\"why\":{}}}", Value::String(why))?)
    }

    fn remark(&mut self, text: std::fmt::Arguments<'_>) -> Result<(), Error> {
        Ok(writeln!(self.remarks, "{text}")?)
    }
}

impl Explanation<'_> {
    fn frame(&mut self, pod: &Pod, is_gone: bool, printer: &mut Printer<'_>) -> Result<(), Error> {
        if !self.records.contains_key(&pod.uid) {
            let evidence = match self.begin_pod_of_job(pod, printer)? {
                Some(evidence) => evidence,
                None => self.begin_pod(pod, printer)?,
            };
            self.records.insert(pod.uid.clone(), (evidence, None));
        }
        self.observe(&pod.uid, Observation::Seen(pod), printer)?;
        if is_gone {
            self.observe(&pod.uid, Observation::Gone { deleted: true }, printer)?;
        }
        Ok(())
    }

    fn begin_pod(&mut self, pod: &Pod, printer: &mut Printer<'_>) -> Result<Evidence, Error> {
        let id = identity::execution_id(pod, &self.options.places).map(str::to_owned);
        let id = self.id_or_name(id, "pod", &pod.name, printer)?;
        let attempt = self.next_attempt(&id);
        Ok(mapper::begin(pod, &id, attempt, &self.options.policy, self.now))
    }

    fn id_or_name(
        &self,
        id: Option<String>,
        kind: &str,
        name: &str,
        printer: &mut Printer<'_>,
    ) -> Result<String, Error> {
        if let Some(id) = id {
            return Ok(id);
        }
        let places = self.options.places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        printer
            .remark(format_args!("{kind} {name} has no execution id (looked in {places}); explained under its name"))?;
        Ok(name.to_owned())
    }

    fn next_attempt(&mut self, id: &str) -> u32 {
        let attempt = self.attempts.entry(id.to_owned()).or_default();
        *attempt += 1;
        *attempt
    }

    fn observe(&mut self, uid: &str, observation: Observation<'_>, printer: &mut Printer<'_>) -> Result<(), Error> {
        let Some((evidence, wake)) = self.records.get_mut(uid) else { return Ok(()) };
        let step = mapper::observe(evidence, observation, &self.options.policy, self.now);
        *wake = step.wake;
        let mut events = step.events;
        if step.collect {
            let collected = Observation::Collected(Box::new(collect(evidence, self.options, printer.remarks)?));
            events.extend(mapper::observe(evidence, collected, &self.options.policy, self.now).events);
        }
        for draft in events {
            printer.print(draft)?;
        }
        self.tell_job(uid, printer)
    }

    /// What is still open, and until when.
    fn close(&self, remarks: &mut dyn Write) -> Result<(), Error> {
        let is_open = |evidence: &Evidence| evidence.terminal.is_none() && evidence.ending.is_none();
        for (evidence, wake) in self.records.values().filter(|(evidence, _)| is_open(evidence)) {
            let kind = if evidence.subject.job().is_some() { "Job" } else { "pod" };
            write!(remarks, "{kind} {} has not ended", evidence.name)?;
            if let Some(pending) = &evidence.pending {
                write!(remarks, ": {}", pending.reason)?;
                if let Some(message) = &pending.message {
                    write!(remarks, " ({message})")?;
                }
            }
            if let Some(at) = wake {
                write!(remarks, "; if nothing changes it ends at {at}")?;
            }
            writeln!(remarks)?;
        }
        Ok(())
    }
}

/// The output of an attempt that ended, from `--logs`.
fn collect(evidence: &Evidence, options: &Options, remarks: &mut dyn Write) -> Result<Collected, Error> {
    let Some(ending) = &evidence.ending else { return Ok(Collected::default()) };
    let mut scanner = Scanner::new(options.limits);
    let end = match (&ending.container, &options.logs) {
        (None, _) => LogEnd::None,
        (Some(_), None) => LogEnd::Lost("no --logs given".to_owned()),
        (Some(container), Some(dir)) => {
            let candidates = [format!("{}.{container}.log", evidence.name), format!("{}.log", evidence.name)];
            match candidates.iter().map(|name| dir.join(name)).find(|path| path.is_file()) {
                Some(path) => scan(&path, &mut scanner)?,
                None => {
                    writeln!(
                        remarks,
                        "no log of pod {} in {}: neither {}",
                        evidence.name,
                        dir.display(),
                        candidates.join(" nor ")
                    )?;
                    LogEnd::Lost("not among the logs given".to_owned())
                }
            }
        }
    };
    Ok(scanner.finish(end, ending.message.as_deref()).into_inline_only())
}

fn scan(path: &Path, scanner: &mut Scanner) -> Result<LogEnd, Error> {
    let failed = |source| Error::Read { path: path.display().to_string(), source };
    let mut reader = io::BufReader::new(File::open(path).map_err(failed)?);
    loop {
        let chunk = reader.fill_buf().map_err(failed)?;
        if chunk.is_empty() {
            return Ok(LogEnd::Complete);
        }
        scanner.push(chunk);
        let taken = chunk.len();
        reader.consume(taken);
    }
}

/// One line for a person: why this event.
fn why(draft: &Draft) -> String {
    let made_up = if draft.synthesized { ", though nobody saw it happen" } else { "" };
    match &draft.payload {
        Payload::PodScheduled { node_name: Some(node), .. } => format!("the pod has node {node}{made_up}"),
        Payload::PodScheduled { node_name: None, .. } => format!("the pod was scheduled{made_up}"),
        Payload::ExecutionStarted { .. } => format!("the main container has a start time{made_up}"),
        Payload::PodRunning { .. } => format!("the pod's phase is Running and its containers have statuses{made_up}"),
        Payload::ExecutionRunning { .. } => format!("the main container runs{made_up}"),
        Payload::ExecutionProgress { .. } => "the program said how far it is".to_owned(),
        Payload::PodTerminated { reason: Some(reason), .. } => format!("the pod has ended: {reason}"),
        Payload::PodTerminated { .. } => "the pod has ended".to_owned(),
        Payload::PodDeleted { .. } => "the pod is gone".to_owned(),
        Payload::ExecutionAmended { .. } => "evidence came after the terminal event".to_owned(),
        Payload::ResultStored(_) => "the result is kept".to_owned(),
        Payload::ResultFailed { error, .. } => format!("the result cannot be kept: {error}"),
        Payload::ExecutionCompleted(terminal)
        | Payload::ExecutionFailed(terminal)
        | Payload::ExecutionTimeout(terminal)
        | Payload::ExecutionCancelled(terminal) => match &terminal.cause {
            Some(cause) => format!("{} [{}]", cause.message, cause.evidence.join("; ")),
            None => "the main container ended with exit code 0".to_owned(),
        },
    }
}
