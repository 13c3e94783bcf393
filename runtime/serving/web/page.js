// The page at /: classifies the picture that is dropped on it, and shows the model and the server's live figures.
"use strict";

const $ = (id) => document.getElementById(id);
const FIGURES_EVERY_MS = 2000;
let models = [];
let previous = null;

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) $("token-form").hidden = false;
  if (!response.ok) {
    const { error } = await response.json().catch(() => ({ error: `${response.status}` }));
    throw new Error(error);
  }
  return response;
}

function fill(list, rows) {
  list.replaceChildren(...rows.flatMap(([term, text]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = term;
    dd.textContent = text;
    return [dt, dd];
  }));
}

const milliseconds = (value) => `${value.toFixed(2)} ms`;

// --- pictures ---------------------------------------------------------------------------------------------------------

async function classify(file) {
  $("error").hidden = true;
  $("preview").src = URL.createObjectURL(file);
  $("preview").hidden = false;
  $("hint").hidden = true;
  const start = performance.now();
  try {
    const query = new URLSearchParams({ model: $("model").value });
    const answer = await (await ask(`/v1/classify?${query}`, { method: "POST", body: file })).json();
    const elapsed = performance.now() - start;
    $("classes").replaceChildren(...answer.classes.map(row));
    const { decode, queue, infer, total } = answer.ms;
    $("latency").textContent = `${milliseconds(elapsed)} to and fro; in the server ${milliseconds(total)}: ` +
      `picture ${milliseconds(decode)}, queue ${milliseconds(queue)}, model ${milliseconds(infer)}` +
      (answer.remark ? `; about the picture: ${answer.remark}` : "");
  } catch (error) {
    $("classes").replaceChildren();
    $("latency").textContent = "";
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
}

function row({ class: name, probability }) {
  const [item, label, meter, value] = ["li", "span", "meter", "output"].map((tag) => document.createElement(tag));
  label.textContent = name;
  meter.value = probability;
  value.textContent = `${(100 * probability).toFixed(1)} %`;
  item.append(label, meter, value);
  return item;
}

function listen() {
  const drop = $("drop");
  $("file").addEventListener("change", () => $("file").files.length && classify($("file").files[0]));
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  });
  $("model").addEventListener("change", showModel);
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", $("token").value);
    $("token-form").hidden = true;
    start();
  });
}

// --- the model and the server -----------------------------------------------------------------------------------------

async function showModels() {
  models = (await (await ask("/v1/models")).json()).models.filter((model) => model.is_classifier);
  $("model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  await showModel();
}

async function showModel() {
  const model = models.find(({ name }) => name === $("model").value);
  previous = null;
  if (!model) {
    fill($("about"), [["", "no image classifier is served"]]);
    return;
  }
  const { accuracy, precision, device, sha256, classes } = model.properties;
  fill($("about"), [
    ["version", model.version],
    ["runs on", device],
    ["precision", precision ?? "–"],
    ["accuracy", accuracy ? `${(100 * accuracy.value).toFixed(2)} % (${accuracy.split})` : "–"],
    ["classes", classes.length],
    ["sha256", sha256.slice(0, 12)],
  ]);
  $("architecture").hidden = !model.has_drawing;
  if (!model.has_drawing) return;
  const drawing = await (await ask(`/v1/models/${encodeURIComponent(model.name)}/drawing.svg`)).text();
  $("drawing").src = URL.createObjectURL(new Blob([drawing], { type: "image/svg+xml" }));
}

async function showFigures() {
  const name = $("model").value;
  if (!name) return;
  try {
    const path = `/v2/models/${encodeURIComponent(name)}/stats`;
    const stats = (await (await ask(path)).json()).model_stats.at(-1);
    const { success, fail, queue, compute_infer: infer } = stats.inference_stats;
    const now = performance.now();
    const since = previous ?? { now, count: success.count };
    const rate = now > since.now ? 1000 * (success.count - since.count) / (now - since.now) : 0;
    previous = { now, count: success.count };
    const mean = ({ count, ns }) => count ? milliseconds(ns / count / 1e6) : "–";
    fill($("figures"), [
      ["requests/s", rate.toFixed(1)],
      ["answered", success.count],
      ["failed", fail.count],
      ["mean latency", mean(success)],
      ["mean wait", mean(queue)],
      ["mean model time", mean(infer)],
      ["mean batch", stats.execution_count ? (stats.inference_count / stats.execution_count).toFixed(2) : "–"],
    ]);
    $("state").textContent = "ready";
  } catch (error) {
    $("state").textContent = error.message;
  }
}

async function start() {
  try {
    await showModels();
    await showFigures();
  } catch (error) {
    $("state").textContent = error.message;
  }
}

listen();
start();
setInterval(showFigures, FIGURES_EVERY_MS);
