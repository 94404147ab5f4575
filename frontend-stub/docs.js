// The contract, readable: what /openapi.json says, without anything from elsewhere.

import { json } from "./api.js";
import { h } from "./dom.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const main = document.getElementById("main");

const anchor = text => text.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "");
const schemaAnchor = name => `schema-${anchor(name)}`;
const operationAnchor = (method, path) => `${method}-${anchor(path) || "root"}`;

/// Text of which only `code` is marked up.
function prose(text, tag = "p") {
  return (text ?? "").split(/\n\s*\n/).filter(Boolean).map(paragraph =>
    h(tag, {}, paragraph.split("`").map((part, index) => (index % 2 === 1 ? h("code", {}, part) : part))));
}

/// A schema in one line, with links to those that have a name.
function type(schema) {
  if (schema === undefined || schema === true) return ["anything"];
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return [h("a", { href: `#${schemaAnchor(name)}` }, name)];
  }
  const several = schema.oneOf ?? schema.anyOf;
  if (several) return join(several.map(type), " or ");
  if (schema.allOf) return join(schema.allOf.map(type), " and ");
  if (schema.enum) return [schema.enum.map(value => JSON.stringify(value)).join(" or ")];
  if (schema.type === "array") return ["list of ", ...type(schema.items)];
  const names = [schema.type ?? (schema.properties ? "object" : "anything")].flat();
  const known = names.map(name => (name === "object" && schema.additionalProperties?.type ? `map to ${schema.additionalProperties.type}` : name));
  return [known.join(" or "), schema.format ? ` (${schema.format})` : ""];
}

const join = (lists, word) => lists.flatMap((list, index) => (index === 0 ? list : [word, ...list]));

function table(heads, rows) {
  return h("div", { class: "scrolls" }, h("table", { class: "plain" },
    h("thead", {}, h("tr", {}, heads.map(head => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.map(([first, ...others]) => h("tr", {}, h("th", { scope: "row" }, first), others.map(cell => h("td", {}, cell)))))));
}

function operation(method, path, { summary, description, parameters = [], requestBody, responses }) {
  const body = Object.entries(requestBody?.content ?? {}).map(([media, { schema }]) => [media, type(schema)]);
  return h("article", { class: "panel", id: operationAnchor(method, path) },
    h("h3", {}, h("span", { class: "method" }, method), h("code", {}, path)),
    prose(summary), prose(description),
    parameters.length > 0 && [h("h4", {}, "Parameters"), table(["Name", "In", "Type", "Meaning"], parameters.map(one =>
      [one.name, `${one.in}${one.required ? ", required" : ""}`, type(one.schema), prose(one.description, "span")]))],
    body.length > 0 && [h("h4", {}, "Body"), table(["Media type", "Type"], body)],
    h("h4", {}, "Answers"),
    table(["Status", "Content", "Meaning"], Object.entries(responses).map(([status, response]) => [
      status,
      join(Object.entries(response.content ?? {}).map(([media, { schema }]) => [`${media}: `, ...type(schema)]), ", "),
      [...prose(response.description, "span"),
        ...Object.entries(response.headers ?? {}).map(([name, header]) => h("p", {}, h("code", {}, name), ` ${header.description ?? ""}`))],
    ])));
}

/// The properties of a schema, those of its parts included.
function properties(schema) {
  const own = Object.entries(schema.properties ?? {}).map(([name, of]) =>
    [name, [...type(of), (schema.required ?? []).includes(name) ? "" : ", may be absent"], prose(description(of), "span")]);
  return [...own, ...(schema.allOf ?? []).flatMap(properties)];
}

const description = schema => schema.description ?? schema.oneOf?.find(one => one.description)?.description;

function schema(name, of) {
  const rows = properties(of);
  const variants = (of.oneOf ?? []).filter(one => one.properties || one.allOf);
  return h("article", { class: "panel", id: schemaAnchor(name) },
    h("h3", {}, h("code", {}, name)),
    prose(of.description),
    rows.length > 0 && table(["Field", "Type", "Meaning"], rows),
    rows.length === 0 && variants.length === 0 && h("p", {}, type(of)),
    variants.flatMap(one => [prose(one.description), table(["Field", "Type", "Meaning"], properties(one))]),
    (of.allOf ?? []).filter(one => one.$ref).map(one => h("p", {}, "and all of ", type(one))));
}

function draw(document_) {
  const { info, tags = [], paths, components } = document_;
  const operations = Object.entries(paths).flatMap(([path, item]) =>
    METHODS.filter(method => item[method]).map(method => ({ method, path, of: item[method], tag: item[method].tags?.[0] ?? "other" })));
  const groups = [...new Set([...tags.map(tag => tag.name), ...operations.map(one => one.tag)])]
    .map(name => ({ name, description: tags.find(tag => tag.name === name)?.description, operations: operations.filter(one => one.tag === name) }))
    .filter(group => group.operations.length > 0);
  const schemas = Object.entries(components?.schemas ?? {});
  const word = name => name[0].toUpperCase() + name.slice(1);
  main.replaceChildren(
    h("nav", { "aria-label": "Contents" },
      groups.map(group => [h("h2", {}, word(group.name)), group.operations.map(({ method, path }) =>
        h("a", { href: `#${operationAnchor(method, path)}` }, `${method.toUpperCase()} ${path}`))]),
      h("h2", {}, "Schemas"), schemas.map(([name]) => h("a", { href: `#${schemaAnchor(name)}` }, name))),
    h("div", {},
      h("h1", {}, `${info.title} ${info.version}`), prose(info.description),
      h("p", { class: "quiet" }, "Made from ", h("a", { href: "/openapi.json" }, "/openapi.json"), ", which this server wrote."),
      groups.map(group => h("section", {}, h("h2", {}, word(group.name)), prose(group.description),
        group.operations.map(({ method, path, of }) => operation(method, path, of)))),
      h("section", {}, h("h2", {}, "Schemas"), schemas.map(([name, of]) => schema(name, of)))));
  // The part that the address names has only now come to be.
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

try {
  draw(await json("/openapi.json"));
} catch (error) {
  main.replaceChildren(h("p", { role: "alert" }, `The document could not be read. ${error.message}.`));
}
