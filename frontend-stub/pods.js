// What the monitor tracks, and whether it is well itself.

import { Problem, json, path } from "./api.js";
import { h, setText } from "./dom.js";
import { numbers, readiness, sinkWords } from "./health.js";
import { toExecution } from "./route.js";
import { Stream } from "./stream.js";
import { ago, plural } from "./words.js";

const PAGE = 200;
/// Pods that nothing happens to have no events, but an age.
const POLL_PAUSE = 5_000;
const REFRESH_PAUSE = 500;

const STATES = {
  tracked: "followed",
  collecting: "reading its output",
  ended: "ended",
  conflict: "claims another namespace's execution",
  unheld: "followed, not held",
};

export class PodsPage {
  element;
  #namespace;
  #abort = new AbortController();
  #stream;
  #timer;
  #refreshTimer = null;
  #pages = 1;

  constructor(namespace, show) {
    this.#namespace = namespace;
    this.#build();
    const soon = () => this.#refreshSoon();
    this.#stream = new Stream(path("/events", { namespace }), { snapshot: soon, message: soon }, show);
    this.#timer = setInterval(() => document.hidden || this.#refreshSoon(), POLL_PAUSE);
    this.#refresh();
  }

  leave() {
    this.#abort.abort();
    this.#stream.close();
    clearInterval(this.#timer);
    clearTimeout(this.#refreshTimer);
  }

  #build() {
    this.health = h("dl", { class: "facts health" });
    this.numbers = h("dl", { class: "facts numbers" });
    this.summary = h("p", { class: "quiet summary" }, "Loading");
    this.body = h("tbody");
    this.more = h("button", { type: "button", hidden: true, onclick: () => { this.#pages += 1; this.#refresh(); } }, "More pods");
    this.element = h("div", {},
      h("h1", { tabindex: "-1" }, "Pods and health"),
      h("section", { class: "panel", "aria-labelledby": "health-title" },
        h("h2", { id: "health-title" }, "Health"), this.health,
        h("details", {}, h("summary", {}, "Numbers"), this.numbers, h("p", {}, h("a", { href: "/metrics" }, "all of them")))),
      h("section", { "aria-labelledby": "pods-heading" },
        h("div", { class: "title" }, h("h2", { id: "pods-heading" }, "Pods"), this.summary),
        h("div", { class: "scrolls" },
          h("table", { class: "plain" },
            h("caption", { class: "hidden" }, "Pods that the monitor tracks"),
            h("thead", {}, h("tr", {}, ["Pod", "Phase", "Monitor", "Execution", "Node", "First seen"].map(name => h("th", { scope: "col" }, name)))),
            this.body)),
        h("p", { class: "more" }, this.more)));
  }

  #refreshSoon() {
    this.#refreshTimer ??= setTimeout(() => {
      this.#refreshTimer = null;
      this.#refresh();
    }, REFRESH_PAUSE);
  }

  async #refresh() {
    const { signal } = this.#abort;
    try {
      const [monitor, api, found] = await Promise.all([readiness("monitor", signal), readiness("api", signal), numbers(signal)]);
      this.#drawHealth(monitor, api, found);
      await this.#drawPods(signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      setText(this.summary, error.message);
    }
  }

  #drawHealth(monitor, api, found) {
    const row = (name, isWell, words) => h("div", {}, h("dt", {}, name),
      h("dd", { "data-well": String(isWell) }, h("span", { class: "dot", "aria-hidden": "true" }), words));
    const role = (name, { isWell, words }) => row(name, isWell, isWell ? words : `not ready: ${words}`);
    const sinks = (api.sinks ?? []).map(sink => row(`Sink ${sink.name}`, !sink.failing, sinkWords(sink)));
    const rows = [role("Monitor", monitor), role("API", api), ...sinks];
    if (rows.length !== this.health.children.length || rows.some((row, index) => row.textContent !== this.health.children[index]?.textContent)) this.health.replaceChildren(...rows);
    this.numbers.replaceChildren(...found.map(([name, value]) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, value.toLocaleString("en", { maximumFractionDigits: 1 })))));
  }

  async #drawPods(signal) {
    const pods = [];
    let after;
    for (let page = 0; page < this.#pages; page += 1) {
      const answer = await json(path("/pods", { namespace: this.#namespace, limit: PAGE, after }), signal);
      pods.push(...answer.items);
      after = answer.next;
      if (after === null) break;
    }
    this.more.hidden = after === null;
    const of = this.#namespace ? ` of namespace ${this.#namespace}` : "";
    setText(this.summary, `${plural(pods.length, "pod")}${of}${after === null ? "" : ", there are more"}`);
    const now = Date.now();
    const focused = document.activeElement?.closest?.("tr")?.dataset.uid;
    this.body.replaceChildren(...pods.map(pod => h("tr", { "data-uid": pod.uid },
      h("th", { scope: "row" }, pod.name, " ", h("span", { class: "quiet" }, pod.namespace)),
      h("td", {}, pod.phase, pod.pending && h("p", { class: "quiet" }, [pod.pending.reason, pod.pending.message].filter(Boolean).join(": "))),
      h("td", {}, STATES[pod.state] ?? pod.state),
      h("td", {}, h("a", { href: toExecution(pod.execution_id), "data-route": true }, pod.execution_id)),
      h("td", {}, pod.node_name ?? ""),
      h("td", {}, h("time", { datetime: pod.first_seen, title: new Date(pod.first_seen).toLocaleString() }, ago(pod.first_seen, now))))));
    if (focused) this.body.querySelector(`tr[data-uid="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
  }
}
