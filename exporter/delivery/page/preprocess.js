// Pictures as the network saw them; docs/preprocessing.md holds these lines, too.
// How each of `count` pixels is made of `size`, of which the part from low to high is shown: [first pixel, weights].
function weights(size, low, high, count) {
  const scale = (high - low) / count, spread = Math.max(scale, 1);
  return Array.from({ length: count }, (_, place) => {
    const centre = low + (place + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - spread)), end = Math.min(size, Math.ceil(centre + spread));
    const triangle = Array.from({ length: end - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((first + k - centre + 0.5) * (1 / spread))));
    const sum = triangle.reduce((a, b) => a + b);
    return [first, triangle.map((weight) => Math.floor((weight / sum) * 2 ** 22 + 0.5))];
  });
}

// Left, top, right and bottom of what is shown.
function part(height, width, outHeight, outWidth, resize) {
  const ratio = outWidth / outHeight;
  if (resize === "squash" || width / height === ratio) return [0, 0, width, height];
  const [shownWidth, shownHeight] = width / height >= ratio ? [ratio * height, height] : [width, width / ratio];
  const [left, top] = [(width - shownWidth) * 0.5, (height - shownHeight) * 0.5];
  return [left, top, left + shownWidth, top + shownHeight].map(Math.fround);
}

// rgba: Uint8ClampedArray of [height, width, 4], opaque, as getImageData gives it -> Uint8Array [outHeight, outWidth, channels].
function prepared(rgba, height, width, { height: outHeight, width: outWidth, channels, resize }) {
  const pixel = channels === 3
    ? (place, channel) => rgba[4 * place + channel]
    : (place) => (19595 * rgba[4 * place] + 38470 * rgba[4 * place + 1] + 7471 * rgba[4 * place + 2] + 32768) >> 16;
  const [left, top, right, bottom] = part(height, width, outHeight, outWidth, resize);
  const mean = ([first, row], value) => {
    let sum = 2 ** 21;
    for (let k = 0; k < row.length; k++) sum += row[k] * value(first + k);
    return Math.floor(sum / 2 ** 22);
  };
  const across = weights(width, left, right, outWidth), down = weights(height, top, bottom, outHeight);
  const rows = new Uint8Array(height * outWidth * channels), result = new Uint8Array(outHeight * outWidth * channels);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < outWidth; x++)
      for (let c = 0; c < channels; c++)
        rows[(y * outWidth + x) * channels + c] = mean(across[x], (k) => pixel(y * width + k, c));
  for (let y = 0; y < outHeight; y++)
    for (let x = 0; x < outWidth; x++)
      for (let c = 0; c < channels; c++)
        result[(y * outWidth + x) * channels + c] = mean(down[y], (k) => rows[(k * outWidth + x) * channels + c]);
  return result;
}

export { prepared };
