// One event stream, kept alive. A page has at most one open: browsers allow six connections to a server.
//
// EventSource comes back by itself only after some failures, and never says what it is about. So every failure ends the
// source here, and a new one resumes from the last id.

import { Problem, json } from "./api.js";

/// Heartbeats come every 15 s: a stream that is silent for longer is dead, though its connection may not know.
const SILENCE = 40_000;
const PAUSES = [300, 1_000, 2_000, 4_000, 8_000];
const FRAMES = ["snapshot", "output", "heartbeat", "reset", "end"];

export class Stream {
  #url;
  #handlers;
  #show;
  #source = null;
  #timer = null;
  #silence = null;
  #lastId = "";
  #tries = 0;
  #since = null;
  #abort = new AbortController();

  /// `handlers` by frame name, `message` for domain events; `show` is told of every change of state.
  /// `lastId` is where an earlier stream of this URL was left.
  constructor(url, handlers, show, lastId = "") {
    this.#url = url;
    this.#lastId = lastId;
    this.#handlers = handlers;
    this.#show = show;
    const { signal } = this.#abort;
    addEventListener("online", () => this.#connectNow(), { signal });
    addEventListener("offline", () => this.#lost(), { signal });
    // A laptop that wakes up has a dead connection and a timer that was asleep.
    document.addEventListener("visibilitychange", () => document.hidden || this.#connectNow(), { signal });
    show({ name: "connecting" });
    this.#connect();
  }

  get lastId() {
    return this.#lastId;
  }

  close() {
    this.#abort.abort();
    this.#drop();
  }

  #drop() {
    this.#source?.close();
    this.#source = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
  }

  #connect() {
    this.#drop();
    const separator = this.#url.includes("?") ? "&" : "?";
    const place = this.#lastId ? `${separator}last_event_id=${encodeURIComponent(this.#lastId)}` : "";
    const source = new EventSource(this.#url + place);
    this.#source = source;
    this.#listen();
    source.addEventListener("open", () => {
      this.#tries = 0;
      this.#since = null;
      this.#show({ name: "live" });
      this.#listen();
    });
    source.addEventListener("error", () => this.#lost());
    source.addEventListener("message", frame => this.#take("message", frame));
    for (const name of FRAMES) source.addEventListener(name, frame => this.#take(name, frame));
  }

  #take(name, frame) {
    this.#listen();
    if (frame.lastEventId) this.#lastId = frame.lastEventId;
    this.#handlers[name]?.(JSON.parse(frame.data));
    if (name === "end") {
      this.close();
      this.#show({ name: "ended" });
    }
  }

  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(), SILENCE);
  }

  #connectNow() {
    if (this.#source === null) this.#connect();
  }

  #lost() {
    if (this.#abort.signal.aborted) return;
    this.#drop();
    this.#since ??= new Date();
    const pause = PAUSES[Math.min(this.#tries, PAUSES.length - 1)];
    this.#tries += 1;
    this.#show({ name: navigator.onLine ? "reconnecting" : "offline", since: this.#since, tries: this.#tries });
    // With some spread: a server that comes back must not meet all its browsers in one instant.
    this.#timer = setTimeout(() => this.#connect(), pause * (0.75 + Math.random() / 2));
    if (this.#tries === 2) this.#askWhy();
  }

  /// An EventSource does not tell a refusal from a failure; the same question for a page does.
  async #askWhy() {
    try {
      await json(this.#url + (this.#url.includes("?") ? "&" : "?") + "limit=1", this.#abort.signal);
    } catch (error) {
      if (error instanceof Problem && error.status === 400) {
        this.close();
        this.#show({ name: "refused", detail: error.message });
      }
    }
  }
}
