// What happened to one execution, in order, with the time between.

import { h, icon, time } from "./dom.js";
import { STATUS_AFTER, clock, duration, eventDetail, eventName, isOver } from "./words.js";

/// Entries shown at most; further ones push out the oldest.
const SHOWN = 500;
/// A leap of less than this says nothing.
const NOTABLE = 100;

export class Timeline {
  element = h("ol", { class: "timeline" });
  #known = new Set();
  #last = null;

  clear() {
    this.#known.clear();
    this.#last = null;
    this.element.replaceChildren();
  }

  /// False for an event that is here already: delivery is at least once.
  add(event) {
    if (this.#known.has(event.event_id)) return false;
    this.#known.add(event.event_id);
    // Progress comes once a second; its bar shows it.
    if (event.event_type === "execution_progress") return true;
    const status = STATUS_AFTER[event.event_type];
    const at = Date.parse(event.timestamp);
    const since = this.#last !== null && at - this.#last >= NOTABLE ? `+${duration(at - this.#last)}` : "";
    this.#last = at;
    const isFirst = event.attempt > 1 && !this.element.querySelector(`[data-attempt="${event.attempt}"]`);
    const detail = eventDetail(event);
    const badge = h("span", { class: "mark", "data-status": isOver(status) ? status : null }, isOver(status) && icon(status));
    this.element.append(h("li", { "data-attempt": event.attempt, "data-type": event.event_type },
      badge,
      h("div", {},
        isFirst && h("p", { class: "quiet" }, `Attempt ${event.attempt}`),
        h("p", { class: "event" },
          h("strong", {}, eventName(event.event_type)),
          event.synthesized && h("span", { class: "tag", title: "It must have happened, but nobody saw it: the time is the container's own" }, "inferred")),
        detail && h("p", { class: "quiet detail" }, detail)),
      h("div", { class: "at" }, time(event.timestamp, clock(event.timestamp)), since && h("span", { class: "quiet" }, since))));
    while (this.element.childElementCount > SHOWN) this.element.firstElementChild.remove();
    return true;
  }
}

/// Waiting, starting and running as parts of one bar.
export class Phases {
  element = h("div", { class: "phases", hidden: true });
  #parts = ["waited for a node", "started", "ran"].map((name, index) => {
    const fill = h("span", { class: `part part-${index}`, "aria-hidden": "true" });
    const word = h("span");
    return { name, fill, word };
  });

  constructor() {
    this.element.append(
      h("div", { class: "track" }, this.#parts.map(part => part.fill)),
      h("p", { class: "quiet" }, this.#parts.map(part => part.word)));
  }

  show({ times, status }, now) {
    const at = text => (text ? Date.parse(text) : null);
    const [created, scheduled, started] = [at(times.created), at(times.scheduled), at(times.started)];
    const end = isOver(status) ? at(times.ended) : now;
    const lengths = [
      created !== null && (scheduled ?? end) !== null ? (scheduled ?? end) - created : null,
      scheduled !== null && (started ?? end) !== null ? (started ?? end) - scheduled : null,
      started !== null && end !== null ? end - started : null,
    ].map(length => (length === null ? null : Math.max(0, length)));
    this.element.hidden = lengths.every(length => length === null);
    this.#parts.forEach(({ name, fill, word }, index) => {
      const length = lengths[index];
      fill.style.flexGrow = length === null ? "0" : String(Math.max(length, 1));
      fill.hidden = length === null;
      // Kubernetes counts these in whole seconds.
      const shown = length === 0 ? "< 1 s" : duration(length >= 10_000 ? Math.floor(length / 1_000) * 1_000 : length);
      const text = length === null ? "" : `${name} ${shown}`;
      if (word.textContent !== text) word.textContent = text;
    });
  }
}
