"""`python answer.py TOOL IMAGES.npy MODEL.onnx...`: logits of models in another program's environment, as MODEL.npy.

Runs where nothing of ours is installed.
"""

import sys
from pathlib import Path

import numpy as np


def by_onnxruntime(model: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def by_opencv(model: Path, images: np.ndarray) -> np.ndarray:
    import cv2

    # One network for one batch size: OpenCV 4.14 gives wrong answers to a batch after one of another size.
    network = cv2.dnn.readNetFromONNX(str(model))
    network.setInput(images, "images")
    return network.forward("logits")


def by_openvino(model: Path, images: np.ndarray) -> np.ndarray:
    import openvino

    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled({"images": images})["logits"]


TOOLS = {"onnxruntime": by_onnxruntime, "opencv": by_opencv, "openvino": by_openvino}

if __name__ == "__main__":
    tool, pictures, *models = sys.argv[1:]
    for name in models:
        np.save(Path(name).with_suffix(".npy"), TOOLS[tool](Path(name), np.load(pictures)))
