// What the official parser says of an AsyncAPI document: nothing, or the run fails.
//   node asyncapi.js FILE
import { readFile } from "node:fs/promises";
import { DiagnosticSeverity, Parser } from "@asyncapi/parser";

// It names newer versions of AsyncAPI, and asks for what is a matter of taste.
const REMARKS = new Set(["asyncapi-latest-version"]);

const [file] = process.argv.slice(2);
const { document, diagnostics } = await new Parser().parse(await readFile(file, "utf8"));
const found = diagnostics.filter(it => !REMARKS.has(it.code));
for (const it of found) {
  console.error(`${DiagnosticSeverity[it.severity]}: ${it.path.join(".")}: ${it.message} (${it.code})`);
}
if (!document || found.length > 0) process.exit(1);
const counted = [document.channels(), document.operations(), document.messages()].map(it => it.all().length);
console.log(`${file}: ${counted[0]} channels, ${counted[1]} operations, ${counted[2]} messages`);
