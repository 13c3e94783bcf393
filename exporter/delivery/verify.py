"""Checks that an exported model computes what its torch network computes: on the whole test split, at several batch
sizes, and on images with extreme values."""

# N images, H height, W width, C channels, K classes

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from exporter.conversion.convert import DeployedNetwork
from exporter.delivery.acceptance import EQUALITY
from foundation.tables import aligned
from runtime.models.model import Model
from runtime.models.tolerance import Tolerance, largest_difference

BATCH_SIZES = (1, 2, 7, 64)
_TORCH_BATCH_SIZE = 250


@dataclass(frozen=True)
class Comparison:
    """onnxruntime against torch on the same inputs at one batch size."""

    inputs: str
    """Name of the inputs: a split, or edge cases."""
    batch_size: int
    count: int
    max_difference: float
    """Largest |logit difference|."""
    largest_excess: float
    """Largest difference, divided by the allowed one; above 1 fails."""
    disagreements: int
    """Inputs with another predicted class, ties not counted."""
    ties: int
    """Inputs whose two best logits in torch lie closer together than twice the tolerance."""
    accuracy: float | None
    """onnxruntime's, in [0, 1]; None for inputs without labels."""
    torch_accuracy: float | None

    @property
    def passed(self) -> bool:
        """Whether it passes as float32; other precisions have policies of their own, see `acceptance.py`."""
        return EQUALITY.accepts(self)


@dataclass(frozen=True)
class PerplexityCheck:
    """A text's perplexity, computed by onnxruntime and by torch."""

    onnxruntime: float
    torch: float
    count: int
    """Predicted tokens."""
    rtol: float
    """Allowed difference, relative to torch's."""

    @property
    def passed(self) -> bool:
        return abs(self.onnxruntime - self.torch) <= self.rtol * self.torch


@dataclass(frozen=True)
class Verification:
    """All comparisons of a run's model. `passed` only if all checks pass."""

    model_sha256: str
    tolerance: Tolerance
    provider: str
    comparisons: tuple[Comparison, ...]
    golden_difference: float
    """Largest |logit difference| when the samples that the file carries are replayed."""
    golden_passed: bool
    sequence_sha256: str | None = None
    """Digest of a language model's second file, for sequences."""
    perplexity: PerplexityCheck | None = None
    """Of a language model, on the test split."""

    @property
    def passed(self) -> bool:
        same_perplexity = self.perplexity is None or self.perplexity.passed
        return self.golden_passed and same_perplexity and all(comparison.passed for comparison in self.comparisons)

    def to_document(self) -> dict[str, Any]:
        """The content of `verification.json`."""
        rows = [{**asdict(c), "passed": c.passed} for c in self.comparisons]
        return {"passed": self.passed, **asdict(self), "comparisons": rows}


def torch_logits(network: DeployedNetwork, images: np.ndarray) -> np.ndarray:
    """Logits [N, K] of images uint8 [N, H, W, C], in full float32 on the CPU, without flushing denormal numbers."""
    network = network.cpu().float().eval()
    torch.set_flush_denormal(False)
    with torch.inference_mode():
        batches = torch.from_numpy(images).split(_TORCH_BATCH_SIZE)  # type: ignore[no-untyped-call]
        return torch.cat([network(batch)[0] for batch in batches]).numpy()


def predicted(
    model: Model, images: np.ndarray, *, batch_size: int, on_batch: Callable[[int], object] = lambda n: None
) -> np.ndarray:
    """An exported model's logits [N, K] of images uint8 [N, H, W, C]. Args: on_batch: called with each batch's size."""
    found = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        found.append(model.predict(batch).logits)
        on_batch(len(batch))
    return np.concatenate(found)


def edge_images(shape: Sequence[int]) -> np.ndarray:
    """All 0, all 255, all 128, and for every channel an image of that channel alone: uint8 [3 + C, H, W, C]."""
    height, width, channels = shape
    constants = [np.full((height, width, channels), value, np.uint8) for value in (0, 255, 128)]
    for channel in range(channels):
        image = np.zeros((height, width, channels), np.uint8)
        image[..., channel] = 200
        constants.append(image)
    return np.stack(constants)


def verify(
    model: Model,
    network: DeployedNetwork,
    *,
    images: np.ndarray,
    labels: np.ndarray,
    expected: np.ndarray,
    split: str,
    tolerance: Tolerance,
) -> Verification:
    """Compare a model with the network it was made from.

    Args: images: uint8 [N, H, W, C]; labels: [N]; expected: the network's `torch_logits` of the images, [N, K].
    """
    edges = edge_images(images.shape[1:])
    expected_edges = torch_logits(network, edges)
    comparisons = []
    with tqdm(total=len(BATCH_SIZES) * len(images), desc="verify", disable=None, unit="image") as bar:
        for batch_size in BATCH_SIZES:
            found = predicted(model, images, batch_size=batch_size, on_batch=bar.update)
            comparisons.append(compare(split, batch_size, found, expected, labels=labels, tolerance=tolerance))
            found = predicted(model, edges, batch_size=min(batch_size, len(edges)))
            comparisons.append(
                compare("edge cases", batch_size, found, expected_edges, labels=None, tolerance=tolerance)
            )
    golden = model.check_golden()
    return Verification(
        model_sha256=model.sha256,
        tolerance=tolerance,
        provider=model.session.providers[0],
        comparisons=tuple(comparisons),
        golden_difference=golden.max_difference,
        golden_passed=golden.passed,
    )


def describe(verification: Verification) -> str:
    """The comparisons as a table for a person."""
    header = ["inputs", "batch", "count", "max |Δ logit|", "of allowed", "differ", "ties", ""]
    rows = []
    for row in verification.comparisons:
        counts, differences = [f"{row.batch_size}", f"{row.count}"], [f"{row.disagreements}", f"{row.ties}"]
        sizes, verdict = [f"{row.max_difference:.2e}", f"{row.largest_excess:.1%}"], "" if row.passed else "FAILED"
        rows.append([row.inputs, *counts, *sizes, *differences, verdict])
    lines = [aligned(header, rows, left=(0, 7))]
    golden = "passed" if verification.golden_passed else "FAILED"
    lines.append(f"golden samples: {golden} (max |Δ logit| {verification.golden_difference:.2e})")
    if (check := verification.perplexity) is not None:
        verdict = "passed" if check.passed else "FAILED"
        lines.append(
            f"perplexity of test: {verdict} (onnxruntime {check.onnxruntime:.4f}, torch {check.torch:.4f}, "
            f"{check.count:,} tokens)"
        )
    return "\n".join(lines)


def compare(
    name: str,
    batch_size: int,
    found: np.ndarray,
    expected: np.ndarray,
    *,
    labels: np.ndarray | None,
    tolerance: Tolerance,
) -> Comparison:
    """Compares the logits [N, K] of both, with labels [N] if there are any."""
    runner_up, best = np.sort(expected, axis=1)[:, -2:].T
    tie = best - runner_up <= 2 * tolerance.bound(expected)
    differs = (found.argmax(axis=1) != expected.argmax(axis=1)) & ~tie
    return Comparison(
        inputs=name,
        batch_size=batch_size,
        count=len(found),
        max_difference=float(largest_difference(found, expected).max()),
        largest_excess=float(tolerance.excess(found, expected).max()),
        disagreements=int(differs.sum()),
        ties=int(tie.sum()),
        accuracy=None if labels is None else float((found.argmax(axis=1) == labels).mean()),
        torch_accuracy=None if labels is None else float((expected.argmax(axis=1) == labels).mean()),
    )
