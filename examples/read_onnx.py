"""Classify a picture with a model.onnx and nothing of ours: python read_onnx.py model.onnx photo.jpg

The file itself says what its classes are and how a picture becomes its input; docs/preprocessing.md has every detail.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, picture_file = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
classes, preprocess = json.loads(metadata["enas.classes"]), json.loads(metadata["enas.preprocess"])

picture = ImageOps.exif_transpose(Image.open(picture_file)).convert("L" if preprocess["channels"] == 1 else "RGB")
size = preprocess["width"], preprocess["height"]
if preprocess["resize"] == "center_crop":
    picture = ImageOps.fit(picture, size, Image.Resampling.BILINEAR)
else:
    picture = picture.resize(size, Image.Resampling.BILINEAR)
images = np.asarray(picture).reshape(1, *size[::-1], preprocess["channels"])

_, probabilities = session.run(["logits", "probabilities"], {"images": images})
for index in probabilities[0].argsort()[::-1][:3]:
    print(f"{probabilities[0, index]:7.2%}  {classes[index]}")
