// The page that `enas export --web` writes: classifies the picture that is dropped on it, in the browser.
import * as ort from "./ort.js";
import { $, fill, milliseconds, onPicture, showAnswer, showError } from "./pictures.js";
import { prepared } from "./preprocess.js";

const MOST_CLASSES = 10;
const TIMED_MS = 600;
const BLOCK_MS = 20;

let about, session;

async function load() {
  about = await (await fetch("model.json")).json();
  ort.env.wasm.numThreads = 1;
  // The bytes, since a server may not know what kind of file WebAssembly is.
  ort.env.wasm.wasmBinary = await (await fetch("ort.wasm")).arrayBuffer();
  session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  describe();
  await checkGolden();
  $("state").textContent = "ready";
}

function describe() {
  const { name, accuracy, precision, labels, sha256 } = about;
  $("name").textContent = document.title = name;
  fill($("about"), [
    ["accuracy", accuracy ? `${(100 * accuracy.value).toFixed(2)} % (${accuracy.split})` : "–"],
    ["precision", precision ?? "–"],
    ["classes", labels.length],
    ["runs on", `WebAssembly, onnxruntime-web ${ort.env.versions.web}`],
    ["sha256", sha256.slice(0, 12)],
  ]);
  $("architecture").hidden = !about.drawing;
  if (about.drawing) $("drawing").src = about.drawing;
}

// images: Uint8Array of [count, height, width, channels] -> logits and probabilities, [count, classes].
async function run(images, count = 1) {
  const { height, width, channels } = about.preprocess;
  const { logits, probabilities } = await session.run({
    images: new ort.Tensor("uint8", images, [count, height, width, channels]),
  });
  return { logits: logits.data, probabilities: probabilities.data };
}

// The model's own samples must come out here as they did where it was exported.
async function checkGolden() {
  const { images, shape: [count], logits: expected, atol, rtol } = about.golden;
  const { logits: found } = await run(Uint8Array.from(atob(images), (byte) => byte.charCodeAt(0)), count);
  expected.forEach((row, sample) => {
    const allowed = atol + rtol * Math.max(...row.map(Math.abs));
    const difference = Math.max(...row.map((logit, k) => Math.abs(logit - found[sample * row.length + k])));
    if (!(difference <= allowed)) throw new Error(`the model's own samples come out otherwise in this browser, by ${difference}`);
  });
}

// As stored, but upright and on white: a colour profile is passed over, as in training.
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height, { colorSpace: "srgb" });
}

async function classify(file) {
  let picture;
  const start = performance.now();
  try {
    picture = await pixelsOf(file);
  } catch {
    throw new Error(`${file.name} is not a picture that this browser can read`);
  }
  const image = prepared(picture.data, picture.height, picture.width, about.preprocess);
  const pictureMs = performance.now() - start;
  const { probabilities } = await run(image);
  const answers = about.labels.map((label, k) => ({ class: label, probability: probabilities[k] }));
  answers.sort((a, b) => b.probability - a.probability);
  const pictureText = `picture ${milliseconds(pictureMs)}`;
  showAnswer(answers.slice(0, MOST_CLASSES), pictureText);
  const { ms, count } = await timed(image);
  $("latency").textContent = `model ${milliseconds(ms)}, a median of ${count} runs; ${pictureText}`;
}

// A browser's clock is too coarse for one run of a small model, and its compiler is at work during the first ones.
async function timed(image) {
  const blocks = [];
  let count = 0;
  for (const end = performance.now() + TIMED_MS; performance.now() < end;) {
    await new Promise((resolve) => setTimeout(resolve)); // lets the page be drawn
    const start = performance.now();
    let runs = 0, ms;
    do {
      await run(image);
      runs++;
      ms = performance.now() - start;
    } while (ms < BLOCK_MS);
    count += runs;
    blocks.push(ms / runs);
  }
  return { ms: blocks.sort((a, b) => a - b)[blocks.length >> 1], count };
}

const loading = load();
loading.catch((error) => {
  $("state").textContent = "not ready";
  showError(error);
});
// One after the other: the model takes one at a time.
let last;
onPicture((file) => { last = Promise.all([loading, last]).then(() => classify(file)).catch(showError); });
