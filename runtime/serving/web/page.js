// The page at /: classifies the picture that is dropped on it, and shows the model and the server's live figures.
import { $, fill, milliseconds, onPicture, showAnswer, showError } from "./pictures.js";

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

// --- pictures ---------------------------------------------------------------------------------------------------------

async function classify(file) {
  const start = performance.now();
  try {
    const query = new URLSearchParams({ model: $("model").value });
    const answer = await (await ask(`/v1/classify?${query}`, { method: "POST", body: file })).json();
    const elapsed = performance.now() - start;
    const { decode, queue, infer, total } = answer.ms;
    showAnswer(answer.classes, `${milliseconds(elapsed)} to and fro; in the server ${milliseconds(total)}: ` +
      `picture ${milliseconds(decode)}, queue ${milliseconds(queue)}, model ${milliseconds(infer)}` +
      (answer.remark ? `; about the picture: ${answer.remark}` : ""));
  } catch (error) {
    showError(error);
  }
}

function listen() {
  onPicture(classify);
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
