// The page at /docs: the OpenAPI document, readable.
"use strict";

function element(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
}

function operation(method, path, about, responses) {
  const parameters = (about.parameters ?? []).map(({ name, in: place, description }) =>
    element("li", `${name} (${place})${description ? `: ${description}` : ""}`));
  const answers = Object.entries(about.responses).map(([status, answer]) =>
    element("li", `${status}: ${(answer.$ref ? responses[status] : answer).description}`));
  const summary = element("summary", "", element("b", method.toUpperCase()), element("code", path), ` ${about.summary}`);
  return element("details", "", summary, element("ul", "", ...parameters), element("ul", "", ...answers));
}

async function show() {
  const api = await (await fetch("/openapi.json")).json();
  document.getElementById("address").textContent = location.origin;
  document.getElementById("description").textContent = api.info.description;
  const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, about]) => operation(method, path, about, api.components.responses)));
  document.getElementById("paths").append(...operations);
}

show();
