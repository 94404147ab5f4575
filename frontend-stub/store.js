// The executions that the list knows: bounded, newest first, each a few fields of what the wire says.

import { STATUS_AFTER, isOver, rank } from "./words.js";

/// More are not held; what is older is a narrower filter away.
export const MAX = 10_000;

export class Store {
  #items = new Map();
  /// All, newest first; none while it has to be made anew.
  #sorted = null;

  get size() {
    return this.#items.size;
  }

  get(id) {
    return this.#items.get(id);
  }

  values() {
    return this.#items.values();
  }

  clear() {
    this.#items.clear();
    this.#sorted = null;
  }

  /// All, newest first; the oldest beyond the bound are forgotten.
  sorted() {
    if (this.#sorted === null) {
      this.#sorted = [...this.#items.values()].sort(compare);
      for (const item of this.#sorted.splice(MAX)) this.#items.delete(item.id);
    }
    return this.#sorted;
  }

  /// Takes in an execution as the API shows it.
  put(execution) {
    const id = execution.execution_id;
    const known = this.#items.get(id);
    const item = known ?? { id };
    const isOlder = known && (execution.attempt < known.attempt
      || (execution.attempt === known.attempt && rank(execution.status) < rank(known.status)));
    const pod = execution.pods?.findLast(pod => pod.attempt === execution.attempt) ?? execution.pods?.at(-1);
    item.namespace = pod?.namespace ?? item.namespace ?? "";
    item.node = pod?.node_name ?? item.node ?? "";
    item.labels = execution.labels ?? {};
    item.user = execution.user_id ?? "";
    if (!isOlder) {
      item.status = execution.status;
      item.attempt = execution.attempt;
      item.attempts = execution.attempts;
      const created = execution.times.created ?? item.created;
      if (created !== item.created) this.#sorted = null;
      item.created = created;
      item.started = execution.times.started ?? null;
      item.ended = execution.times.ended ?? null;
      setEnd(item, execution);
      setProgress(item, execution.progress);
    }
    item.isStub = false;
    item.haystack = null;
    item.version = (item.version ?? 0) + 1;
    if (!known) this.#sorted = null;
    this.#items.set(id, item);
  }

  /// Takes in an event; true if it is of an execution of which nothing else is known.
  apply(event) {
    let item = this.#items.get(event.execution_id);
    const isNew = item === undefined;
    if (isNew) {
      item = {
        id: event.execution_id, status: "pending", attempt: event.attempt, attempts: event.attempt, isStub: true, version: 0,
        created: event.timestamp, started: null, ended: null, namespace: "", node: "", labels: {}, user: "",
      };
      this.#items.set(item.id, item);
      this.#sorted = null;
    }
    if (event.attempt < item.attempt) return isNew;
    if (event.attempt > item.attempt) {
      Object.assign(item, { attempt: event.attempt, attempts: event.attempt, status: "pending", started: null, ended: null });
      setEnd(item, {});
      setProgress(item, null);
    }
    if (event.node_name) item.node = event.node_name;
    if (event.event_type === "execution_progress") {
      setProgress(item, { percentage: event.progress_percentage, message: event.message });
    }
    const status = STATUS_AFTER[event.event_type];
    if (status !== undefined && rank(status) > rank(item.status)) {
      item.status = status;
      item.pending = null;
      if (status === "running") item.started = event.timestamp;
      if (isOver(status)) {
        item.ended = event.timestamp;
        setEnd(item, event);
      }
    }
    item.haystack = null;
    item.version += 1;
    return isNew;
  }
}

function setEnd(item, { exit, cause }) {
  item.code = exit?.code ?? null;
  item.signal = exit?.signal ?? null;
  item.cause = cause ? { class: cause.class } : null;
  item.reason = cause && cause.reason !== "Error" ? cause.reason : null;
}

function setProgress(item, progress) {
  item.percentage = progress?.percentage ?? null;
  item.message = progress?.message ?? null;
}

/// Newest first; equal times by id, so that the order never depends on who came first.
export function compare(a, b) {
  if (a.created !== b.created) return a.created < b.created ? 1 : -1;
  return a.id < b.id ? 1 : -1;
}

/// True if the item has all the words of a search, wherever they stand.
export function matches(item, words) {
  if (words.length === 0) return true;
  item.haystack ??= [
    item.id, item.status, item.namespace, item.node, item.user, item.cause?.class, item.reason, item.message,
    ...Object.entries(item.labels).map(([key, value]) => `${key}=${value}`),
  ].filter(Boolean).join(" ").toLowerCase();
  return words.every(word => item.haystack.includes(word));
}
