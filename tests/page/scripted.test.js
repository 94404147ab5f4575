// The page over an API that says what a test wants.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { LIMIT, close, connection, launch, open, until } from "./browser.js";
import { Mock, event, execution, timestamp } from "./mock.js";

let browser;
let mock;
let page;

before(async () => { browser = await launch(); });
after(() => browser.close());
beforeEach(async () => {
  mock = await new Mock().start();
  page = await open(browser);
});
afterEach(async () => {
  await close(page);
  await mock.stop();
});

const newest = count => Array.from({ length: count }, (_, index) => execution(count - 1 - index));
const ids = () => page.locator(".rows tbody a").allTextContents();
const summary = text => until(page, text => document.querySelector(".summary").textContent.startsWith(text), text);
const search = () => new URL(page.url()).search;

/// Waits until the condition holds, for what no page can tell.
async function eventually(holds, otherwise) {
  const deadline = performance.now() + LIMIT;
  while (!holds()) {
    assert.ok(performance.now() < deadline, typeof otherwise === "function" ? otherwise() : otherwise);
    await page.evaluate(() => 0);
  }
}

/// Opens the only execution of the mock.
async function openOne(one) {
  mock.executions = [one];
  await page.goto(`${mock.url}/?execution=${one.execution_id}`);
  await page.locator(".columns").waitFor();
  return `/executions/${one.execution_id}/events`;
}

const output = async text => until(page, text => document.querySelector(".output")?.innerText.includes(text), text);

test("ten thousand rows scroll without a stutter while 200 events a second arrive", async () => {
  mock.executions = newest(10_500);
  await page.goto(mock.url);
  await summary("500 executions");
  await until(page, () => {
    scrollTo(0, document.body.scrollHeight);
    // Without "there are more": no more are held than the bound.
    return document.querySelector(".summary").textContent === "10,000 executions";
  });

  let sent = 0;
  const began = performance.now();
  await browser.startTracing(page, { categories: ["toplevel", "disabled-by-default-devtools.timeline"] });
  const events = setInterval(() => {
    for (; sent < (performance.now() - began) / 5; sent += 1) {
      const { execution_id } = mock.executions[(sent * 37) % 9_000];
      mock.send("/events", event(execution_id, sent % 2 ? "execution_running" : "execution_completed"), { id: `mock:${sent + 2}` });
    }
  }, 20);
  const most = await page.evaluate(() => new Promise(done => {
    let [most, frames] = [0, 0];
    const step = () => {
      scrollTo(0, (frames * 500) % (document.body.scrollHeight - innerHeight));
      most = Math.max(most, document.querySelectorAll(".rows tbody tr").length);
      frames += 1;
      if (frames < 150) requestAnimationFrame(step);
      else done(most);
    };
    step();
  }));
  clearInterval(events);
  const tasks = mainThreadTasks(await browser.stopTracing());
  assert.ok(most < 80, `${most} rows in the document`);
  assert.ok(sent > 300, `${sent} events`);
  assert.ok(tasks.length > 150, `${tasks.length} tasks`);
  assert.deepEqual(tasks.filter(milliseconds => milliseconds > 50), []);
});

/// What the page's tasks took of the processor: by the clock they would also hold what else this machine does.
function mainThreadTasks(trace) {
  const { traceEvents } = JSON.parse(trace);
  const threads = traceEvents.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain");
  const isMain = task => threads.some(({ pid, tid }) => pid === task.pid && tid === task.tid);
  return traceEvents.filter(({ name }) => name === "RunTask" || name === "ThreadControllerImpl::RunTask")
    .filter(task => task.tdur !== undefined && isMain(task)).map(task => task.tdur / 1_000);
}

test("what is new goes on top, and waits while somebody reads further down", async () => {
  mock.executions = newest(200);
  await page.goto(mock.url);
  await summary("200 executions");
  mock.executions.unshift(execution(200, { status: "running" }));
  mock.send("/events", event("run-00200", "execution_running"), { id: "mock:2" });
  await until(page, () => document.querySelector(".rows tbody a").textContent === "run-00200");
  // An event has no namespace: the page asks for the rest.
  await until(page, () => document.querySelector(".rows tbody .namespace").textContent === "demo");

  await page.evaluate(() => scrollTo(0, 3_000));
  await until(page, () => !document.querySelector(".rows tbody a").textContent.includes("200"));
  const before = await ids();
  mock.executions.unshift(execution(201, { status: "running" }));
  mock.send("/events", event("run-00201", "execution_running"), { id: "mock:3" });
  await page.locator(".fresh", { hasText: "1 new" }).waitFor();
  assert.deepEqual(await ids(), before);
  await page.locator(".fresh").click();
  await until(page, () => document.activeElement.textContent === "run-00201");
  assert.equal(await page.evaluate(() => scrollY), 0);
});

test("filters stand in the address, and the back button takes them back", async () => {
  mock.executions = newest(60);
  await page.goto(`${mock.url}/?status=failed,timeout&text=ada`);
  await until(page, () => document.querySelectorAll(".rows tbody tr").length > 3);
  const statuses = await page.locator(".rows tbody .badge").allTextContents();
  assert.deepEqual([...new Set(statuses)].sort(), ["failed", "timeout"]);
  assert.equal(await page.locator("#filter-text").inputValue(), "ada");
  assert.equal(await page.locator('.chip[data-status="failed"]').getAttribute("aria-pressed"), "true");

  await page.locator('.chip[data-status="failed"]').click();
  assert.equal(search(), "?status=timeout&text=ada");
  await page.locator("#filter-namespace").fill("demo");
  await page.locator("#filter-namespace").press("Enter");
  await until(page, () => location.search.includes("namespace=demo"));
  await until(page, () => document.querySelectorAll(".rows tbody tr").length > 3);
  await eventually(() => mock.requests.some(path => path.startsWith("/events?namespace=demo")), "the server does not filter what it can");
  await eventually(() => mock.openStreams === 1, "the stream without the filter stays open");
  await page.goBack();
  assert.equal(search(), "?status=timeout&text=ada");
  assert.equal(await page.locator("#filter-namespace").inputValue(), "");
  await page.goBack();
  assert.equal(search(), "?status=failed,timeout&text=ada");
  assert.equal(await page.locator('.chip[data-status="failed"]').getAttribute("aria-pressed"), "true");
});

test("an execution that leaves the filter leaves the list", async () => {
  mock.executions = newest(12);
  await page.goto(`${mock.url}/?status=running`);
  await summary("2 of 12");
  mock.send("/events", event("run-00009", "execution_completed"), { id: "mock:2" });
  await summary("1 of 12");
});

test("the whole page can be used by keys alone", async () => {
  mock.executions = newest(100);
  await page.goto(mock.url);
  await summary("100 executions");
  const focused = () => page.evaluate(() => document.activeElement.textContent);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("k");
  assert.equal(await focused(), "run-00098");
  await page.keyboard.press("End");
  assert.equal(await focused(), "run-00000");
  assert.ok(await page.evaluate(() => {
    const { top, bottom } = document.activeElement.closest("tr").getBoundingClientRect();
    return top >= 0 && bottom <= innerHeight;
  }), "the row in focus is in sight");
  const scrolled = await page.evaluate(() => scrollY);
  await page.keyboard.press("Enter");
  await page.locator(".columns").waitFor();
  await until(page, () => document.activeElement.id === "execution-title");
  assert.equal(search(), "?execution=run-00000");
  await page.keyboard.press("Escape");
  await page.locator(".rows").waitFor();
  await until(page, () => document.activeElement.textContent === "run-00000");
  assert.equal(await page.evaluate(() => scrollY), scrolled, "the list is where it was left");
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "filter-text");
  await page.keyboard.type("run-0004");
  await summary("10 of 100");
  await page.keyboard.press("Escape");
  assert.match(await focused(), /^run-0004/);
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await page.keyboard.press("Escape");
  await until(page, () => !document.querySelector("dialog").open);
});

test("a row in focus keeps it, however far it is scrolled away", async () => {
  mock.executions = newest(400);
  await page.goto(mock.url);
  await summary("400 executions");
  await page.keyboard.press("j");
  await page.evaluate(() => scrollTo(0, 9_000));
  await until(page, () => document.querySelectorAll(".rows tbody tr").length > 20
    && [...document.querySelectorAll(".rows tbody a")].some(link => link.textContent === "run-00150"));
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "run-00399");
});

test("live output comes once and in order, whatever is repeated, overlaps or is missing", async () => {
  const path = await openOne(execution(3));
  const send = frame => mock.send(path, { attempt: 1, run: 0, ...frame }, { name: "output" });
  await page.getByText("Nothing has been printed yet").waitFor();
  send({ offset: 0, next: 6, text: "hello " });
  send({ offset: 0, next: 6, text: "hello " });
  send({ offset: 3, next: 11, text: "lo world" });
  // é is two bytes, of which an overlap may leave either.
  send({ offset: 11, next: 12, base64: btoa("\xc3") });
  send({ offset: 12, next: 13, base64: btoa("\xa9") });
  send({ offset: 13, next: 20, text: "\u001b[1;31" });
  send({ offset: 20, next: 25, text: "mred\n" });
  send({ offset: 25, next: 29, base64: btoa("\x00\x07\xff\n") });
  await output("hello worldéred\n␀␇�");
  send({ offset: 1_053, next: 1_058, text: "last\n" });
  await output("— 1.0 KiB is missing —");
  send({ offset: 1_058, next: 3_106, missing: "the log was rotated" });
  send({ offset: 3_106, next: 3_110, text: "end\n" });
  await output("— 2.0 KiB is missing: the log was rotated —\nend");
  send({ offset: 3_110, next: null, missing: "the log is gone" });
  send({ offset: 4_000, next: 4_005, text: "more\n" });
  await output("— something is missing: the log is gone —\nmore");
  send({ run: 1, offset: 0, next: 6, text: "again\n" });
  send({ offset: 4_005, next: 4_010, text: "late\n" });
  send({ run: 1, offset: 6, next: 11, text: "over\n" });
  await output("— another log begins —\nagain\nover");
  assert.equal((await page.locator(".output").innerText()).split("hello").length, 2);
});

test("output without end stays bounded, and who scrolls up is left in peace", async () => {
  const path = await openOne(execution(3));
  let offset = 0;
  const flood = (lines, mark) => {
    const text = `${`${mark} ${"x".repeat(120)}\n`.repeat(lines)}`;
    mock.send(path, { attempt: 1, offset, next: offset += text.length, text }, { name: "output" });
  };
  for (let part = 0; part < 40; part += 1) flood(500, `part ${part}`);
  await output("part 39");
  await page.getByText("Only the last 1.0 MiB is shown here").waitFor();
  const shown = await page.evaluate(() => document.querySelector(".output").textContent.length);
  assert.ok(shown <= 1 << 20 && shown > 1 << 19, `${shown} characters`);
  const isAtEnd = () => {
    const { scrollTop, clientHeight, scrollHeight } = document.querySelector(".output");
    return scrollTop + clientHeight >= scrollHeight - 2;
  };
  await until(page, isAtEnd);
  await page.evaluate(() => { document.querySelector(".output").scrollTop -= 600; });
  await page.locator(".jump").waitFor();
  flood(3, "later");
  await output("later");
  assert.equal(await page.evaluate(isAtEnd), false);
  await page.locator(".jump").click();
  await until(page, isAtEnd);
  flood(30, "latest");
  await output("latest");
  await until(page, isAtEnd);
});

test("what a program prints or a label says never becomes markup", async () => {
  const evil = "<img src=x onerror=alert(1)><script>alert(2)</script>";
  const path = await openOne(execution(2, {
    execution_id: "evil", labels: { [evil]: evil }, user_id: evil,
    stdout: evil, stderr: evil,
    output: { stdout: { bytes_kept: 50, bytes_total: 50, verdict: "complete" }, stderr: { bytes_kept: 50, verdict: "truncated", bytes_total: 90 } },
    cause: { class: "user_code", reason: evil, message: evil, evidence: [evil] },
  }));
  mock.send(path, event("evil", "pod_terminated", { reason: evil, message: evil }), { id: "a=2" });
  await page.locator(".timeline li").waitFor();
  assert.equal(await page.locator("main img, main script").count(), 0);
  assert.equal(await page.locator(".output").first().innerText(), evil);
  await page.getByText("cut: the program printed more than is kept, 50 B of 90 B").waitFor();
});

test("an event that comes twice is shown once", async () => {
  const path = await openOne(execution(3));
  const scheduled = event("run-00003", "pod_scheduled", { pod_name: "executor-3", synthesized: true });
  for (const _ of [1, 2]) mock.send(path, scheduled, { id: "a=2" });
  mock.send(path, event("run-00003", "pod_running"), { id: "a=3" });
  await page.locator('.timeline [data-type="pod_running"]').waitFor();
  assert.equal(await page.locator('.timeline [data-type="pod_scheduled"]').count(), 1);
  assert.equal(await page.locator('.timeline [data-type="pod_scheduled"] .tag').textContent(), "inferred");
});

test("progress is a bar with a value and a sentence", async () => {
  const path = await openOne(execution(3));
  mock.send(path, event("run-00003", "execution_progress", { progress_percentage: 42, message: "resizing images", offset: 7 }), { id: "a=2" });
  await page.getByText("42 % · resizing images").waitFor();
  assert.equal(await page.getByRole("progressbar", { name: "Progress" }).evaluate(bar => bar.value), 42);
  mock.send(path, event("run-00003", "execution_progress", { message: "nearly done" }), { id: "a=3" });
  await page.getByText("nearly done").waitFor();
  assert.equal(await page.getByRole("progressbar").evaluate(bar => bar.position), -1, "nobody knows how far it is");
});

test("why an execution does not run yet is told in the API's own words", async () => {
  mock.pods = [{
    namespace: "demo", name: "executor-5", uid: "u", execution_id: "run-00005", attempt: 1, phase: "Pending", state: "tracked",
    pending: { reason: "ImagePullBackOff", message: "Back-off pulling image \"nowhere/none\"", since: timestamp(5_000) },
    first_seen: timestamp(0), last_seen: timestamp(0),
  }];
  await openOne(execution(5));
  await page.getByRole("heading", { name: "Why it is not running yet" }).waitFor();
  await page.getByText("Back-off pulling image \"nowhere/none\"").waitFor();
  await page.goto(mock.url);
  await page.locator(".rows .what", { hasText: "waits: ImagePullBackOff" }).waitFor();
  await page.goto(`${mock.url}/?view=pods`);
  await page.locator("tbody td", { hasText: "ImagePullBackOff: Back-off" }).waitFor();
});

test("sinks are shown with how far they have come and what is wrong", async () => {
  const sink = { name: "redis", required: false, failing: false, lag_events: 0, lag_seconds: 0, delivered: 9, retries: 0, rejected: 0, missed: 0 };
  mock.sinks = [sink];
  await page.goto(`${mock.url}/?view=pods`);
  const shown = text => page.locator(".health div", { hasText: "Sink redis" }).locator("dd", { hasText: text }).waitFor();
  await shown(/^has everything$/);
  mock.sinks = [{ ...sink, failing: true, lag_events: 12, lag_seconds: 3.4, rejected: 1, missed: 2, required: true, last_error: "it is <b>full</b>" }];
  await shown("takes nothing: it is <b>full</b>; 12 events behind, for 3 seconds; 1 event left out; 2 events missed; required");
});

test("a page has one event stream at most, and leaves none behind", async () => {
  mock.executions = newest(20);
  await page.goto(mock.url);
  await connection(page, "live");
  for (const [go, path] of [
    [() => page.locator(".rows tbody a").first().click(), "/executions/run-00019/events"],
    [() => page.getByRole("link", { name: "Pods and health" }).click(), "/events"],
    [() => page.goBack(), "/executions/run-00019/events"],
    [() => page.goBack(), "/events"],
  ]) {
    await go();
    await connection(page, "live");
    await eventually(
      () => mock.openStreams === 1 && mock.streams(path) === 1,
      () => `${mock.openStreams} streams are open, ${mock.streams(path)} of ${path}`,
    );
  }
});

test("a stream that falls silent is opened anew from where it was", async () => {
  // The page's clock stands still while the network does not: what has come must be known, not waited for.
  const network = await page.context().newCDPSession(page);
  let heartbeats = 0;
  network.on("Network.eventSourceMessageReceived", ({ eventName }) => { heartbeats += eventName === "heartbeat"; });
  await network.send("Network.enable");
  await page.clock.install();
  mock.executions = newest(20);
  await page.goto(mock.url);
  await connection(page, "live");
  mock.send("/events", event("run-00020", "execution_running"), { id: "mock:7" });
  await page.locator(".rows tbody a", { hasText: "run-00020" }).waitFor();
  await page.clock.runFor(30_000);
  mock.send("/events", {}, { name: "heartbeat", id: "mock:8" });
  await eventually(() => heartbeats > 0, "the heartbeat does not come");
  await page.clock.runFor(30_000);
  assert.equal(await page.locator("#connection").getAttribute("data-state"), "live", "a heartbeat is a sign of life");
  const before = mock.requests.filter(path => path.startsWith("/events")).length;
  assert.equal(before, 1);
  await page.clock.runFor(12_000);
  await eventually(() => mock.requests.filter(path => path.startsWith("/events")).length > before, "the stream is not opened anew");
  await connection(page, "live");
  assert.equal(mock.requests.filter(path => path.startsWith("/events")).at(-1), "/events?last_event_id=mock%3A8");
});

test("a filter that the server does not take is said to be refused", async () => {
  mock.refuses = "label: must be key=value, like app=executor, not \"nonsense\"";
  await page.goto(`${mock.url}/?label=nonsense`);
  await connection(page, "refused");
  await page.getByText("must be key=value, like app=executor").first().waitFor();
});

test("a history that is gone begins anew", async () => {
  mock.executions = newest(5);
  await page.goto(mock.url);
  await summary("5 executions");
  mock.send("/events", { reason: "history is gone" }, { name: "reset", id: "mock:0" });
  mock.send("/events", { executions: [execution(900)], truncated: false }, { name: "snapshot", id: "mock:9" });
  await until(page, () => [...document.querySelectorAll(".rows tbody a")].map(link => link.textContent).join() === "run-00900");
});

test("a second attempt takes over, and the first stays in the time line", async () => {
  const first = execution(2);
  const path = await openOne(first);
  mock.send(path, event("run-00002", "execution_failed", { exit_code: 3 }), { id: "a=2" });
  mock.executions = [execution(2, { status: "running", attempt: 2, attempts: 2 })];
  mock.send(path, event("run-00002", "execution_running", { attempt: 2 }), { id: "a=3" });
  await page.getByText(/^Running for .*attempt 2 of 2$/).waitFor();
  assert.equal(await page.locator(".timeline li").count(), 2);
  await page.locator(".timeline").getByText("Attempt 2").waitFor();
});
