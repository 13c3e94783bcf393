"""The targets of a benchmark: an ONNX file in this process, a function, or, in clients.py, a model on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runtime.benchmarking.benchmark import Call, Opened, Seen
from runtime.models.artifact import ArtifactError, load, read_model
from runtime.models.inputs import ShapeError, TensorSpec, inputs_of
from runtime.models.kinds import model_of
from runtime.models.onnx_file import OnnxFile
from runtime.models.ort import onnxruntime
from runtime.models.ort_errors import is_onnxruntimes
from runtime.models.providers import Provider, Session, Tuning, open_session

# Metadata of a file that is valid only for the weights and the precision that gave its golden samples.
_CLAIMS = {"accuracy", "precision"}

Feed = Mapping[str, np.ndarray]
"""Input name -> value; the first dimension is the batch."""


@dataclass(frozen=True)
class Facts:
    """What a report states about a target besides its latencies."""

    file: str | None = None
    sha256: str | None = None
    num_bytes: int | None = None
    providers: tuple[str, ...] = ()
    nodes: Mapping[str, int] | None = None
    runs_on: str = "CPU"
    provider_remark: str | None = None
    precision: str | None = None
    accuracy: Mapping[str, Any] | None = None
    """`split`, `value` and `count`, as stated in the file."""
    producer: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The requested settings of the session."""
    note: str | None = None
    """A remark for the reader."""


class Target(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    @property
    def limits(self) -> Mapping[str, int]:
        """Input name -> exclusive upper bound of its integers."""
        ...

    @property
    def facts(self) -> Facts: ...

    def open(self, feed: Feed, other: Feed | None) -> AbstractContextManager[Opened]:
        """Opens a new session for one feed. Args: other: a feed of another batch size; None if the size is fixed."""
        ...

    def examine(self, result: object) -> str | None:
        """Returns a remark on the result of a call, or None if all is well."""
        ...


@dataclass(frozen=True)
class Transfer:
    """How inputs reach the session and outputs leave it."""

    io_binding: bool = False
    """Keep inputs and outputs at fixed addresses on the session's device, by IO binding."""
    copies: bool = True
    """Whether a call copies its inputs to the device and its outputs back; False needs `io_binding`."""

    def __post_init__(self) -> None:
        assert self.io_binding or self.copies


@dataclass(frozen=True)
class OnnxTarget:
    """An ONNX file of any origin, in sessions of this process."""

    name: str
    file: OnnxFile
    inputs: Sequence[TensorSpec]
    limits: Mapping[str, int]
    facts: Facts
    provider: Provider
    """The provider that is used; never `auto`."""
    threads: int
    tuning: Tuning
    transfer: Transfer
    num_classes: int | None
    """Set for an image classifier of this toolchain, else None."""

    @classmethod
    def load(
        cls,
        name: str,
        source: Path | bytes,
        *,
        provider: Provider,
        threads: int,
        tuning: Tuning,
        transfer: Transfer,
        note: str | None = None,
    ) -> OnnxTarget:
        """Loads a model file, the `model.onnx` of a run directory, or a model's bytes.

        Raises: ArtifactError: not a complete ONNX file, or its inputs are not tensors of numbers. ProviderError: the
            provider is not available.
        """
        file = OnnxFile(Path(name), source) if isinstance(source, bytes) else read_model(source)
        artifact, _ = load(file, provider=provider, threads=threads, tuning=tuning)
        session, metadata = artifact.session, artifact.metadata
        try:
            inputs = inputs_of(session.ort, unranked=file.unranked_inputs)
        except ShapeError as error:
            raise ArtifactError(f"{file.path}: {error}") from error
        doubt = _doubt(file) if metadata.keys() & _CLAIMS else None
        return cls(
            name=name,
            file=file,
            inputs=inputs,
            limits=_limits(metadata),
            facts=Facts(
                file=None if isinstance(source, bytes) else str(file.path),
                sha256=artifact.sha256,
                num_bytes=artifact.num_bytes,
                providers=session.providers,
                nodes=dict(session.nodes),
                runs_on=session.describe(),
                provider_remark=session.remark,
                precision=None if doubt else _of_type(metadata.get("precision"), str),
                accuracy=None if doubt else _of_type(metadata.get("accuracy"), dict),
                producer=_of_type(metadata.get("producer"), dict),
                settings={**asdict(tuning), **asdict(transfer)},
                note=doubt or note,
            ),
            provider=session.device,
            threads=threads,
            tuning=tuning,
            transfer=transfer,
            num_classes=len(classes) if isinstance(classes := metadata.get("classes"), list) else None,
        )

    @contextmanager
    def open(self, feed: Feed, other: Feed | None) -> Iterator[Opened]:
        session = open_session(self.file.source, provider=self.provider, threads=self.threads, tuning=self.tuning)
        yield Opened(
            connect=lambda: self._call(session, feed),
            other_shape=None if other is None else lambda: self._call(session, other)(),
        )

    def examine(self, result: object) -> str | None:
        return remark_of(result)

    def _call(self, session: Session, feed: Feed) -> Call:
        if not self.transfer.io_binding:
            return partial(session.ort.run, None, dict(feed))
        return _bound_call(session, feed, copies=self.transfer.copies)


@dataclass(frozen=True)
class FunctionTarget:
    """A function of one feed, such as a network in another framework; it is made once and stays open."""

    name: str
    inputs: Sequence[TensorSpec]
    limits: Mapping[str, int]
    facts: Facts
    predict: Callable[..., np.ndarray]
    """The inputs, in order -> an output."""
    shapes: set[tuple[int, ...]] = field(default_factory=set)
    """Input shapes that it was called with."""

    @contextmanager
    def open(self, feed: Feed, other: Feed | None) -> Iterator[Opened]:
        # No call with another shape: it would make a compiling framework compile again.
        inputs = tuple(feed.values())
        shape = inputs[0].shape
        seen: Seen = "this shape" if shape in self.shapes else "other shapes" if self.shapes else "nothing"
        self.shapes.add(shape)
        yield Opened(connect=lambda: partial(self.predict, *inputs), is_kept=True, seen=seen)

    def examine(self, result: object) -> str | None:
        return remark_of(result)


def remark_of(result: object) -> str | None:
    """Returns a remark if a call returned values that are not finite, else None."""
    arrays = result if isinstance(result, list | tuple) else [result]
    for array in arrays:
        if isinstance(array, onnxruntime.OrtValue):
            array = array.numpy()
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            return f"returns {kind} for random inputs"
    return None


def _bound_call(session: Session, feed: Feed, *, copies: bool) -> Call:
    """Returns a call with inputs and outputs at fixed addresses on the session's device, as a CUDA graph requires."""
    ort, device = session.ort, session.device
    options = onnxruntime.RunOptions()
    binding = ort.io_binding()
    places = [(onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0), array) for array in feed.values()]
    for name, (place, _) in zip(feed, places, strict=True):
        binding.bind_ortvalue_input(name, place)
    for output in ort.get_outputs():
        binding.bind_output(output.name, device, 0)
    # The first run determines the outputs' shapes. -1: it is not recorded as a graph.
    options.add_run_config_entry("gpu_graph_id", "-1")
    ort.run_with_iobinding(binding, options)
    outputs: list[Any] = binding.get_outputs()
    for output, place in zip(ort.get_outputs(), outputs, strict=True):
        binding.bind_ortvalue_output(output.name, place)
    batch_size = next((len(array) for array in feed.values() if array.ndim), 1)
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(batch_size))

    def call_with_copies() -> list[np.ndarray]:
        for place, array in places:
            place.update_inplace(array)
        ort.run_with_iobinding(binding, options)
        return [output.numpy() for output in outputs]

    def call_alone() -> list[Any]:
        ort.run_with_iobinding(binding, options)
        binding.synchronize_outputs()
        return outputs

    return call_with_copies if copies else call_alone


def _doubt(file: OnnxFile) -> str | None:
    """Returns why a file's claims about itself are not valid, for example because another tool quantised it; else None.

    Checked on the CPU, because the recorded outputs come from CPU arithmetic.
    """
    unproven = "its accuracy and precision are not stated"
    try:
        check = model_of(*load(file, provider="cpu", threads=1)).check_golden()
    except ArtifactError as error:
        return f"{unproven}: {str(error).removeprefix(f'{file.path}: ')}"
    except Exception as error:
        if is_onnxruntimes(error):
            return f"{unproven}: the samples that it carries do not run"
        raise
    return None if check.passed else f"{unproven}: it does not give the outputs that it carries"


def _limits(metadata: Mapping[str, Any]) -> Mapping[str, int]:
    """The limits of a language model of this toolchain: its token numbers are below the vocabulary size."""
    match metadata:
        case {"spec": {"task": {"vocabulary_size": int(size)}}}:
            return {"tokens": size, "targets": size}
    return {}


def _of_type(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else None
