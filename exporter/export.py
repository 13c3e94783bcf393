"""A run's retrained network becomes its `model.onnx`: converted, described, verified, and only then named so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
import torch

from datasets.catalog import load_images
from datasets.files import whole_file, write_text
from datasets.store import ImageStore
from exporter.convert import DEFAULT_OPSET, NUM_GOLDEN, DeployedNetwork, Tolerance, check, convert, describe
from exporter.retrain import BEST, check_task, load_best
from exporter.verify import Verification, torch_logits, verify
from runtime.model import Model
from searcher.arch.spec import Spec, read_spec
from searcher.report.drawing import draw_spec
from searcher.training.checkpoint import load_checkpoint
from searcher.training.run_folder import RunError, RunFolder

MODEL = "model.onnx"
VERIFICATION = "verification.json"
FAILED_VERIFICATION = "verification-failed.json"


class VerificationError(Exception):
    """The model does not compute what its network computes."""

    def __init__(self, verification: Verification, report: Path) -> None:
        self.verification = verification
        super().__init__(f"the exported model does not match its torch network; see {report}. No model was written")


@dataclass(frozen=True)
class Retrained:
    """A run's retraining as the exporter finds it."""

    spec: Spec
    network: DeployedNetwork
    store: ImageStore
    weights: str
    """Where the weights come from, in words."""
    weights_sha256: str
    finished: bool


def load_retrained(run: Path) -> Retrained:
    """The best weights of a run's retraining, on the CPU.

    Raises: RunError: there is no retraining, or no epoch of it is done. StoreError, CheckpointError.
    """
    folder = RunFolder(run / "retrain")
    if not (folder.path / BEST).exists():
        state = "has not finished an epoch" if folder.config_path.exists() else "is missing"
        raise RunError(f"{run}: the retraining {state}; make it with `enas retrain {run}`")
    spec = read_spec(folder.path / "spec.json")
    store = load_images(spec.task.dataset)
    check_task(spec, store)
    network = load_best(folder, spec, device=torch.device("cpu"))
    epoch = load_checkpoint(folder.path / BEST, required=("epoch",))["epoch"]
    return Retrained(
        spec=spec,
        network=DeployedNetwork(network, mean=store.mean, std=store.std),
        store=store,
        weights=f"epoch {epoch} of {'a finished' if folder.finished else 'an unfinished'} retraining",
        weights_sha256=_sha256(folder.path / BEST),
        finished=folder.finished,
    )


def is_current(run: Path, *, opset: int, tolerance: Tolerance) -> bool:
    """Whether the run's model is verified, and is that of its retraining's weights as they are now."""
    try:
        document = json.loads((run / VERIFICATION).read_text(encoding="utf-8"))
        return (
            document["passed"]
            and document["opset"] == opset
            and document["tolerance"] == asdict(tolerance)
            and document["retraining_finished"] == RunFolder(run / "retrain").finished
            and document["weights_sha256"] == _sha256(run / "retrain" / BEST)
            and document["dataset_sha256"] == load_images(read_spec(run / "retrain" / "spec.json").task.dataset).digest
            and document["model_sha256"] == _sha256(run / MODEL)
        )
    except (FileNotFoundError, ValueError, KeyError):
        return False


def export(
    run: Path, *, opset: int = DEFAULT_OPSET, tolerance: Tolerance | None = None, log: Callable[[str], None] = print
) -> Verification:
    """Write `model.onnx` and `verification.json` into the run directory.

    Raises: VerificationError: they differ; no model is written, and one of other weights is removed. RunError,
    StoreError.
    """
    tolerance = tolerance or Tolerance()
    retrained = load_retrained(run)
    if not retrained.finished:
        log(f"the retraining is not finished: exporting the weights of {retrained.weights}")
    spec, store, network = retrained.spec, retrained.store, retrained.network
    images, labels = store.images("test"), store.labels("test")
    log("torch: answers on the test split, in full float32")
    logits = torch_logits(network, images)
    log("converting to ONNX")
    proto = convert(network, input_shape=spec.task.input_shape, opset=opset)
    describe(
        proto,
        spec,
        golden_images=images[:NUM_GOLDEN],
        golden_logits=logits[:NUM_GOLDEN],
        tolerance=tolerance,
        accuracy={"split": "test", "value": float((logits.argmax(1) == labels).mean()), "count": len(labels)},
        drawing=draw_spec(spec),
        weights=retrained.weights,
        resize=store.resize,
    )
    data = check(proto)
    with whole_file(run / MODEL) as temporary:
        temporary.write_bytes(data)
        log(f"verifying {len(images)} images at each batch size")
        verification = verify(
            Model.open(temporary, provider="cpu"),
            network,
            images=images,
            labels=labels,
            split="test",
            tolerance=tolerance,
            logits=logits,
        )
        if not verification.passed:
            _write(run / FAILED_VERIFICATION, verification, retrained, opset=opset)
            _remove_stale(run, retrained)
            raise VerificationError(verification, run / FAILED_VERIFICATION)
    # After the model has its name: a kill in between leaves a model without a report, never a report of another model.
    _write(run / VERIFICATION, verification, retrained, opset=opset)
    (run / FAILED_VERIFICATION).unlink(missing_ok=True)
    return verification


def verify_run(run: Path, *, tolerance: Tolerance | None = None) -> Verification:
    """Compare a run's `model.onnx` with its retrained network again, and write `verification.json`.

    Raises: RunError, StoreError, ArtifactError.
    """
    retrained = load_retrained(run)
    store = retrained.store
    model = Model.open(run / MODEL, provider="cpu")
    verification = verify(
        model,
        retrained.network,
        images=store.images("test"),
        labels=store.labels("test"),
        split="test",
        tolerance=tolerance or Tolerance(),
    )
    opset = next(entry.version for entry in onnx.load(run / MODEL).opset_import if not entry.domain)
    _write(run / VERIFICATION, verification, retrained, opset=opset)
    return verification


def _write(path: Path, verification: Verification, retrained: Retrained, *, opset: int) -> None:
    document = {
        **verification.to_document(),
        "opset": opset,
        "weights": retrained.weights,
        "weights_sha256": retrained.weights_sha256,
        "dataset_sha256": retrained.store.digest,
        "retraining_finished": retrained.finished,
    }
    write_text(path, json.dumps(document, indent=2) + "\n")


def _remove_stale(run: Path, retrained: Retrained) -> None:
    """Remove an earlier model of other weights, which would look like the run's own."""
    try:
        earlier = json.loads((run / VERIFICATION).read_text(encoding="utf-8"))["weights_sha256"]
    except (FileNotFoundError, ValueError, KeyError):
        earlier = None
    if earlier != retrained.weights_sha256:
        for name in (MODEL, VERIFICATION):
            (run / name).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
