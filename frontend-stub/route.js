// What is shown is in the URL, so that it can be shared, and so that the back button means what it says.

import { path } from "./api.js";
import { STATUSES } from "./words.js";

/// The view that the address asks for.
export function read(search = location.search) {
  const query = new URLSearchParams(search);
  const execution = query.get("execution");
  if (execution) return { view: "execution", id: execution };
  if (query.get("view") === "pods") return { view: "pods", namespace: query.get("namespace") ?? "" };
  return {
    view: "list",
    filter: {
      status: query.getAll("status").flatMap(value => value.split(",")).filter(status => STATUSES.includes(status)),
      namespace: query.get("namespace") ?? "",
      label: query.getAll("label").filter(Boolean),
      user: query.get("user") ?? "",
      text: query.get("text") ?? "",
    },
  };
}

export const toExecution = id => path("/", { execution: id });

export const toList = filter => path("/", { ...filter, status: filter.status.join(",") });

/// Goes there; `replace` leaves no step for the back button, as while somebody types.
export function go(url, { replace = false } = {}) {
  if (url === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"]({ scroll: 0 }, "", url);
  dispatchEvent(new CustomEvent("route", { detail: { replace } }));
}

/// Follows links within the page without loading it anew.
export function followLinks() {
  document.addEventListener("click", event => {
    const link = event.target.closest?.("a[data-route]");
    const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!link || !isPlain) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
}
