// `node answer.js IMAGES.bin N,H,W,C MODEL.onnx OUTPUT.bin`: logits of a model in onnxruntime-node, float32 as they lie in memory.
"use strict";

const { readFileSync, writeFileSync } = require("fs");
const ort = require("onnxruntime-node");

async function main([images, shape, model, output]) {
  const session = await ort.InferenceSession.create(model);
  const input = new ort.Tensor("uint8", new Uint8Array(readFileSync(images)), shape.split(",").map(Number));
  const { logits } = await session.run({ images: input });
  writeFileSync(output, Buffer.from(logits.data.buffer, logits.data.byteOffset, logits.data.byteLength));
}

main(process.argv.slice(2));
