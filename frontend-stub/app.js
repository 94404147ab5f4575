// The page as a whole: which view is shown, how the connection is, and the keys.

import { setAttribute, setText } from "./dom.js";
import { ExecutionPage } from "./execution.js";
import { readiness } from "./health.js";
import { List } from "./list.js";
import { PodsPage } from "./pods.js";
import { followLinks, go, read } from "./route.js";

/// How often the monitor is asked whether it is well.
const HEALTH_PAUSE = 10_000;

const main = document.getElementById("main");
const connection = document.getElementById("connection");
const connectionText = document.getElementById("connection-text");
const trouble = document.getElementById("trouble");
const keys = document.getElementById("keys");

let list = null;
let shown = null;
let listUrl = "/";

const CONNECTION = {
  connecting: () => "Connecting",
  live: () => "Live",
  waiting: () => "Live, waiting for it to appear",
  ended: () => "Ended",
  refused: () => "Refused",
  reconnecting: ({ since, tries }) => `Reconnecting since ${since.toLocaleTimeString()}${tries > 1 ? `, try ${tries}` : ""}`,
  offline: ({ since }) => `Offline since ${since.toLocaleTimeString()}`,
};

function showConnection(state) {
  setAttribute(connection, "data-state", state.name);
  setText(connectionText, CONNECTION[state.name](state));
  if (state.name === "refused") tell(state.detail);
  if (state.name === "live") checkHealth();
}

function tell(problem) {
  trouble.hidden = !problem;
  setText(trouble, problem ?? "");
}

/// A page that shows the past while nobody watches the present must say so.
async function checkHealth() {
  if (document.hidden) return;
  const monitor = await readiness("monitor");
  if (connection.dataset.state === "refused") return;
  tell(monitor.isWell || monitor.isAway ? null : `What is shown may be out of date. The monitor is not ready: ${monitor.words}`);
}

function open({ isFirst = false, replace = false } = {}) {
  const route = read();
  const before = shown;
  if (route.view === "list") {
    list ??= new List(showConnection);
    listUrl = location.pathname + location.search;
    document.title = "Executions · podherald";
    if (shown !== list) swap(() => list);
    list.open(route.filter, { isTyping: replace });
    if (before !== list && before !== null) list.restore();
  } else {
    document.title = route.view === "pods" ? "Pods and health · podherald" : `${route.id} · podherald`;
    swap(() => (route.view === "pods" ? new PodsPage(route.namespace, showConnection) : new ExecutionPage(route.id, showConnection)));
    scrollTo({ top: 0, behavior: "instant" });
  }
  for (const link of document.querySelectorAll("[data-view]")) {
    setAttribute(link, "aria-current", link.dataset.view === route.view ? "page" : null);
  }
  for (const link of main.querySelectorAll("[data-back]")) link.setAttribute("href", listUrl);
  const staysPut = isFirst || replace || (route.view === "list" && (before === list || main.contains(document.activeElement)));
  if (!staysPut) (main.querySelector("h1[tabindex]") ?? main).focus({ preventScroll: true });
}

/// One view at a time, and with it one stream: the old one goes before the new one opens.
function swap(make) {
  shown?.leave();
  shown = make();
  main.replaceChildren(shown.element);
}

function press(event) {
  const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "Escape" && isTyping && shown === list) list.move(0);
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping || keys.open) return;
  const isInList = shown === list && !event.target.closest(".output");
  const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, Home: "first", End: "last" };
  const isArrow = event.key.length > 1;
  if (isInList && event.key in steps && (!isArrow || event.target.closest("table.rows"))) {
    if (list.move(steps[event.key])) event.preventDefault();
  } else if (event.key === "/" && shown === list) {
    event.preventDefault();
    list.search();
  } else if (event.key === "Escape" && shown !== list) {
    go(listUrl);
  } else if (event.key === "?") {
    keys.showModal();
  }
}

history.scrollRestoration = "manual";
followLinks();
addEventListener("popstate", () => open());
addEventListener("route", event => open(event.detail));
document.addEventListener("keydown", press);
document.getElementById("keys-close").addEventListener("click", () => keys.close());
setInterval(checkHealth, HEALTH_PAUSE);
open({ isFirst: true });
