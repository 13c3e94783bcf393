"""What the runtime's benchmark compares an exported model with: torch's side, supplied from here so that the runtime
needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from exporter.export import load_retrained


def torch_eager(run: Path, *, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """The run's retrained network in eager torch on the CPU: images uint8 [B, H, W, C] -> logits [B, classes].

    Raises: RunError: the run has no retrained network.
    """
    network = load_retrained(run).network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.set_num_threads(threads)

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images))[0].numpy()

    return predict
