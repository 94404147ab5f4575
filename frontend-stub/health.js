// Is podherald itself well: the watch, the journal, the sinks, and the numbers behind them.

import { json, text } from "./api.js";
import { plural } from "./words.js";

/// Readiness of a role, in words, and how the sinks are doing.
export async function readiness(role, signal) {
  try {
    const { checks, sinks } = await json(`/readyz?role=${role}`, signal);
    return { sinks, isWell: true, words: checks.length > 0 ? `${[...new Set(checks)].join(" and ")} well` : "well" };
  } catch (error) {
    if (signal?.aborted) throw error;
    return { sinks: error.body?.sinks, isWell: false, words: error.status === 503 ? error.message.replace(/^Not ready: /, "") : error.message, isAway: error.status === 0 };
  }
}

/// How far a sink has come, in words.
export function sinkWords({ name, required, failing, lag_events, lag_seconds, rejected, missed, last_error }) {
  const unit = name === "blob" ? "output" : "event";
  const behind = lag_events > 0 ? `${plural(lag_events, unit)} behind, for ${plural(Math.round(lag_seconds), "second")}` : "has everything";
  return [
    failing ? `takes nothing: ${last_error}` : "",
    behind,
    rejected > 0 ? `${plural(rejected, unit)} left out` : "",
    missed > 0 ? `${plural(missed, "event")} missed` : "",
    required ? "required" : "",
  ].filter(Boolean).join("; ");
}

const NUMBERS = [
  ["podherald_monitor_tracked_pods", "Pods tracked"],
  ["podherald_monitor_collecting", "Outputs being read"],
  ["podherald_monitor_watch_staleness_seconds", "Seconds since the watch was last heard", Math.max],
  ["podherald_monitor_watch_failures_total", "Failed watch and list requests"],
  ["podherald_monitor_repairs_total", "Facts that only a full list brought"],
  ["podherald_journal_events_total", "Events made durable"],
  ["podherald_journal_append_failures_total", "Appends that failed"],
  ["podherald_journal_queued_appends", "Appends waiting"],
  ["podherald_http_streams", "Event streams open"],
  ["podherald_http_connections", "Connections open"],
];

/// The numbers that say most, out of the OpenMetrics text; series of one name are put together.
export async function numbers(signal) {
  const found = new Map();
  for (const line of (await text("/metrics", signal)).split("\n")) {
    const match = /^([a-z_]+)(?:\{[^}]*\})? ([0-9.e+-]+)/.exec(line);
    if (!match) continue;
    const [, name, value] = match;
    const join = NUMBERS.find(([known]) => known === name)?.[2] ?? ((a, b) => a + b);
    found.set(name, found.has(name) ? join(found.get(name), Number(value)) : Number(value));
  }
  return NUMBERS.filter(([name]) => found.has(name)).map(([name, words]) => [words, found.get(name)]);
}
