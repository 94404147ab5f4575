// The pictures in README, of pods that really run.

import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { connection, launch, open } from "./browser.js";
import { Herald } from "./herald.js";

const FOLDER = join(import.meta.dirname, "../../docs/screenshots");
const LARGEST = 150 << 10;

const browser = await launch();
const herald = await Herald.start();

async function picture(page, name) {
  const path = join(FOLDER, `${name}.png`);
  await page.evaluate(() => document.activeElement.blur());
  await page.screenshot({ path, animations: "disabled" });
  const { size } = await stat(path);
  if (size > LARGEST) throw new Error(`${path} has ${size} bytes`);
  console.log(path, size);
}

try {
  await mkdir(FOLDER, { recursive: true });
  const users = ["ada", "grace", "edsger"];
  const scripts = ["echo hello, world", "echo 'row 4: not a number' >&2; exit 3", "echo done", "wait never"];
  for (let n = 1; n <= 14; n += 1) {
    const labels = { team: n % 2 ? "blue" : "red", "user-id": users[n % 3] };
    await herald.run(`nightly-report-${String(n).padStart(3, "0")}`, scripts[n % 7 === 3 ? 1 : n % 2 ? 0 : 2], { labels });
  }
  await herald.run("train-model-7f3a", "wait never", { labels: { "user-id": "grace" }, spec: { activeDeadlineSeconds: 1 } });
  await herald.run("no-such-command", "", {
    labels: { "user-id": "edsger" },
    spec: { containers: [{ name: "executor", image: "local", command: ["/usr/bin/no-such-command"] }] },
  });
  await herald.until("train-model-7f3a", "timeout");
  await herald.until("no-such-command", "failed");
  await herald.run("import-orders-12", "echo importing; wait never", { labels: { "user-id": "ada", team: "blue" } });
  await herald.run("resize-images-2291", `
    echo "reading the list: 1,204 images"
    for n in $(seq 1 14); do printf '%s \\033[32mok\\033[0m  photo-%04d.jpg  4032x3024 -> 1600x1200\\n' "$(date -u +%T)" "$n"; sleep 0.04; done
    echo "::progress 62 resizing images, 746 of 1,204"
    wait never`, { labels: { "user-id": "ada", team: "blue", stage: "production" } });
  await herald.until("resize-images-2291", "running");

  const wide = await open(browser, { viewport: { width: 1280, height: 760 }, colorScheme: "light" });
  await wide.goto(herald.url);
  await connection(wide, "live");
  await wide.locator(".rows tbody tr", { hasText: "62 %" }).waitFor();
  await picture(wide, "executions");
  await wide.getByRole("link", { name: "resize-images-2291" }).click();
  await wide.locator(".output", { hasText: "photo-0014" }).waitFor();
  await wide.getByText("62 % · resizing images").waitFor();
  await picture(wide, "live-output");

  const phone = await open(browser, { viewport: { width: 390, height: 780 }, deviceScaleFactor: 1.5, colorScheme: "dark", isMobile: true, hasTouch: true });
  await phone.goto(`${herald.url}/?execution=nightly-report-010`);
  await phone.locator(".evidence li").first().waitFor();
  await picture(phone, "phone-dark");
} finally {
  await browser.close();
  await herald.stop();
}
