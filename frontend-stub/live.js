// The raw log of a running program, out of frames that may overlap, repeat or leave something out.

import { OutputView } from "./output.js";
import { bytes } from "./words.js";

export class LiveOutput {
  view = new OutputView("Output of the running program", { follows: true });
  #attempt = 0;
  #next = 0;
  #decoder = new TextDecoder();
  isEmpty = true;

  /// `{attempt, offset, next, text | base64}`, or with `gap` how much is missing.
  take(frame) {
    if (frame.attempt < this.#attempt) return;
    if (frame.attempt > this.#attempt) {
      if (this.#attempt > 0) this.#remark(`— attempt ${frame.attempt} —`);
      this.#attempt = frame.attempt;
      this.#next = 0;
    }
    this.isEmpty = false;
    if (frame.gap !== undefined) {
      const size = Number.isFinite(frame.gap) ? bytes(frame.gap) : frame.next > frame.offset ? bytes(frame.next - frame.offset) : "some output";
      this.#remark(`— ${size} could not be read —`);
      this.#next = Math.max(this.#next, frame.next ?? 0);
      return;
    }
    if (frame.next <= this.#next) return;
    const raw = frame.base64 === undefined
      ? new TextEncoder().encode(frame.text)
      : Uint8Array.from(atob(frame.base64), character => character.charCodeAt(0));
    if (frame.offset > this.#next) this.#remark(`— ${bytes(frame.offset - this.#next)} ${this.#next === 0 ? "came before" : "could not be read"} —`);
    this.view.append(this.#decoder.decode(raw.subarray(Math.max(0, this.#next - frame.offset)), { stream: true }));
    this.#next = frame.next;
  }

  end() {
    this.view.append(this.#decoder.decode());
    this.view.end();
    this.view.isLive = false;
  }

  #remark(text) {
    this.view.append(this.#decoder.decode());
    this.view.remark(text);
  }
}
