"""Exports a run's retrained network as `model.onnx`: converted, described, verified, and only then given that name.

A language model becomes two files, both verified before either gets its name.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
import torch

from datasets.store import ImageStore, StoreError, TextStore
from exporter.conversion.convert import (
    DEFAULT_OPSET,
    NUM_GOLDEN,
    DeployedNetwork,
    check,
    convert,
    describe,
    num_golden,
)
from exporter.conversion.convert_text import (
    StepNetwork,
    convert_sequence,
    convert_step,
    describe_text,
    golden_log_probs,
)
from exporter.conversion.transforms.align import fastest_alignment
from exporter.delivery.verify import Verification, torch_logits, verify
from exporter.delivery.verify_text import torch_perplexity, verify_text
from exporter.latency.measure import CAREFUL, measure
from exporter.retraining.retrain import BEST, check_task, check_up_to_date, load_best
from foundation.files import sha256_of, strict_json, whole_file, write_text
from runtime.models.artifact import MODEL, SEQUENCE_MODEL, read_model
from runtime.models.language_model import SequenceModel, StepModel
from runtime.models.model import Model
from runtime.models.tolerance import Tolerance
from searcher.arch.catalog import check_is_run
from searcher.arch.spec import Spec, read_spec
from searcher.arch.tasks import ImageClassification
from searcher.lineage import is_retraining_outdated
from searcher.nn.build import BoundNetwork
from searcher.report.drawing import draw_spec
from searcher.running.checkpoint import load_checkpoint
from searcher.running.run_folder import RunError, RunFolder, read_toml
from searcher.training.task_kinds import Store, load_store, load_store_of

VERIFICATION = "verification.json"
FAILED_VERIFICATION = "verification-failed.json"
_GOLDEN_TOKENS = 9

Log = Callable[[str], None]
Align: TypeAlias = Literal["none", "auto"]
Expected: TypeAlias = np.ndarray | float
"""The result of torch on the test split: logits [N, K] of images, the perplexity of a text."""


class VerificationError(Exception):
    """The model does not compute what its network computes."""

    def __init__(self, verification: Verification, report: Path) -> None:
        self.verification = verification
        super().__init__(f"the exported model does not match its torch network; see {report}. No model was written")


@dataclass(frozen=True)
class Retrained:
    """A run's retraining as the exporter finds it."""

    spec: Spec
    network: BoundNetwork
    store: Store
    weights: str
    """Where the weights come from, in words."""
    weights_sha256: str
    finished: bool

    @property
    def origin(self) -> dict[str, str]:
        """Where the weights come from, and what they were trained on, as models record it."""
        return {"weights": self.weights, "dataset_sha256": self.store.digest}

    @property
    def record(self) -> dict[str, Any]:
        """What a model is made from, as `verification.json` records it."""
        return {**self.origin, "weights_sha256": self.weights_sha256, "retraining_finished": self.finished}


def load_retrained(run: Path) -> Retrained:
    """The best weights of a run's retraining, on the CPU.

    Raises: RunError: there is no retraining, or no epoch of it is finished, or it is not of the network of the
    run's spec.json. DocumentError: the run is a file. StoreError, CheckpointError.
    """
    check_is_run(run)
    check_up_to_date(run)
    folder = RunFolder(run / "retrain")
    if not (folder.path / BEST).exists():
        retrain = f"enas retrain {shlex.quote(str(run))}"
        if folder.begun:
            raise RunError(f"{run}: the retraining has not finished an epoch; go on with it: `{retrain} --resume`")
        raise RunError(f"{run}: the retraining is missing; make it with `{retrain}`")
    spec = read_spec(folder.path / "spec.json")
    store = load_store_of(spec, named_by=f"{run} was trained on")
    check_task(spec, store)
    trained_on = read_toml(folder.config_path).get("dataset_sha256")
    if trained_on and trained_on != store.digest:
        # Its mean and deviation go into the model, which is verified on its test split.
        raise StoreError(
            f"the data set {spec.task.dataset} is no longer the one that {run} was trained on; import that one again, "
            f"or train anew: `enas retrain {shlex.quote(str(run))} --force`"
        )
    network = load_best(folder, spec, device=torch.device("cpu"))
    epoch = load_checkpoint(folder.path / BEST, required=("epoch",))["epoch"]
    return Retrained(
        spec=spec,
        network=network,
        store=store,
        weights=f"epoch {epoch} of {'a finished' if folder.finished else 'an unfinished'} retraining",
        weights_sha256=sha256_of(folder.path / BEST),
        finished=folder.finished,
    )


def load_deployed(run: Path) -> DeployedNetwork | StepNetwork:
    """The network in torch as it is exported. Raises: as `load_retrained`."""
    retrained = load_retrained(run)
    if isinstance(retrained.store, TextStore):
        return StepNetwork(retrained.network)
    return _deployed(retrained, retrained.store)


def is_current(run: Path, *, opset: int, tolerance: Tolerance, align: Align = "none") -> bool:
    """Whether the run's model is verified, made with these options, and made from the retraining's present weights."""
    try:
        document = _recorded(run)
        spec = read_spec(run / "retrain" / "spec.json")
        return (
            document["passed"]
            and not is_retraining_outdated(run)
            and (document["opset"], document.get("align", "none")) == (opset, align)
            and document["tolerance"] == asdict(tolerance)
            and document["retraining_finished"] == RunFolder(run / "retrain").finished
            and document["weights_sha256"] == sha256_of(run / "retrain" / BEST)
            and document["dataset_sha256"] == load_store(spec.task.dataset, space=spec.space).digest
            and (document["sequence_sha256"] is None or document["sequence_sha256"] == sha256_of(run / SEQUENCE_MODEL))
        )
    except (FileNotFoundError, ValueError, KeyError):
        return False


def export(
    run: Path,
    *,
    opset: int = DEFAULT_OPSET,
    tolerance: Tolerance | None = None,
    align: Align = "none",
    log: Log = print,
) -> Verification:
    """Write the run's model, two files for a language model, and `verification.json` into the run directory.

    Args: align: whether channels of an image network are padded to blocks of this CPU's kernels, if that is faster.

    Raises: VerificationError: the model differs from its network; no model is written, and an earlier one of other
    weights is removed. RunError, StoreError.
    """
    tolerance = tolerance or Tolerance()
    retrained = load_retrained(run)
    if not retrained.finished:
        log(f"the retraining is not finished: exporting the weights of {retrained.weights}")
    log("converting to ONNX")
    expected = _expected(retrained)
    make = _text_models if isinstance(retrained.store, TextStore) else partial(_image_model, align=align, log=log)
    with ExitStack() as stack:
        paths = {}
        for name, proto in make(retrained, expected, opset=opset, tolerance=tolerance):
            data = check(proto)
            paths[name] = stack.enter_context(whole_file(run / name))
            paths[name].write_bytes(data)
        log("verifying against torch")
        verification = _verify(paths, retrained, expected, tolerance=tolerance)
        if not verification.passed:
            _write(run / FAILED_VERIFICATION, verification, retrained.record, opset=opset, align=align)
            _remove_stale(run, retrained)
            raise VerificationError(verification, run / FAILED_VERIFICATION)
    # After the model has its name: a kill in between leaves a model without a report, never a report of another model.
    _write(run / VERIFICATION, verification, retrained.record, opset=opset, align=align)
    (run / FAILED_VERIFICATION).unlink(missing_ok=True)
    return verification


def verify_run(run: Path, *, tolerance: Tolerance | None = None, log: Log = print) -> Verification:
    """Compare a run's model with its retrained network again, and write `verification.json`.

    The record of what the model was made from is not changed. Raises: RunError, StoreError, ArtifactError.
    """
    retrained = load_retrained(run)
    paths = {name: run / name for name in (MODEL, SEQUENCE_MODEL)}
    read_model(run / MODEL)  # a missing model is reported at once
    exported = _recorded(run)
    made_from = {key: exported.get(key, value) for key, value in retrained.record.items()}
    if made_from["weights_sha256"] != retrained.weights_sha256:
        log(f"{run}: this model is of earlier weights; `enas export {shlex.quote(str(run))}` makes one of the present")
    verification = _verify(paths, retrained, _expected(retrained), tolerance=tolerance or Tolerance())
    opset = next(entry.version for entry in onnx.load(run / MODEL).opset_import if not entry.domain)
    _write(run / VERIFICATION, verification, made_from, opset=opset, align=exported.get("align", "none"))
    return verification


def _expected(retrained: Retrained) -> Expected:
    store = retrained.store
    if isinstance(store, TextStore):
        return torch_perplexity(retrained.network, store)
    return torch_logits(_deployed(retrained, store), store.images("test"))


def _deployed(retrained: Retrained, store: ImageStore) -> DeployedNetwork:
    return DeployedNetwork(retrained.network, mean=store.mean, std=store.std)


def _image_model(
    retrained: Retrained, logits: Expected, *, opset: int, tolerance: Tolerance, align: Align, log: Log
) -> Iterator[tuple[str, onnx.ModelProto]]:
    store, spec = retrained.store, retrained.spec
    assert isinstance(store, ImageStore)
    assert isinstance(logits, np.ndarray)
    assert isinstance(spec.task, ImageClassification)
    images, labels = store.images("test"), store.labels("test")
    proto = convert(_deployed(retrained, store), input_shape=spec.task.input_shape, opset=opset)
    block = None
    if align == "auto":
        proto, block, why = fastest_alignment(proto, _relative_times)
        log(why)
    count = num_golden(spec.task.input_shape)
    describe(
        proto,
        spec,
        golden_images=images[:count],
        golden_logits=logits[:count],
        tolerance=tolerance,
        accuracy={"split": "test", "value": float((logits.argmax(1) == labels).mean()), "count": len(labels)},
        drawing=draw_spec(spec),
        origin=retrained.origin,
        resize=store.resize,
        block=block,
    )
    yield MODEL, proto


def _relative_times(files: Sequence[bytes]) -> list[float]:
    return [ratio.value for ratio in measure(files, effort=CAREFUL).ratios]


def _text_models(
    retrained: Retrained, score: Expected, *, opset: int, tolerance: Tolerance
) -> Iterator[tuple[str, onnx.ModelProto]]:
    store = retrained.store
    assert isinstance(store, TextStore)
    tokens = store.stream("test").astype(np.int64)
    length = min(_GOLDEN_TOKENS, len(tokens))
    starts = np.linspace(0, len(tokens) - length, NUM_GOLDEN).astype(np.int64)
    golden = tokens[starts[:, None] + np.arange(length)]
    for name, convert_model in ((MODEL, convert_step), (SEQUENCE_MODEL, convert_sequence)):
        proto = convert_model(retrained.network, opset=opset)
        describe_text(
            proto,
            retrained.spec,
            store=store,
            golden_tokens=golden,
            golden_log_probs=golden_log_probs(retrained.network, golden),
            tolerance=tolerance,
            accuracy={"split": "test", "metric": "perplexity", "value": score, "count": len(tokens) - 1},
            drawing=draw_spec(retrained.spec),
            origin=retrained.origin,
        )
        yield name, proto


def _verify(paths: dict[str, Path], retrained: Retrained, expected: Expected, *, tolerance: Tolerance) -> Verification:
    """Compare a run's files, which may still have temporary names, with its network."""
    store = retrained.store
    if isinstance(store, TextStore):
        assert isinstance(expected, float)
        return verify_text(
            StepModel.open(paths[MODEL], provider="cpu"),
            SequenceModel.open(paths[SEQUENCE_MODEL], provider="cpu"),
            retrained.network,
            store=store,
            expected=expected,
            tolerance=tolerance,
        )
    assert isinstance(expected, np.ndarray)
    return verify(
        Model.open(paths[MODEL], provider="cpu"),
        _deployed(retrained, store),
        images=store.images("test"),
        labels=store.labels("test"),
        expected=expected,
        split="test",
        tolerance=tolerance,
    )


def _recorded(run: Path) -> dict[str, Any]:
    """The content of `verification.json`; empty if it is not about the run's present model, or cannot be read."""
    try:
        document: dict[str, Any] = json.loads((run / VERIFICATION).read_text(encoding="utf-8"))
        return document if document["model_sha256"] == sha256_of(run / MODEL) else {}
    except (FileNotFoundError, ValueError, KeyError):
        return {}


def _write(path: Path, verification: Verification, made_from: Mapping[str, Any], *, opset: int, align: Align) -> None:
    document = {**verification.to_document(), "opset": opset, "align": align, **made_from}
    write_text(path, strict_json(document) + "\n")


def _remove_stale(run: Path, retrained: Retrained) -> None:
    """Remove an earlier model of other weights, which would look like the run's own."""
    if _recorded(run).get("weights_sha256") != retrained.weights_sha256:
        for name in (MODEL, SEQUENCE_MODEL, VERIFICATION):
            (run / name).unlink(missing_ok=True)
