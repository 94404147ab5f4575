// One execution, from before it appears to after it has ended.

import { executionPath, json, path } from "./api.js";
import { announce, badge, eachFrame, h, setText, time } from "./dom.js";
import { LiveOutput } from "./live.js";
import { OutputView } from "./output.js";
import { Stream } from "./stream.js";
import { Phases, Timeline } from "./timeline.js";
import { STATUS_AFTER, ago, bytes, cause, duration, isOver, plural, rank, verdict } from "./words.js";

const POLL_PAUSE = 3_000;
/// A snapshot follows the opening of a stream at once, unless there is no execution.
const PATIENCE = 300;
/// Several events come in one step; what they make together is asked for once.
const REFRESH_PAUSE = 60;

export class ExecutionPage {
  element;
  #id;
  #show;
  #stream;
  #execution = null;
  #pending = [];
  #hasEnded = false;
  #abort = new AbortController();
  #timers = [];
  #refreshTimer = null;
  #isAsking = false;
  #asksAgain = false;
  #live = new LiveOutput();
  #timeline = new Timeline();
  #phases = new Phases();
  #shownOutput = null;
  #drawSoon = eachFrame(() => this.#draw());

  constructor(id, show) {
    this.#id = id;
    this.#show = show;
    this.#build();
    this.#stream = new Stream(`${executionPath(id)}/events`, {
      reset: () => this.#timeline.clear(),
      snapshot: data => this.#set(data.execution),
      message: event => this.#take(event),
      output: frame => {
        this.#live.take(frame);
        this.#drawSoon();
      },
      end: () => {
        this.#hasEnded = true;
        this.#refresh();
      },
    }, state => this.#state(state));
    this.#timers = [setInterval(() => document.hidden || this.#draw(), 1_000), setInterval(() => this.#askWhyItWaits(), POLL_PAUSE)];
  }

  leave() {
    this.#abort.abort();
    this.#stream.close();
    this.#timers.forEach(clearInterval);
    clearTimeout(this.#refreshTimer);
  }

  #build() {
    this.badge = badge("pending");
    this.standing = h("p", { class: "standing" });
    this.progress = h("progress", { max: "100", "aria-label": "Progress" });
    this.progressText = h("span");
    this.progressBox = h("div", { class: "progress", hidden: true }, this.progress, this.progressText);
    this.why = h("section", { class: "panel why", hidden: true, "aria-labelledby": "why-title" });
    this.output = h("section", { class: "panel", "aria-label": "Output" });
    this.facts = h("dl", { class: "facts" });
    this.pods = h("div");
    this.labels = h("ul", { class: "labels" });
    this.body = h("div", { class: "columns", hidden: true },
      h("div", { class: "column" }, this.why, this.output),
      h("div", { class: "column" },
        h("section", { class: "panel", "aria-labelledby": "timeline-title" },
          h("h2", { id: "timeline-title" }, "What happened"), this.#phases.element, this.#timeline.element),
        h("section", { class: "panel", "aria-labelledby": "facts-title" },
          h("h2", { id: "facts-title" }, "Facts"), this.facts, this.labels),
        h("section", { class: "panel", "aria-labelledby": "pods-title" }, h("h2", { id: "pods-title" }, "Pods"), this.pods)));
    this.absent = h("div", { class: "empty", hidden: true, role: "status" });
    this.loading = h("p", { class: "quiet" }, "Loading");
    this.element = h("article", { class: "execution", "aria-labelledby": "execution-title" },
      h("p", {}, h("a", { href: "/", "data-route": true, "data-back": true }, "← All executions")),
      h("header", { class: "title" }, h("h1", { id: "execution-title", tabindex: "-1" }, this.#id), this.badge.element),
      this.standing, this.progressBox, this.loading, this.absent, this.body);
    this.badge.element.hidden = true;
  }

  #state(state) {
    this.#show(this.#hasEnded ? { name: "ended" } : state);
    if (state.name === "refused") this.#tellAbsent("This id cannot be asked for.", state.detail);
    if (state.name !== "live" || this.#execution) return;
    setTimeout(() => this.#lookWhetherItExists(), PATIENCE);
  }

  async #lookWhetherItExists() {
    if (this.#execution || this.#abort.signal.aborted) return;
    try {
      this.#set(await json(executionPath(this.#id), this.#abort.signal));
    } catch (error) {
      if (this.#abort.signal.aborted || this.#execution || error.status !== 404) return;
      this.#tellAbsent("Nobody has seen this execution yet.",
        "This page waits, and shows it as soon as its pod appears. If it has run long ago, its history may no longer be kept.");
      this.#show({ name: "waiting" });
    }
  }

  #tellAbsent(title, detail) {
    this.loading.hidden = true;
    this.absent.hidden = false;
    this.absent.replaceChildren(h("p", {}, title), h("p", { class: "quiet" }, detail ?? ""));
  }

  #set(execution) {
    const before = this.#execution;
    const isOlder = before && (execution.attempt < before.attempt
      || (execution.attempt === before.attempt && rank(execution.status) < rank(before.status)));
    if (isOlder) return;
    if (!before) this.#show({ name: this.#hasEnded ? "ended" : "live" });
    this.#execution = execution;
    if (before && before.status !== execution.status) announce(`Execution ${this.#id} is now ${execution.status}`);
    if (!before) this.#askWhyItWaits();
    this.#draw();
  }

  #take(event) {
    if (!this.#timeline.add(event)) return;
    const known = this.#execution;
    if (event.event_type === "execution_progress" && known && event.attempt === known.attempt) {
      known.progress = { percentage: event.progress_percentage, message: event.message };
      this.#drawSoon();
      return;
    }
    const status = STATUS_AFTER[event.event_type];
    const isPast = known && status && event.attempt <= known.attempt && rank(status) <= rank(known.status);
    if (!isPast) this.#refreshSoon();
  }

  #refreshSoon() {
    this.#refreshTimer ??= setTimeout(() => {
      this.#refreshTimer = null;
      this.#refresh();
    }, REFRESH_PAUSE);
  }

  /// An answer is never older than the frames before it, so what an execution is need not be worked out here.
  async #refresh() {
    if (this.#isAsking) {
      this.#asksAgain = true;
      return;
    }
    this.#isAsking = true;
    try {
      this.#set(await json(executionPath(this.#id), this.#abort.signal));
    } catch (error) {
      // If the server went away, the stream's next snapshot tells; after its end there is none.
      const asksOn = this.#hasEnded && error.status !== 404 && !this.#abort.signal.aborted;
      if (asksOn) this.#refreshTimer ??= setTimeout(() => {
        this.#refreshTimer = null;
        this.#refresh();
      }, POLL_PAUSE);
    } finally {
      this.#isAsking = false;
      if (this.#asksAgain) {
        this.#asksAgain = false;
        this.#refreshSoon();
      }
    }
  }

  async #askWhyItWaits() {
    const waits = this.#execution && rank(this.#execution.status) < rank("running");
    if (!waits || document.hidden) return;
    try {
      const page = await json(path("/pods", { execution: this.#id, limit: 20 }), this.#abort.signal);
      this.#pending = page.items.filter(pod => pod.pending).map(pod => ({ pod: pod.name, ...pod.pending }));
      this.#draw();
    } catch {
      // The next round asks again; the connection's state says that the server is away.
    }
  }

  #draw() {
    const execution = this.#execution;
    if (!execution) return;
    const now = Date.now();
    this.loading.hidden = true;
    this.absent.hidden = true;
    this.body.hidden = false;
    this.badge.element.hidden = false;
    this.badge.show(execution.status);
    document.title = `${execution.status} · ${this.#id} · podherald`;
    setText(this.standing, standing(execution, now));
    this.#phases.show(execution, now);
    this.#drawProgress(execution);
    this.#drawWhy(execution, now);
    this.#drawOutput(execution);
    this.#drawFacts(execution);
  }

  #drawProgress({ status, progress }) {
    const isShown = progress && !isOver(status) && (Number.isFinite(progress.percentage) || progress.message);
    this.progressBox.hidden = !isShown;
    if (!isShown) return;
    const isKnown = Number.isFinite(progress.percentage);
    if (isKnown) this.progress.value = progress.percentage;
    else this.progress.removeAttribute("value");
    setText(this.progressText, [isKnown ? `${Math.round(progress.percentage)} %` : "", progress.message].filter(Boolean).join(" · "));
  }

  #drawWhy(execution, now) {
    const isWaiting = !isOver(execution.status) && rank(execution.status) < rank("running") && this.#pending.length > 0;
    const key = JSON.stringify([execution.attempt, execution.cause, execution.amended, isWaiting && this.#pending]);
    this.why.hidden = !execution.cause && !isWaiting;
    if (isWaiting && this.since) setText(this.since, `since ${ago(this.#pending[0].since, now)}`.replace(" ago", ""));
    if (key === this.whyKey || this.why.hidden) return;
    this.whyKey = key;
    if (isWaiting) {
      this.since = h("span", { class: "quiet" });
      this.why.replaceChildren(h("h2", { id: "why-title" }, "Why it is not running yet "),
        h("p", {}, this.since),
        ...this.#pending.map(({ reason, message, pod }) => h("div", {},
          h("p", { class: "lead" }, reason), message && h("p", {}, message), h("p", { class: "quiet" }, pod))));
      return;
    }
    const { title, meaning } = cause(execution.cause);
    this.why.replaceChildren(
      h("h2", { id: "why-title" }, "Why"),
      h("p", { class: "lead" }, title),
      h("p", {}, execution.cause.message),
      meaning && h("p", { class: "quiet" }, meaning),
      h("h3", {}, "Evidence"),
      h("ul", { class: "evidence" }, execution.cause.evidence.map(line => h("li", {}, line))),
      ...execution.amended.flatMap(amendment => [
        h("h3", {}, "Became known later"),
        h("ul", { class: "evidence" }, amendment.evidence.map(line => h("li", {}, line)))]));
  }

  #drawOutput(execution) {
    const isFinal = execution.output !== null && execution.output !== undefined;
    const kind = isFinal ? `final ${execution.attempt}` : this.#live.isEmpty ? "none" : "live";
    if (kind === this.#shownOutput) return;
    this.#shownOutput = kind;
    if (isFinal) {
      this.#live.end();
      this.output.replaceChildren(...["stdout", "stderr"].flatMap(name => this.#stream_of(name, execution)));
      return;
    }
    const quiet = isOver(execution.status) ? "" : "Nothing has been printed yet, or it is not followed: it is read in full when the program ends.";
    this.output.replaceChildren(
      h("div", { class: "panel-title" }, h("h2", {}, "Output"), kind === "live" && h("span", { class: "tag live" }, "live")),
      kind === "live" ? this.#live.view.element : h("p", { class: "quiet" }, quiet));
    if (kind === "live") this.#live.view.follow();
  }

  #stream_of(name, execution) {
    const summary = execution.output[name];
    const text = execution[name] ?? "";
    const title = name === "stdout" ? "Output" : "Errors";
    const link = stream => path(`${executionPath(this.#id)}/output`, { stream });
    const head = h("div", { class: "panel-title" },
      h("h2", {}, title, " ", h("small", {}, name)),
      h("p", { class: "quiet", "data-verdict": summary.verdict }, verdict(summary)),
      summary.bytes_kept > 0 && h("a", { href: link(name), target: "_blank", rel: "noopener" }, "open the whole"),
      name === "stdout" && summary.bytes_kept > 0 && h("a", { href: link("raw"), target: "_blank", rel: "noopener" }, "raw log"));
    if (text === "") return [head, h("p", { class: "quiet" }, summary.verdict === "complete" ? "Nothing was printed here." : "Nothing of it is there.")];
    const view = new OutputView(`${title}, ${name}`, { follows: false });
    view.append(text);
    view.end();
    return [head, view.element];
  }

  #drawFacts(execution) {
    const key = JSON.stringify([execution.times, execution.exit, execution.resource_usage, execution.pods, execution.labels, execution.attempts, execution.oom]);
    if (key === this.factsKey) return;
    this.factsKey = key;
    const facts = factsOf(execution).filter(([, value]) => value !== null && value !== undefined && value !== "");
    this.facts.replaceChildren(...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    this.labels.replaceChildren(...Object.entries(execution.labels).map(([key, value]) =>
      h("li", {}, h("a", { href: path("/", { label: `${key}=${value}` }), "data-route": true, title: "All executions with this label" }, `${key}=${value}`))));
    this.pods.replaceChildren(h("ul", { class: "pods" }, execution.pods.map(pod => h("li", {},
      h("p", {}, h("strong", {}, pod.name), " ", h("span", { class: "tag" }, pod.phase)),
      h("p", { class: "quiet" }, [pod.namespace, pod.node_name && `on ${pod.node_name}`, execution.attempts > 1 && `attempt ${pod.attempt}`]
        .filter(Boolean).join(" · "))))));
  }
}

function standing(execution, now) {
  const { times, status } = execution;
  const node = execution.pods.findLast(pod => pod.attempt === execution.attempt)?.node_name;
  const on = node ? ` on ${node}` : "";
  const attempt = execution.attempts > 1 ? `, attempt ${execution.attempt} of ${execution.attempts}` : "";
  if (status === "running" && times.started) {
    return `Running for ${duration(Math.floor(Math.max(0, now - Date.parse(times.started)) / 1_000) * 1_000).replace(".0", "")}${on}${attempt}`;
  }
  if (!isOver(status)) return `Not running yet${on}${attempt}`;
  const took = times.started && times.ended ? ` after ${duration(Date.parse(times.ended) - Date.parse(times.started))}` : "";
  const { code, signal } = execution.exit ?? {};
  const how = Number.isInteger(code) ? `, exit code ${code}` : ", exit code unknown";
  const verb = { completed: "Completed", failed: "Failed", timeout: "Timed out", cancelled: "Cancelled" }[status];
  return `${verb}${took}${how}${signal ? `, signal ${signal}` : ""}${on}${attempt}`;
}

const SOURCES = { kubelet: "said by the kubelet", report: "said by the program's report", wrapper: "said by the wrapper", none: "nobody said" };

function factsOf({ exit, error_type, oom, user_id, retry_of, timeout_seconds, resource_usage, attempts, times }) {
  const usage = resource_usage ?? {};
  const at = text => (text ? time(text, new Date(text).toLocaleString()) : null);
  const cpu = usage.cpu_time_seconds
    ?? (usage.cpu_time_jiffies != null && usage.clk_tck_hertz ? usage.cpu_time_jiffies / usage.clk_tck_hertz : null);
  return [
    ["Exit", exit ? `${exit.code ?? "unknown"}, ${SOURCES[exit.source] ?? exit.source}` : null],
    ["Kind of error", error_type?.replaceAll("_", " ")],
    ["Out of memory", oom?.seen ? (oom.fatal ? "killed for it" : "seen, not fatal") : null],
    ["Deadline", timeout_seconds != null ? duration(timeout_seconds * 1_000) : null],
    ["Wall time", usage.execution_time_wall_seconds != null ? duration(usage.execution_time_wall_seconds * 1_000) : null],
    ["CPU time", cpu !== null ? duration(cpu * 1_000) : null],
    ["Peak memory", usage.peak_memory_kb != null ? bytes(usage.peak_memory_kb * 1_024) : null],
    ["Created", at(times.created)],
    ["Started", at(times.started)],
    ["Ended", at(times.ended)],
    ["User", user_id ? h("a", { href: path("/", { user: user_id }), "data-route": true }, user_id) : null],
    ["Retry of", retry_of ? h("a", { href: path("/", { execution: retry_of }), "data-route": true }, retry_of) : null],
    ["Attempts", attempts > 1 ? plural(attempts, "attempt") : null],
  ];
}
