// The raw log of a running program, out of frames that may overlap, repeat or tell what is missing.

import { OutputView } from "./output.js";
import { bytes } from "./words.js";

export class LiveOutput {
  view = new OutputView("Output of the running program", { follows: true });
  isEmpty = true;
  #attempt = 0;
  #run = 0;
  #next = 0;
  #expectsGap = false;
  #decoder = new TextDecoder();

  /// `{attempt, run, offset, next, text | base64 | missing}`: offsets count the bytes of one run's log.
  take({ attempt, run = 0, offset, next, text, base64, missing }) {
    const isOld = attempt < this.#attempt || (attempt === this.#attempt && run < this.#run);
    if (isOld) return;
    if (attempt !== this.#attempt || run !== this.#run) this.#begin(attempt, run);
    this.isEmpty = false;
    if (missing !== undefined) {
      // Where nobody knows how much it is, the next frame tells by its offset.
      this.#remark(`— ${next ? bytes(next - this.#next) : "something"} is missing: ${missing} —`);
      this.#next = Math.max(this.#next, next ?? 0);
      this.#expectsGap = next === null;
      return;
    }
    if (next <= this.#next) return;
    if (offset > this.#next && !this.#expectsGap) {
      this.#remark(`— ${bytes(offset - this.#next)} ${this.#next === 0 ? "came before" : "is missing"} —`);
    }
    this.#expectsGap = false;
    const raw = base64 === undefined
      ? new TextEncoder().encode(text)
      : Uint8Array.from(atob(base64), character => character.charCodeAt(0));
    this.view.append(this.#decoder.decode(raw.subarray(Math.max(0, this.#next - offset)), { stream: true }));
    this.#next = next;
  }

  end() {
    this.view.append(this.#decoder.decode());
    this.view.end();
    this.view.isLive = false;
  }

  #begin(attempt, run) {
    if (!this.isEmpty) this.#remark(attempt === this.#attempt ? "— another log begins —" : `— attempt ${attempt} —`);
    this.#attempt = attempt;
    this.#run = run;
    this.#next = 0;
    this.#expectsGap = false;
  }

  #remark(text) {
    this.view.append(this.#decoder.decode());
    this.view.remark(text);
  }
}
