// The page over podherald itself, whose embedded cluster runs the pods.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { close, connection, launch, open, until } from "./browser.js";
import { Herald } from "./herald.js";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;
let herald;
let page;

before(async () => {
  [browser, herald] = await Promise.all([launch(), Herald.start()]);
  await herald.run("hello", "echo hello, world");
  await herald.run("fails", "echo about to fail; exit 3", { labels: { team: "blue", "user-id": "ada" } });
  await Promise.all([herald.until("hello", "completed"), herald.until("fails", "failed")]);
});
after(async () => {
  await browser?.close();
  await herald?.stop();
});
beforeEach(async () => { page = await open(browser); });
afterEach(() => close(page));

const row = id => page.locator(".rows tbody tr", { has: page.getByRole("link", { name: id, exact: true }) });
const status = text => page.locator(".execution .title .badge", { hasText: text }).waitFor();
const ids = () => page.locator(".rows tbody a").allTextContents();
const kinds = () => page.locator(".timeline li").evaluateAll(items => items.map(item => item.dataset.type));

test("an execution is followed from the list to its end", async () => {
  await page.goto(herald.url);
  await connection(page, "live");
  await herald.run("life", `
    echo begins
    echo "::progress 42 resizing images"
    wait life
    echo "that was all" >&2
    exit 3`);
  await row("life").locator(".badge", { hasText: "running" }).waitFor();
  await row("life").getByRole("link").click();
  await status("running");
  await page.getByText(/^Running for /).waitFor();
  await page.locator(".output", { hasText: "begins" }).waitFor();
  await page.getByText("42 % · resizing images").waitFor();
  await connection(page, "live");

  await herald.go("life");
  await status("failed");
  await page.getByRole("heading", { name: "Why" }).waitFor();
  await page.getByText("The program failed").waitFor();
  assert.ok(await page.locator(".evidence li").count() > 0);
  assert.match(await page.locator(".standing").textContent(), /^Failed after .*, exit code 3/);
  await page.locator(".panel-title", { hasText: "stdout" }).waitFor();
  assert.match(await page.locator(".output").first().innerText(), /begins/);
  await connection(page, "ended");
  const seen = await kinds();
  assert.equal(new Set(seen).size, seen.length, `twice: ${seen}`);
  assert.ok(seen.indexOf("pod_scheduled") === 0 && seen.includes("execution_failed"), `${seen}`);

  const whole = await page.getByRole("link", { name: "open the whole" }).first().getAttribute("href");
  const served = await (await fetch(herald.url + whole)).text();
  assert.match(served, /^begins\n::progress 42 resizing images\nthat was all\n$/);
  assert.equal(await page.locator(".output").first().textContent(), served, "the page shows what the API serves");
  await page.goBack();
  await row("life").locator(".what", { hasText: "The program failed" }).waitFor();
});

test("a cause is told in plain words with its evidence", async () => {
  await herald.run("slow", "wait never", { spec: { activeDeadlineSeconds: 1 } });
  await page.goto(`${herald.url}/?execution=slow`);
  await status("timeout");
  await page.getByText("It took too long").waitFor();
  assert.match(await page.locator(".evidence").textContent(), /DeadlineExceeded/);
});

test("a page that is opened early waits for its execution", async () => {
  await page.goto(`${herald.url}/?execution=later`);
  await page.getByText("Nobody has seen this execution yet.").waitFor();
  await connection(page, "waiting");
  await herald.run("later", "echo at last");
  await status("completed");
  await page.locator(".output", { hasText: "at last" }).waitFor();
  assert.equal(await page.getByText("Nobody has seen").isVisible(), false);
});

test("a link to a filter shows what it filters", async () => {
  await page.goto(`${herald.url}/?label=team=blue`);
  await row("fails").waitFor();
  assert.deepEqual(await ids(), ["fails"]);
  await page.goto(`${herald.url}/?user=ada&status=failed`);
  await row("fails").waitFor();
  assert.deepEqual(await ids(), ["fails"]);
  await page.goto(`${herald.url}/?namespace=nowhere`);
  await page.getByText("No execution that is loaded passes this filter.").waitFor();
  await page.goto(`${herald.url}/?label=nonsense`);
  await connection(page, "refused");
  await page.getByText("must be key=value").first().waitFor();
});

test("a server that is killed and comes back is waited for, and nothing is shown twice", async () => {
  const own = await Herald.start();
  const other = await open(browser);
  try {
    await own.run("before", "exit 0");
    await own.until("before", "completed");
    await own.run("during", "echo begins; wait never");
    await own.until("during", "running");
    await page.goto(own.url);
    await row("during").waitFor();
    await other.goto(`${own.url}/?execution=during`);
    await other.locator('.timeline [data-type="execution_running"]').waitFor();

    await own.kill();
    for (const one of [page, other]) {
      await connection(one, "reconnecting");
      assert.match(await one.locator("#connection").textContent(), /Reconnecting since \d/);
    }
    assert.deepEqual((await ids()).sort(), ["before", "during"], "what is known stays in sight");
    await own.launch();
    await connection(page, "live");
    // Its program went with the process that ran it, and nobody saw how it ended.
    await other.locator(".execution .title .badge", { hasText: "failed" }).waitFor();
    await row("during").locator(".badge", { hasText: "failed" }).waitFor();
    await own.run("after", "exit 0");
    await row("after").locator(".badge", { hasText: "completed" }).waitFor();
    assert.deepEqual((await ids()).sort(), ["after", "before", "during"]);
    const seen = await other.locator(".timeline li").evaluateAll(items => items.map(item => item.dataset.type));
    assert.equal(new Set(seen).size, seen.length, `twice: ${seen}`);
  } finally {
    await close(other);
    await own.stop();
  }
});

test("a slow network and one that is cut are lived with", async () => {
  const network = await page.context().newCDPSession(page);
  await network.send("Network.enable");
  const set = conditions => network.send("Network.emulateNetworkConditions",
    { offline: false, latency: 300, downloadThroughput: 40_000, uploadThroughput: 20_000, ...conditions });
  await set({});
  await page.goto(`${herald.url}/?execution=slowly`);
  await herald.run("slowly", "echo begins; wait slowly; echo ends");
  await status("running");
  await set({ offline: true });
  await connection(page, "offline");
  await herald.go("slowly");
  await herald.until("slowly", "completed");
  await set({});
  await status("completed");
  await page.locator(".output", { hasText: "ends" }).waitFor();
  await connection(page, "ended");
});

test("pods and the health of watch and journal are shown", async () => {
  await page.goto(`${herald.url}/?view=pods`);
  await page.getByRole("row", { name: /executor-hello/ }).waitFor();
  assert.match(await page.locator(".health").textContent(), /watch.* well/);
  await page.getByText("Numbers").click();
  await page.getByText("Events made durable").waitFor();
  await page.getByRole("link", { name: "hello", exact: true }).click();
  await status("completed");
});

test("the contract can be read without anything from elsewhere", async () => {
  const foreign = [];
  page.on("request", request => request.url().startsWith(herald.url) || foreign.push(request.url()));
  await page.goto(`${herald.url}/docs#schema-Execution`);
  await page.getByRole("heading", { name: "Execution", exact: true }).waitFor();
  const contract = await (await fetch(`${herald.url}/openapi.json`)).json();
  for (const path of Object.keys(contract.paths)) {
    assert.ok(await page.locator("article h3 code", { hasText: new RegExp(`^${path.replace(/[{}/]/g, "\\$&")}$`) }).count() > 0, path);
  }
  for (const name of Object.keys(contract.components.schemas)) assert.equal(await page.locator(`[id="schema-${name}"]`).count(), 1, name);
  const dangling = await page.locator('a[href^="#"]').evaluateAll(links =>
    links.map(link => link.getAttribute("href").slice(1)).filter(id => !document.getElementById(id)));
  assert.deepEqual(dangling, []);
  await until(page, () => document.getElementById("schema-Execution").getBoundingClientRect().top < innerHeight);
  assert.deepEqual(foreign, []);
});

test("the policy keeps out what the page does not bring", async () => {
  await page.goto(herald.url);
  await row("hello").waitFor();
  const stopped = await page.evaluate(async () => {
    const script = document.createElement("script");
    const refusals = [];
    for (const attempt of [
      () => { script.textContent = "globalThis.ran = true"; },
      () => { document.body.innerHTML = "<p>"; },
    ]) {
      try { attempt(); } catch (error) { refusals.push(error.name); }
    }
    await fetch("http://127.0.0.1:9/").catch(error => refusals.push(error.name));
    return { refusals, ran: globalThis.ran };
  });
  assert.deepEqual(stopped, { refusals: ["TypeError", "TypeError", "TypeError"], ran: undefined });
  for (const directive of ["connect-src", "require-trusted-types-for"]) {
    await until(page, directive => violations.some(violation => violation.startsWith(directive)), directive);
  }
  // These were on purpose.
  await page.evaluate(() => { violations = []; });
  page.complaints = [];
});

test("landmarks, names and states are there for those who cannot see", async () => {
  await page.goto(herald.url);
  await row("hello").waitFor();
  const list = await page.locator("body").ariaSnapshot();
  for (const part of [
    /- banner:/, /- navigation "Views":/, /- main:/, /- heading "Executions" \[level=1\]/, /- search "Filter executions":/,
    /- searchbox "Search"/, /- group "Status":/, /- button "failed( \d+)?"/, /- table "Executions, newest first":/,
    /- columnheader "Status"/, /- cell "completed"/, /- link "hello":?/,
  ]) assert.match(list, part);
  const table = page.getByRole("table", { name: "Executions, newest first" });
  assert.ok(Number(await table.getAttribute("aria-rowcount")) >= 3);
  assert.equal(await page.locator("#announcer").getAttribute("aria-live"), "polite");
  await page.goto(`${herald.url}/?execution=fails`);
  await status("failed");
  const one = await page.locator("main").ariaSnapshot();
  for (const part of [
    /- article "fails":/, /- heading "fails" \[level=1\]/, /- heading "Why" \[level=2\]/, /- region "What happened":/,
    /- region "Output, stdout"/, /- link "← All executions"/,
  ]) assert.match(one, part);
});

test("no view breaks a rule of accessibility, light or dark, wide or narrow", async () => {
  for (const [colorScheme, viewport] of [["light", { width: 1280, height: 800 }], ["dark", { width: 390, height: 800 }]]) {
    const tested = await open(browser, { colorScheme, viewport, bypassCSP: true });
    for (const [path, shows] of [
      ["/", ".rows tbody tr"], ["/?execution=fails", ".evidence li"], ["/?execution=nobody", ".empty"], ["/?view=pods", ".plain tbody tr"],
      ["/docs", "article"],
    ]) {
      await tested.goto(herald.url + path);
      await tested.locator(shows).first().waitFor();
      await tested.evaluate(AXE);
      const { violations, passes } = await tested.evaluate(() => axe.run());
      const shown = violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}: ${nodes[0].failureSummary}`);
      assert.deepEqual(shown, [], `${path} ${colorScheme}`);
      assert.ok(passes.some(({ id }) => id === "color-contrast"), `${path}: contrast was measured`);
    }
    await close(tested);
  }
});

test("nothing is wider than a small phone", async () => {
  const phone = await open(browser, { viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true });
  for (const [path, shows] of [["/", ".rows tbody tr"], ["/?execution=fails", ".evidence li"], ["/?view=pods", ".plain tbody tr"], ["/docs", "article"]]) {
    await phone.goto(herald.url + path);
    await phone.locator(shows).first().waitFor();
    const width = await phone.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 320, `${path} is ${width} wide`);
  }
  await close(phone);
});
