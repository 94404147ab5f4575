// podherald itself with its embedded cluster, and pods in it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LIMIT } from "./browser.js";

const BINARY = process.env.PODHERALD ?? join(import.meta.dirname, "../../target/debug/podherald");

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/// Waits until `look` gives something, and says what was waited for if it never does.
export async function eventually(what, look) {
  const deadline = performance.now() + LIMIT;
  for (;;) {
    const found = await look().catch(() => null);
    if (found) return found;
    if (performance.now() > deadline) throw new Error(`in vain: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

export class Herald {
  log = "";
  #process = null;
  #kubeconfig = null;

  /// A data directory and an address, which all processes of a test share.
  static async start() {
    const herald = new Herald();
    herald.directory = await mkdtemp(join(tmpdir(), "podherald-page."));
    herald.port = await freePort();
    herald.url = `http://127.0.0.1:${herald.port}`;
    await herald.launch();
    return herald;
  }

  async launch() {
    const own = Object.entries(process.env).filter(([name]) => !name.startsWith("PODHERALD"));
    this.#process = spawn(BINARY, ["serve"], {
      env: {
        ...Object.fromEntries(own),
        PODHERALD_KUBE__MODE: "embedded",
        PODHERALD_HTTP__LISTEN: `127.0.0.1:${this.port}`,
        PODHERALD_DATA_DIR: join(this.directory, "data"),
        PODHERALD_TELEMETRY__ENVIRONMENT: "page-tests",
      },
      stdio: ["ignore", "ignore", "pipe"],
    });
    const ended = once(this.#process, "exit");
    this.#process.ended = ended;
    this.#process.stderr.setEncoding("utf8").on("data", text => { this.log += text; });
    await Promise.race([
      eventually("podherald is ready", async () => (await fetch(`${this.url}/readyz`)).ok),
      ended.then(() => { throw new Error("podherald has ended"); }),
    ]).catch(error => { throw new Error(`${error.message}\n${this.log}`); });
    this.#kubeconfig = JSON.parse(await readFile(join(this.directory, "data/kubeconfig"), "utf8"));
  }

  async kill() {
    this.#process.kill("SIGKILL");
    await this.#process.ended;
  }

  async stop() {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill("SIGTERM");
      await this.#process.ended;
    }
    await rm(this.directory, { recursive: true, force: true });
  }

  /// A pod that runs this shell script; `wait NAME` in it waits for `go(NAME)`.
  async run(id, script, { labels = {}, spec = {} } = {}) {
    const functions = `wait() { until [ -e "${this.directory}/go-$1" ]; do sleep 0.05; done; }`;
    await this.create({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: `executor-${id}`, labels: { "execution-id": id, ...labels } },
      spec: {
        restartPolicy: "Never",
        terminationGracePeriodSeconds: 1,
        containers: [{ name: "executor", image: "local", command: ["sh", "-c", `${functions}\n${script}`] }],
        ...spec,
      },
    });
  }

  async go(name) {
    await writeFile(join(this.directory, `go-${name}`), "");
  }

  async create(pod) {
    const { cluster } = this.#kubeconfig.clusters[0];
    const { token } = this.#kubeconfig.users[0].user;
    const asked = request(`${cluster.server}/api/v1/namespaces/default/pods`, {
      method: "POST",
      ca: Buffer.from(cluster["certificate-authority-data"], "base64"),
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json", accept: "application/json" },
    });
    asked.end(JSON.stringify(pod));
    const [response] = await once(asked, "response");
    let body = "";
    for await (const part of response.setEncoding("utf8")) body += part;
    if (response.statusCode !== 201) throw new Error(`the pod was not made: ${response.statusCode} ${body}`);
  }

  /// The execution once its status is one of these.
  until(id, ...statuses) {
    return eventually(`execution ${id} is ${statuses.join(" or ")}`, async () => {
      const execution = await (await fetch(`${this.url}/executions/${id}`)).json();
      return statuses.includes(execution.status) ? execution : null;
    });
  }
}
