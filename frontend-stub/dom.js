// Elements. Text only ever becomes text: there is no way in here to make markup out of a string.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  pending: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 0 0 0-11",
  queued: "M3 4.5h10M3 8h10M3 11.5h6",
  scheduled: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 0 0 0-11M8 5v3.2l2 1.4",
  running: "M5.5 3.5l7 4.5l-7 4.5z",
  completed: "M3 8.6l3.2 3.2L13 4.8",
  failed: "M4 4l8 8M12 4l-8 8",
  timeout: "M4.5 2.5h7M4.5 13.5h7M5 2.8c0 3.4 6 7 6 10.4M11 2.8c0 3.4-6 7-6 10.4",
  cancelled: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 0 0 0-11M4.2 4.2l7.6 7.6",
};

/// An element with properties and children; nothing is made of a child that is null or false.
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

/// Sets a text, and leaves the document alone if it is there already.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/// A status as a shape, so that colour is never all there is to tell it by.
export function icon(status) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = svg.appendChild(document.createElementNS(SVG, "path"));
  path.setAttribute("d", ICONS[status] ?? ICONS.pending);
  return svg;
}

/// Icon and word of a status; `show` changes it.
export function badge(status) {
  const word = document.createTextNode("");
  const element = h("span", { class: "badge" }, icon(status), word);
  const path = element.querySelector("path");
  const show = status => {
    if (element.dataset.status === status) return;
    element.dataset.status = status;
    path.setAttribute("d", ICONS[status] ?? ICONS.pending);
    word.data = status;
  };
  show(status);
  return { element, show };
}

/// A point in time, its exact value for whoever points at it.
export function time(text, shown) {
  return h("time", { datetime: text, title: new Date(text).toLocaleString() }, shown);
}

const PAUSE = 5_000;
let said = -PAUSE;
let waiting = null;
let next = "";

/// Tells a screen reader, at most every few seconds and then only the latest.
export function announce(message) {
  next = message;
  if (waiting !== null) return;
  waiting = setTimeout(() => {
    waiting = null;
    said = performance.now();
    setText(document.getElementById("announcer"), next);
  }, Math.max(0, said + PAUSE - performance.now()));
}

/// Runs `work` once in the next frame, however often it is asked for; in a hidden page, where there are no frames, soon.
export function eachFrame(work) {
  let due = false;
  const run = () => {
    due = false;
    work();
  };
  return () => {
    if (due) return;
    due = true;
    if (document.hidden) setTimeout(run, 250);
    else requestAnimationFrame(run);
  };
}
