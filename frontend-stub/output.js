// A program's output as it comes: bounded, and never in the way of who reads it.

import { eachFrame, h, setText } from "./dom.js";
import { Plain } from "./plain.js";
import { bytes } from "./words.js";

/// Characters shown at most; the whole is a link away.
const SHOWN = 1 << 20;
/// Text is held in pieces of about this size: those out of sight cost no layout.
const PIECE = 8 << 10;

export class OutputView {
  element;
  #log;
  #notice;
  #jump;
  #plain = new Plain();
  #pending = [];
  #pieces = [];
  #shown = 0;
  #dropped = 0;
  #follows = true;
  #flushSoon = eachFrame(() => this.#flush());

  /// `follows` is true where more is to come.
  constructor(label, { follows }) {
    this.#follows = follows;
    this.#log = h("pre", { class: "output", tabindex: "0", role: follows ? "log" : "region", "aria-label": label, "aria-live": "off" });
    this.#notice = h("p", { class: "quiet notice", hidden: true });
    this.#jump = h("button", { type: "button", class: "jump", hidden: true, onclick: () => this.#followAgain() }, "Follow the end ↓");
    this.#log.addEventListener("scroll", () => this.#look(), { passive: true });
    this.isLive = follows;
    this.element = h("div", { class: "output-view" }, this.#notice, this.#log, this.#jump);
  }

  append(text) {
    this.#pending.push(this.#plain.push(text));
    this.#flushSoon();
  }

  /// A line of podherald's own among the output.
  remark(text) {
    this.#pending.push(this.#plain.end(), { remark: text });
    this.#flushSoon();
  }

  end() {
    this.#pending.push(this.#plain.end());
    this.#flushSoon();
  }

  /// To the end, and with it from here on.
  follow() {
    this.#follows = true;
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#jump.hidden = true;
  }

  #followAgain() {
    // The button goes; who pressed it must not lose the place.
    this.#log.focus({ preventScroll: true });
    this.follow();
  }

  /// Who scrolls up wants to read: the end is followed again when it is reached again.
  #look() {
    if (!this.isLive) return;
    const { scrollTop, clientHeight, scrollHeight } = this.#log;
    this.#follows = scrollTop + clientHeight >= scrollHeight - 24;
    this.#jump.hidden = this.#follows;
  }

  #flush() {
    const follows = this.#follows;
    for (const next of this.#pending) {
      if (typeof next === "string") {
        this.#add(next);
        continue;
      }
      this.#write(this.#piece("piece remark"), next.remark);
      this.#pieces.at(-1).isFull = true;
    }
    this.#pending = [];
    this.#trim();
    if (this.isLive && follows) this.#log.scrollTop = this.#log.scrollHeight;
  }

  #piece(name = "piece") {
    const node = document.createTextNode("");
    const piece = { element: h("span", { class: name }, node), node, isFull: false };
    this.#log.append(piece.element);
    this.#pieces.push(piece);
    return piece;
  }

  #write(piece, text) {
    piece.node.appendData(text);
    this.#shown += text.length;
  }

  /// A piece is a block of its own: it ends where a line does, or where a line goes on beyond reason.
  #add(text) {
    // Of a flood only the end would be seen anyway.
    if (text.length > SHOWN) {
      this.#dropped += text.length - SHOWN;
      text = text.slice(-SHOWN);
    }
    while (text.length > 0) {
      const last = this.#pieces.at(-1);
      const piece = last && !last.isFull ? last : this.#piece();
      const room = Math.max(0, PIECE - piece.node.length);
      const most = 4 * PIECE - piece.node.length;
      const line = text.length > room ? text.indexOf("\n", room) : -1;
      const isLineEnd = line >= 0 && line < most;
      const take = isLineEnd ? line + 1 : Math.min(text.length, most);
      this.#write(piece, text.slice(0, take));
      piece.isFull = isLineEnd || take === most;
      text = text.slice(take);
    }
  }

  #trim() {
    while (this.#shown > SHOWN && this.#pieces.length > 1) {
      const { element, node } = this.#pieces.shift();
      element.remove();
      this.#shown -= node.length;
      this.#dropped += node.length;
    }
    this.#notice.hidden = this.#dropped === 0;
    if (this.#dropped > 0) setText(this.#notice, `Only the last ${bytes(SHOWN)} is shown here; ${bytes(this.#dropped)} came before.`);
  }
}
