// What the wire says, in words for a person.

export const STATUSES = ["pending", "queued", "scheduled", "running", "completed", "failed", "timeout", "cancelled"];

const RANKS = { pending: 0, queued: 1, scheduled: 2, running: 3, completed: 9, failed: 9, timeout: 9, cancelled: 9 };

export const rank = status => RANKS[status] ?? 0;
export const isOver = status => rank(status) === 9;

/// The status that an event brings about.
export const STATUS_AFTER = {
  execution_requested: "queued",
  execution_queued: "queued",
  execution_accepted: "scheduled",
  pod_created: "scheduled",
  pod_scheduled: "scheduled",
  execution_started: "running",
  execution_running: "running",
  execution_completed: "completed",
  execution_failed: "failed",
  execution_timeout: "timeout",
  execution_cancelled: "cancelled",
};

const CAUSES = {
  user_code: ["The program failed", "It ended by itself, and not with 0. What it printed is the place to look."],
  resource_limit: ["It went over a limit", "The program wanted more than its pod may have. Give it more, or make it need less."],
  timeout: ["It took too long", "The pod's deadline passed before the program had ended."],
  evicted: ["The node put it out", "The node ran short of something and removed the pod. Running it again may work."],
  preempted: ["It made room", "Something more important needed its place. Running it again may work."],
  node_lost: ["Its node was lost", "The node stopped answering, so nobody knows how far the program came."],
  never_started: ["It never started", "The pod could not run the program at all: look at the image, the command and the configuration."],
  cancelled: ["It was cancelled", "Somebody asked for its end."],
  deleted: ["Its pod was deleted", "Somebody deleted the pod before the program had ended."],
  platform: ["The platform failed it", "The fault lies with the cluster, not with the program."],
  unknown: ["Nobody knows why", "What was seen does not say why it ended, and podherald does not guess."],
};

/// A cause's title and what it means.
export function cause(of) {
  const [title, meaning] = CAUSES[of.class] ?? [of.class, ""];
  return { title, meaning };
}

const EVENTS = {
  execution_requested: "Requested",
  execution_queued: "Queued",
  execution_accepted: "Accepted",
  execution_cancel_requested: "Cancel requested",
  execution_started: "Program started",
  execution_running: "Running",
  execution_progress: "Progress",
  execution_completed: "Completed",
  execution_failed: "Failed",
  execution_timeout: "Timed out",
  execution_cancelled: "Cancelled",
  execution_amended: "More became known",
  pod_created: "Pod created",
  pod_refused: "Pod refused",
  pod_scheduled: "Got a node",
  pod_running: "Pod running",
  pod_terminated: "Pod ended",
  pod_deleted: "Pod gone",
  result_stored: "Result stored",
  result_failed: "Result not stored",
};

export const eventName = type => EVENTS[type] ?? type.replaceAll("_", " ");

/// What an event says beside its name.
export function eventDetail(event) {
  const parts = [];
  if (event.node_name) parts.push(`on ${event.node_name}`);
  if (event.event_type === "pod_scheduled" || event.event_type === "pod_created") parts.unshift(event.pod_name);
  if (event.container_statuses) parts.push(event.container_statuses.map(one => `${one.name}: ${one.state}`).join(", "));
  if (Number.isInteger(event.exit_code)) parts.push(`exit code ${event.exit_code}`);
  if (event.reason) parts.push(event.reason);
  const message = event.message ?? event.error_message;
  if (message) parts.push(message);
  if (Number.isFinite(event.progress_percentage)) parts.push(`${event.progress_percentage} %`);
  if (event.evidence) parts.push(event.evidence.join("; "));
  return parts.join(" · ");
}

/// How an execution ended, or where it stands, in a few words.
export function standing(item) {
  if (item.status === "completed") return "exit code 0";
  if (isOver(item.status)) {
    const how = Number.isInteger(item.code) ? `exit code ${item.code}` : item.signal ? `signal ${item.signal}` : "";
    return [item.cause ? cause(item.cause).title : "", item.reason, how].filter(Boolean).join(" · ");
  }
  if (item.status === "running") {
    const percentage = Number.isFinite(item.percentage) ? `${Math.round(item.percentage)} %` : "";
    return [percentage, item.message].filter(Boolean).join(" · ") || (item.node ? `on ${item.node}` : "");
  }
  return item.pending ? `waits: ${item.pending}` : "";
}

const VERDICTS = {
  complete: "complete",
  truncated: "cut: the program printed more than is kept",
  partial: "partial: the log could not be read to its end",
  lost: "lost: the log could not be read",
};

/// How far a stream of output can be trusted.
export function verdict(summary) {
  const kept = bytes(summary.bytes_kept);
  const size = Number.isInteger(summary.bytes_total) && summary.bytes_total !== summary.bytes_kept
    ? `${kept} of ${bytes(summary.bytes_total)}`
    : kept;
  const origin = summary.source === "message" ? ", from the container's last message" : "";
  return `${VERDICTS[summary.verdict] ?? summary.verdict}, ${size}${origin}`;
}

export function bytes(count) {
  if (count < 1024) return `${count} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let unit = -1;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${count.toFixed(count < 10 ? 1 : 0)} ${units[unit]}`;
}

/// A length of time. The clocks of nodes and browsers differ, so none is negative; Kubernetes counts in whole seconds, so
/// none is nothing.
export function duration(milliseconds) {
  const total = Math.max(0, milliseconds);
  if (total === 0) return "< 1 s";
  if (total < 1_000) return `${Math.round(total)} ms`;
  if (total < 10_000) return `${(total / 1_000).toFixed(1)} s`;
  const seconds = Math.round(total / 1_000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} m ${seconds % 60} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} m`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3_600)} h`;
}

export function ago(text, now) {
  const passed = now - Date.parse(text);
  return passed < 1_000 ? "now" : `${duration(Math.floor(passed / 1_000) * 1_000).replace(".0", "")} ago`;
}

/// The time of day, to the millisecond.
export function clock(text) {
  const at = new Date(text);
  const two = number => String(number).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
