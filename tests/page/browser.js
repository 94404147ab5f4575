// Headless Chromium, and a page in it that may not complain.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

/// The longest that anything may take to show.
export const LIMIT = 15_000;

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, args: ARGUMENTS });

/// A page of its own. `complaints` has what its console said and what its policy forbade; failed requests are not in it:
/// the console tells of those too when a test takes the server away on purpose.
export async function open(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", timezoneId: "UTC", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT);
  page.complaints = [];
  page.on("pageerror", error => page.complaints.push(`error: ${error.name} ${error.message} ${error.stack}`));
  page.on("console", message => {
    const isNetwork = /Failed to load resource|ERR_|EventSource/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !isNetwork) page.complaints.push(message.text());
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", event =>
      globalThis.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
  });
  return page;
}

/// Closes the page, which must have had nothing to complain of.
export async function close(page) {
  const violations = page.url().startsWith("http") ? await page.evaluate(() => globalThis.violations) : [];
  // What is cut off by the closing is none of the page's.
  const complaints = [...page.complaints, ...violations];
  await page.context().close();
  assert.deepEqual(complaints, []);
}

/// Waits until the condition, a function in the page, holds.
export const until = (page, condition, argument) => page.waitForFunction(condition, argument, { timeout: LIMIT, polling: 50 });

export const connection = async (page, state) =>
  page.locator(`#connection[data-state="${state}"]`).waitFor();
