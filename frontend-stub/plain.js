// What a program prints, made fit to be shown: any bytes at all may come.

/// Escape sequences: CSI, OSC, the other strings, and what is left.
const ESCAPES = /\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[PX^_][^\x1b]*\x1b\\|\x1b[ -/]*[0-~]|\x9b[0-?]*[ -/]*[@-~]/g;
/// One that may still go on.
const UNFINISHED = /(?:\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?|\r)$/;
/// Text that waits for the end of its escape sequence at most.
const PATIENCE = 512;
/// Controls, and what would turn the direction of the text around it.
const CONTROLS = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

function visible(control) {
  const code = control.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return code === 0x7f ? "␡" : "�";
}

/// Takes escape sequences out of a text that comes in pieces.
export class Plain {
  #rest = "";

  push(piece) {
    let text = this.#rest + piece;
    const tail = UNFINISHED.exec(text.slice(-PATIENCE));
    this.#rest = tail?.[0] ?? "";
    if (this.#rest) text = text.slice(0, -this.#rest.length);
    return clean(text);
  }

  end() {
    const text = clean(this.#rest);
    this.#rest = "";
    return text;
  }
}

export function clean(text) {
  return text.replace(ESCAPES, "").replace(/\r\n?/g, "\n").replace(CONTROLS, visible);
}
