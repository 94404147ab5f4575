// The page's files and an API that says what a test wants, for what no cluster does on demand: thousands of executions,
// hundreds of events a second, output with holes.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";

const FILES = join(import.meta.dirname, "../../frontend-stub");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const BEGAN = Date.parse("2026-11-24T12:00:00Z");

export const timestamp = milliseconds => new Date(BEGAN + milliseconds).toISOString().replace("Z", "000Z");

/// An execution as `/executions` has it; the greater `n`, the newer.
export function execution(n, more = {}) {
  const statuses = ["completed", "completed", "failed", "running", "timeout", "scheduled"];
  const status = more.status ?? statuses[n % statuses.length];
  const at = n * 1_000;
  const isOver = ["completed", "failed", "timeout", "cancelled"].includes(status);
  return {
    execution_id: `run-${String(n).padStart(5, "0")}`,
    status,
    attempt: 1,
    attempts: 1,
    exit: isOver ? { code: status === "completed" ? 0 : 3, signal: null, source: "kubelet" } : null,
    cause: status === "failed"
      ? { class: "user_code", reason: "Error", message: "the program ended with exit code 3", evidence: ["container executor: exit code 3, reason Error"] }
      : status === "timeout"
        ? { class: "timeout", reason: "DeadlineExceeded", message: "the pod's deadline passed", evidence: ["pod reason DeadlineExceeded"] }
        : null,
    stdout: null,
    stderr: null,
    output: null,
    pods: [{ namespace: "demo", name: `executor-${n}`, uid: `uid-${n}`, node_name: "node-1", phase: "Running", attempt: 1 }],
    times: {
      created: timestamp(at), scheduled: timestamp(at + 40),
      ...(status !== "scheduled" && { started: timestamp(at + 300) }),
      ...(isOver && { ended: timestamp(at + 4_300) }),
    },
    labels: { "execution-id": `run-${n}`, team: n % 2 ? "blue" : "red" },
    user_id: n % 3 ? "ada" : "grace",
    amended: [],
    as_of: { "pod-monitor:mock": 1 },
    ...more,
  };
}

let seq = 0;

export function event(execution_id, event_type, fields = {}) {
  seq += 1;
  return {
    event_id: `00000000-0000-5000-8000-${String(seq).padStart(12, "0")}`, event_type, event_version: "1.0", execution_id,
    attempt: 1, source: "pod-monitor:mock", seq, timestamp: timestamp(20_000_000 + seq), metadata: {}, ...fields,
  };
}

export class Mock {
  /// Newest first.
  executions = [];
  pods = [];
  /// Every path asked for.
  requests = [];
  /// As `/readyz` has them.
  sinks = [];
  /// Why no filter is taken, if none is.
  refuses = null;
  #streams = new Map();
  #server;

  async start() {
    this.#server = createServer((request, response) => this.#answer(request, response).catch(error => response.destroy(error)));
    await new Promise(resolve => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  stop() {
    this.#server.closeAllConnections();
    return new Promise(resolve => this.#server.close(resolve));
  }

  streams(path) {
    return this.#streams.get(path)?.size ?? 0;
  }

  get openStreams() {
    return [...this.#streams.values()].reduce((sum, streams) => sum + streams.size, 0);
  }

  /// Sends a frame to whoever follows this path.
  send(path, data, { name, id } = {}) {
    const text = `${name ? `event: ${name}\n` : ""}${id ? `id: ${id}\n` : ""}data: ${JSON.stringify(data)}\n\n`;
    for (const response of this.#streams.get(path) ?? []) response.write(text);
  }

  async #answer(request, response) {
    const url = new URL(request.url, this.url);
    this.requests.push(request.url);
    const json = (body, status = 200) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    const file = url.pathname === "/" ? "index.html" : url.pathname === "/docs" ? "docs.html" : url.pathname.match(/^\/assets\/([\w.]+)$/)?.[1];
    if (file) {
      response.writeHead(200, { "content-type": TYPES[extname(file)] });
      return response.end(await readFile(join(FILES, file)));
    }
    if (this.refuses && /^\/(events|executions)\?/.test(request.url)) {
      return json({ title: "Invalid parameter", status: 400, detail: this.refuses }, 400);
    }
    if (request.headers.accept === "text/event-stream") return this.#follow(url, response);
    const id = url.pathname.match(/^\/executions\/([^/]+)$/)?.[1];
    if (id) {
      const found = this.executions.find(one => one.execution_id === decodeURIComponent(id));
      return found ? json(found) : json({ title: "No such execution", status: 404, detail: "not seen" }, 404);
    }
    if (url.pathname === "/executions") return json(this.#page(url.searchParams));
    if (url.pathname === "/pods") return json({ items: this.pods, next: null });
    if (url.pathname === "/readyz") return json({ status: "ok", checks: ["watch", "journal"], sinks: this.sinks });
    if (url.pathname === "/metrics") return response.end("podherald_monitor_tracked_pods 3\n# EOF\n");
    return json({ title: "No such path", status: 404 }, 404);
  }

  #page(query) {
    const statuses = query.get("status")?.split(",");
    const all = this.executions.filter(one => !statuses || statuses.includes(one.status));
    const from = Number(query.get("after") ?? 0);
    const to = from + Number(query.get("limit") ?? 50);
    return { items: all.slice(from, to), next: to < all.length ? String(to) : null };
  }

  #follow(url, response) {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
    response.write("retry: 1000\n\n");
    const streams = this.#streams.get(url.pathname) ?? new Set();
    this.#streams.set(url.pathname, streams.add(response));
    response.on("close", () => streams.delete(response));
    const id = url.pathname.match(/^\/executions\/([^/]+)\/events$/)?.[1];
    if (!id) {
      const data = { executions: this.executions.slice(0, 500), truncated: this.executions.length > 500 };
      return response.write(`event: snapshot\nid: mock:1\ndata: ${JSON.stringify(data)}\n\n`);
    }
    const found = this.executions.find(one => one.execution_id === decodeURIComponent(id));
    if (found) response.write(`event: snapshot\nid: a=1\ndata: ${JSON.stringify({ execution: found, result: null })}\n\n`);
  }
}
