// All executions, live.

import { Problem, json, path } from "./api.js";
import { announce, eachFrame, h, icon, setAttribute, setText } from "./dom.js";
import { go, toList } from "./route.js";
import { Rows } from "./rows.js";
import { MAX, Store, compare, matches } from "./store.js";
import { Stream } from "./stream.js";
import { STATUSES, isOver, plural, rank } from "./words.js";

/// Items asked for at a time.
const PAGE = 500;
/// New order and counts at most so often; rows in sight follow at once.
const SORT_PAUSE = 150;
/// Executions without an event are not on the stream, and neither is why a pod waits.
const POLL_PAUSE = 5_000;

export class List {
  element;
  #store = new Store();
  #rows;
  #filter = null;
  #stream = null;
  #lastId = "";
  #show;
  #words = [];
  /// What is shown; it stands still while somebody reads further down.
  #order = [];
  #held = 0;
  /// What would be shown if it did not stand still.
  #considered = null;
  #isAtTop = true;
  #hasMore = false;
  #next = undefined;
  #isLoading = false;
  #failure = null;
  #hasSnapshot = false;
  #sorted = 0;
  #sortTimer = null;
  #enrichTimer = null;
  #timers = [];
  #scroll = 0;
  #ended = new Map();
  #abort = null;

  /// `show` is told of the connection's state.
  constructor(show) {
    this.#show = show;
    this.#rows = new Rows((isAtTop, isNearEnd) => this.#scrolled(isAtTop, isNearEnd));
    this.#build();
  }

  #build() {
    const apply = replace => go(toList(this.#typed()), { replace });
    const typing = eachFrame(() => apply(true));
    const field = (name, label, hint) => {
      const input = h("input", { id: `filter-${name}`, type: "search", autocomplete: "off", spellcheck: "false", placeholder: hint });
      return [input, h("label", { class: "field", for: input.id }, h("span", {}, label), input)];
    };
    const [text, textField] = field("text", "Search", "in what is loaded");
    const [namespace, namespaceField] = field("namespace", "Namespace", "any");
    const [label, labelField] = field("label", "Labels", "key=value, …");
    const [user, userField] = field("user", "User", "any");
    this.inputs = { text, namespace, label, user };
    text.addEventListener("input", typing);
    for (const input of [namespace, label, user]) input.addEventListener("change", () => apply(false));

    this.chips = new Map(STATUSES.map(status => {
      const count = h("span", { class: "count" });
      const button = h("button", { type: "button", class: "chip", "aria-pressed": "false", "data-status": status },
        icon(status), status, count);
      button.addEventListener("click", () => {
        const { status: chosen } = this.#filter;
        const next = chosen.includes(status) ? chosen.filter(one => one !== status) : [...chosen, status];
        go(toList({ ...this.#typed(), status: next }));
      });
      return [status, { button, count }];
    }));
    this.summary = h("p", { class: "quiet summary" });
    this.fresh = h("button", { type: "button", class: "fresh", hidden: true, onclick: () => this.#toTop() });
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.#loadMore() }, "Load older ones");
    this.empty = h("div", { class: "empty", hidden: true });
    this.element = h("section", { "aria-labelledby": "list-title" },
      h("div", { class: "title" }, h("h1", { id: "list-title" }, "Executions"), this.summary),
      h("form", { class: "filters", role: "search", "aria-label": "Filter executions", onsubmit: event => event.preventDefault() },
        h("div", { class: "fields" }, textField, namespaceField, labelField, userField),
        h("div", { class: "chips", role: "group", "aria-label": "Status" }, [...this.chips.values()].map(({ button }) => button))),
      this.fresh, this.#rows.element, this.empty, h("p", { class: "more" }, this.more));
  }

  /// The filter as the form has it.
  #typed() {
    const value = name => this.inputs[name].value.trim();
    return {
      status: this.#filter?.status ?? [],
      namespace: value("namespace"),
      label: value("label").split(",").map(one => one.trim()).filter(Boolean),
      user: value("user"),
      text: this.inputs.text.value,
    };
  }

  /// Shows what the filter admits; asks anew only for what the server filters.
  open(filter, { isTyping = false } = {}) {
    const before = this.#filter;
    this.#filter = filter;
    if (!isTyping) this.#fill(filter);
    this.#words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
    const isSame = (...names) => before !== null && names.every(name => `${before[name]}` === `${filter[name]}`);
    if (this.#stream === null || !isSame("namespace", "label", "user")) this.#start(isSame("namespace", "label", "user"));
    if (!isSame("namespace", "label", "user", "status")) {
      this.#next = undefined;
      this.#hasMore = filter.status.length > 0;
      if (this.#hasMore) this.#loadMore();
    }
    if (!isSame("namespace", "label", "user", "status", "text")) this.#thaw();
    if (this.#timers.length === 0) {
      this.#timers = [setInterval(() => this.#tick(), 1_000), setInterval(() => this.#poll(), POLL_PAUSE)];
    }
    this.#sort();
  }

  /// Puts what was left back in sight.
  restore() {
    scrollTo({ top: this.#scroll, behavior: "instant" });
    this.#rows.focusActive();
  }

  /// Lets go of the connection; what is known stays for whoever comes back.
  leave() {
    this.#scroll = scrollY;
    this.#lastId = this.#stream?.lastId ?? "";
    this.#stream?.close();
    this.#stream = null;
    this.#abort?.abort();
    this.#timers.forEach(clearInterval);
    this.#timers = [];
  }

  move(step) {
    return this.#rows.move(step);
  }

  search() {
    this.inputs.text.focus();
    this.inputs.text.select();
  }

  #fill(filter) {
    const values = { ...filter, label: filter.label.join(", ") };
    for (const [name, input] of Object.entries(this.inputs)) input.value = values[name];
    for (const [status, { button }] of this.chips) setAttribute(button, "aria-pressed", filter.status.includes(status));
  }

  /// What the server filters, but for the status: the stream must also tell of what leaves it.
  #scope() {
    const { namespace, label, user } = this.#filter;
    return { namespace, label: user ? [...label, `user-id=${user}`] : label };
  }

  #start(resumes) {
    this.#stream?.close();
    this.#abort?.abort();
    this.#abort = new AbortController();
    this.#isLoading = false;
    if (!resumes) {
      this.#store.clear();
      this.#hasSnapshot = false;
      this.#lastId = "";
    }
    const handlers = {
      reset: () => this.#store.clear(),
      snapshot: data => {
        for (const execution of data.executions) this.#store.put(execution);
        this.#hasSnapshot = true;
        if (this.#next === undefined) this.#hasMore ||= data.truncated;
        this.#poll();
        this.#sort();
      },
      message: event => this.#take(event),
    };
    this.#stream = new Stream(path("/events", this.#scope()), handlers, state => this.#show(state), this.#lastId);
  }

  #take(event) {
    const before = this.#store.get(event.execution_id)?.status;
    if (this.#store.apply(event)) this.#enrichSoon();
    const { status } = this.#store.get(event.execution_id);
    if (status !== before && isOver(status)) {
      this.#ended.set(status, (this.#ended.get(status) ?? 0) + 1);
      announce([...this.#ended].map(([status, count]) => `${count} ${status}`).join(", "));
    }
    this.#sortSoon();
    this.#rows.refresh();
  }

  #sortSoon() {
    if (this.#sortTimer !== null) return;
    const pause = Math.max(0, this.#sorted + SORT_PAUSE - performance.now());
    this.#sortTimer = setTimeout(() => this.#sort(), pause);
  }

  #sort() {
    clearTimeout(this.#sortTimer);
    this.#sortTimer = null;
    this.#sorted = performance.now();
    const all = this.#store.sorted();
    if (all.length === MAX) this.#hasMore = false;
    const found = this.#words.length === 0 ? all : all.filter(item => matches(item, this.#words));
    const counts = new Map();
    for (const { status } of found) counts.set(status, (counts.get(status) ?? 0) + 1);
    const chosen = this.#filter.status;
    const order = chosen.length === 0 ? found : found.filter(item => chosen.includes(item.status));
    if (this.#isAtTop) {
      this.#order = order;
      this.#held = 0;
    } else if (order !== this.#considered) {
      this.#holdBack(order);
    }
    this.#considered = order;
    this.#rows.show(this.#order);
    this.#label(counts);
  }

  /// Below the top nothing moves: what is newer waits, what is older joins at the end.
  #holdBack(order) {
    const known = new Set(this.#order);
    const kept = this.#order.filter(item => this.#store.get(item.id) === item);
    const last = kept.at(-1);
    const isOlder = item => last === undefined || compare(last, item) < 0;
    const fresh = order.filter(item => !known.has(item));
    const older = fresh.filter(isOlder);
    this.#held = fresh.length - older.length;
    this.#order = [...kept, ...older];
  }

  #thaw() {
    this.#isAtTop = true;
    this.#held = 0;
    if (this.element.isConnected) scrollTo({ top: 0, behavior: "instant" });
  }

  #toTop() {
    this.#thaw();
    this.#sort();
    this.#rows.move("first");
  }

  #scrolled(isAtTop, isNearEnd) {
    const comesBack = isAtTop && !this.#isAtTop;
    this.#isAtTop = isAtTop;
    if (comesBack && this.#held > 0) this.#sortSoon();
    if (isNearEnd && this.#hasMore && this.#words.length === 0 && this.#failure === null && scrollY > 0) this.#loadMore();
  }

  #label(counts) {
    for (const [status, { button, count }] of this.chips) {
      setText(count, counts.has(status) ? counts.get(status).toLocaleString("en") : "");
      setAttribute(button, "data-none", counts.has(status) ? null : "");
    }
    const size = this.#order.length;
    const known = this.#store.size;
    const words = size === known ? plural(size, "execution") : `${size.toLocaleString("en")} of ${plural(known, "execution")}`;
    setText(this.summary, this.#hasSnapshot ? `${words}${this.#hasMore ? " loaded, there are more" : ""}` : "Loading");
    this.fresh.hidden = this.#held === 0;
    setText(this.fresh, `${this.#held.toLocaleString("en")} new ↑`);
    this.more.hidden = !this.#hasMore && this.#failure === null;
    setText(this.more, this.#failure ?? (this.#isLoading ? "Loading …" : "Load older ones"));
    this.#rows.element.hidden = size === 0;
    const isEmpty = size === 0 && this.#hasSnapshot && !this.#isLoading;
    if (isEmpty && this.empty.hidden) this.empty.replaceChildren(...this.#nothing());
    this.empty.hidden = !isEmpty;
  }

  #nothing() {
    if (toList(this.#filter) !== "/") {
      return [h("p", {}, "No execution that is loaded passes this filter."),
        h("p", {}, h("a", { href: "/", "data-route": true }, "Show all"))];
    }
    return [h("p", {}, "Nothing has run yet."),
      h("p", { class: "quiet" }, "Create a pod with the label ", h("code", {}, "execution-id"), ": it appears here by itself.")];
  }

  async #loadMore() {
    if (this.#isLoading) return;
    this.#isLoading = true;
    this.#failure = null;
    const { signal } = this.#abort;
    const { status } = this.#filter;
    const query = { ...this.#scope(), status: status.join(","), after: this.#next, limit: PAGE };
    try {
      const page = await json(path("/executions", query), signal);
      if (`${this.#filter.status}` !== `${status}`) return;
      for (const execution of page.items) this.#store.put(execution);
      this.#next = page.next;
      this.#hasMore = page.next !== null && this.#store.size < MAX;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 410) this.#next = undefined;
      this.#failure = `${error.message}. Try again`;
    } finally {
      if (signal === this.#abort.signal) {
        this.#isLoading = false;
        const isOld = `${this.#filter.status}` !== `${status}`;
        if (isOld && this.#filter.status.length > 0) this.#loadMore();
        this.#sort();
      }
    }
  }

  /// An event has no labels and no namespace; the newest page has, for all that are new at once.
  #enrichSoon() {
    this.#enrichTimer ??= setTimeout(async () => {
      const stubs = [...this.#store.values()].filter(item => item.isStub).length;
      await this.#merge({ limit: Math.min(PAGE, 50 + 2 * stubs) });
      this.#enrichTimer = null;
    }, 500);
  }

  async #poll() {
    if (document.hidden || this.#stream === null) return;
    await this.#merge({ status: "pending,queued", limit: 100 });
    const waiting = [...this.#store.values()].filter(item => rank(item.status) < rank("running"));
    if (waiting.length === 0) return;
    const { signal } = this.#abort;
    try {
      const pods = await json(path("/pods", { namespace: this.#filter.namespace, limit: PAGE }), signal);
      const reasons = new Map(pods.items.map(pod => [pod.execution_id, pod.pending?.reason ?? null]));
      for (const item of waiting) {
        if (item.pending === reasons.get(item.id)) continue;
        item.pending = reasons.get(item.id);
        item.version += 1;
      }
      this.#rows.refresh();
    } catch (error) {
      if (!(error instanceof Problem) && !signal.aborted) throw error;
    }
  }

  async #merge(query) {
    const { signal } = this.#abort;
    try {
      const page = await json(path("/executions", { ...this.#scope(), ...query }), signal);
      for (const execution of page.items) this.#store.put(execution);
      this.#sortSoon();
      this.#rows.refresh();
    } catch (error) {
      // The stream shows that the server is away; the next round asks again.
      if (!(error instanceof Problem) && !signal.aborted) throw error;
    }
  }

  #tick() {
    if (document.hidden) return;
    this.#rows.refresh();
    this.#ended.clear();
  }
}
