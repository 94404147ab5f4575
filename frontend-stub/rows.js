// A table of any length of which only the rows in sight exist. The page itself scrolls.

import { badge, eachFrame, h, setAttribute, setText } from "./dom.js";
import { toExecution } from "./route.js";
import { ago, duration, isOver, standing } from "./words.js";

/// Rows kept ready beyond either edge of the screen.
const MARGIN = 8;

const COLUMNS = ["Status", "Execution", "What is known", "Namespace", "User", "Created", "Took"];

export class Rows {
  element;
  #body;
  #order = [];
  /// The rows that exist, by execution.
  #rows = new Map();
  #spare = [];
  #height = 0;
  /// The one row that the Tab key reaches: the one that was in focus last.
  #activeId = null;
  #onScroll;
  #paintSoon;

  /// `onScroll` is told whether the top and the end are in sight.
  constructor(onScroll) {
    this.#onScroll = onScroll;
    this.#paintSoon = eachFrame(() => this.#paint());
    this.#body = h("tbody", { role: "rowgroup" });
    const heads = COLUMNS.map(name => h("th", { role: "columnheader", scope: "col" }, name));
    this.element = h("table", { role: "table", class: "rows", "aria-label": "Executions, newest first" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row", "aria-rowindex": "1" }, heads)),
      this.#body);
    addEventListener("scroll", this.#paintSoon, { passive: true });
    addEventListener("resize", this.#paintSoon, { passive: true });
    this.#body.addEventListener("focusin", event => this.#activate(event.target));
  }

  /// Shows these, in this order.
  show(order) {
    this.#order = order;
    setAttribute(this.element, "aria-rowcount", order.length + 1);
    this.#paintSoon();
  }

  /// Something about some rows has changed.
  refresh() {
    this.#paintSoon();
  }

  /// Moves the focus by so many rows, or to the first or last one; false if there are none.
  move(step) {
    if (this.#order.length === 0) return false;
    const last = this.#order.length - 1;
    const at = this.#order.findIndex(item => item.id === this.#activeId);
    const isFocused = this.#body.contains(document.activeElement);
    const to = step === "first" ? 0 : step === "last" ? last : isFocused && at >= 0 ? at + step : Math.max(0, at);
    this.#focus(Math.min(last, Math.max(0, to)));
    return true;
  }

  /// Gives the focus back to the row that had it.
  focusActive() {
    const at = this.#order.findIndex(item => item.id === this.#activeId);
    if (at >= 0) this.#focus(at);
  }

  #focus(index) {
    this.#activeId = this.#order[index].id;
    const top = this.#top() + index * this.#height;
    const above = 110;
    const view = document.documentElement.clientHeight;
    if (top < scrollY + above) scrollTo({ top: Math.max(0, index === 0 ? 0 : top - above), behavior: "instant" });
    else if (top + this.#height > scrollY + view) scrollTo({ top: top + this.#height - view + 8, behavior: "instant" });
    this.#paint();
    this.#rows.get(this.#activeId)?.link.focus({ preventScroll: true });
  }

  #activate(target) {
    const row = target.closest("tr")?.row;
    if (!row) return;
    const before = this.#rows.get(this.#activeId);
    if (before) before.link.tabIndex = -1;
    this.#activeId = row.item.id;
    row.link.tabIndex = 0;
  }

  /// Where the rows begin in the page.
  #top() {
    return this.#body.getBoundingClientRect().top + scrollY;
  }

  #paint() {
    if (!this.element.isConnected) return;
    const order = this.#order;
    this.#height = Number.parseFloat(getComputedStyle(this.element).getPropertyValue("--row"));
    const top = this.#top();
    const view = document.documentElement.clientHeight;
    const from = Math.max(0, Math.floor((scrollY - top) / this.#height) - MARGIN);
    const to = Math.min(order.length, Math.ceil((scrollY + view - top) / this.#height) + MARGIN);
    const wanted = [];
    for (let index = from; index < to; index += 1) wanted.push(index);
    this.#keepFocus(wanted);
    this.#body.style.height = `${order.length * this.#height}px`;

    const ids = new Set(wanted.map(index => order[index].id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      this.#rows.delete(id);
      this.#spare.push(row);
    }
    for (const row of this.#spare) row.element.remove();
    if (this.#spare.length > 64) this.#spare.length = 64;
    const now = Date.now();
    const tabbable = ids.has(this.#activeId) ? this.#activeId : order[wanted[0]]?.id;
    let place = this.#body.firstChild;
    for (const index of wanted) {
      const item = order[index];
      const row = this.#rows.get(item.id) ?? this.#spare.pop() ?? new Row();
      this.#rows.set(item.id, row);
      row.show(item, now);
      row.stand(index, index * this.#height);
      row.link.tabIndex = item.id === tabbable ? 0 : -1;
      // In the document rows stand as on the screen, for those who read it from there.
      if (row.link === document.activeElement) {
        // To move it would take its focus: what stands before it moves instead.
        while (place !== row.element) {
          const next = place.nextSibling;
          this.#body.append(place);
          place = next;
        }
      }
      if (row.element === place) place = place.nextSibling;
      else this.#body.insertBefore(row.element, place);
    }
    this.#onScroll(scrollY < top, from < order.length && to >= order.length - 20);
  }

  /// A row in focus stays, however far it is scrolled away: a browser would drop the focus with it.
  #keepFocus(wanted) {
    const row = this.#body.contains(document.activeElement) ? document.activeElement.closest("tr")?.row : null;
    if (!row) return;
    const at = this.#order.indexOf(row.item);
    if (at < 0 || wanted.includes(at)) return;
    if (at < (wanted[0] ?? 0)) wanted.unshift(at);
    else wanted.push(at);
  }
}

class Row {
  item = null;
  #version = -1;
  #index = -1;
  #y = -1;

  constructor() {
    const cell = (name, ...children) => h("td", { role: "cell", class: name }, ...children);
    this.badge = badge("pending");
    this.link = h("a", { "data-route": true });
    this.what = document.createTextNode("");
    this.namespace = document.createTextNode("");
    this.user = document.createTextNode("");
    this.created = h("time");
    this.took = document.createTextNode("");
    this.bar = h("span", { class: "fill", "aria-hidden": "true" });
    this.element = h("tr", { role: "row" },
      cell("status", this.badge.element), cell("id", this.link), cell("what", h("span", {}, this.what), this.bar),
      cell("namespace", this.namespace), cell("user", this.user), cell("when", this.created), cell("took", this.took));
    this.element.row = this;
  }

  show(item, now) {
    if (item !== this.item || item.version !== this.#version) {
      if (item !== this.item) {
        setText(this.link, item.id);
        this.link.title = item.id;
        this.link.href = toExecution(item.id);
      }
      this.item = item;
      this.#version = item.version;
      this.badge.show(item.status);
      this.what.data = standing(item);
      this.namespace.data = item.namespace;
      this.user.data = item.user;
      this.created.dateTime = item.created;
      this.created.title = new Date(item.created).toLocaleString();
      this.bar.style.width = item.status === "running" && Number.isFinite(item.percentage) ? `${item.percentage}%` : "0";
    }
    set(this.created.firstChild ?? this.created.appendChild(document.createTextNode("")), ago(item.created, now));
    set(this.took, took(item, now));
  }

  stand(index, y) {
    if (index !== this.#index) setAttribute(this.element, "aria-rowindex", index + 2);
    if (y !== this.#y) this.element.style.transform = `translateY(${y}px)`;
    this.#index = index;
    this.#y = y;
  }
}

function set(node, text) {
  if (node.data !== text) node.data = text;
}

function took(item, now) {
  if (!item.started) return "";
  if (isOver(item.status)) return item.ended ? duration(Date.parse(item.ended) - Date.parse(item.started)) : "";
  const passed = Math.max(0, now - Date.parse(item.started));
  return duration(Math.floor(passed / 1_000) * 1_000).replace(".0", "");
}
