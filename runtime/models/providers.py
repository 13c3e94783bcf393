"""Opens an onnxruntime session on a provider, and reports where it actually runs.

onnxruntime lists CUDA as available wherever its CUDA build is installed. If CUDA does not work, a session that requests
it logs two lines and runs on the CPU. So the list is not trusted here: what counts is the session's own report after
its creation, for each provider and each node.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtime.models.ort import onnxruntime
from runtime.models.ort_errors import reason_of

Provider = Literal["auto", "cpu", "cuda"]
ConvSearch = Literal["exhaustive", "heuristic", "default"]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_NAMES = {_CPU: "CPU", _CUDA: "CUDA"}
# A CUDA session that runs one of these elsewhere has in effect fallen back. onnxruntime leaves a few shape computations
# on the CPU on purpose.
_HEAVY_OPERATIONS = frozenset(
    {"Conv", "FusedConv", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MaxPool", "AveragePool"}
)
NO_DRIVER = "no NVIDIA driver"
_DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
"""Platform -> the library that NVIDIA's driver installs."""
_SILENT = 4
_WARNINGS = 2


class ProviderError(ValueError):
    """The requested provider is unavailable."""


@dataclass(frozen=True)
class Tuning:
    """Session options other than the number of threads."""

    spinning: bool = True
    """Whether idle intra-op threads spin for a while before they sleep: lower latency, more CPU time."""
    conv_search: ConvSearch = "exhaustive"
    """How cuDNN chooses the algorithm of a convolution; exhaustive costs about a second for every new shape."""
    cuda_graph: bool = False
    """Record the kernels of a call once and launch them together; needs fixed addresses."""


DEFAULT_TUNING = Tuning()


@dataclass(frozen=True)
class Session:
    """An onnxruntime session and where it actually runs."""

    ort: Any
    providers: tuple[str, ...]
    """As the session reports them after its creation."""
    nodes: Mapping[str, int]
    """Provider -> number of nodes assigned to it; empty if this version of onnxruntime does not report it."""
    remark: str | None
    """Why `auto` did not choose CUDA; None if it did, if a provider was requested, or if there is no GPU."""
    load_ms: float

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if _CUDA in self.providers else "cpu"

    def describe(self) -> str:
        """A readable text: `CPU`, or `CUDA (97 nodes, 2 on CPU)`."""
        if self.device == "cpu" or not self.nodes:
            return self.device.upper()
        elsewhere = [f", {count} on {_NAMES.get(name, name)}" for name, count in self.nodes.items() if name != _CUDA]
        return f"CUDA ({self.nodes.get(_CUDA, 0)} nodes{''.join(elsewhere)})"


def open_session(
    model: bytes | Path, *, provider: Provider, threads: int | None, tuning: Tuning = DEFAULT_TUNING
) -> Session:
    """A session on `provider`; `auto` chooses CUDA if it works.

    Args: model: a file's bytes, or its path. threads: intra-op threads; None leaves the number to onnxruntime.
    Raises: ProviderError: CUDA or a CUDA graph was requested but is unavailable. onnxruntime's own errors: the model
        cannot be loaded.
    """
    obstacles: Sequence[str] = ()
    if provider != "cpu":
        obstacles = cuda_obstacles()
        if not obstacles:
            try:
                session = _create(model, [(_CUDA, _cuda_options(tuning)), _CPU], threads=threads, tuning=tuning)
                obstacles = fallbacks(session)
                if not obstacles:
                    return session
            except Exception as error:
                obstacles = (reason_of(error),)
    # Missing CUDA is raised only after the session on the CPU: if the file is broken, that error is more useful.
    remark = f"CUDA cannot be used: {'; '.join(obstacles)}" if obstacles else None
    # Without a GPU, running on the CPU is expected and needs no remark.
    told = None if obstacles == (NO_DRIVER,) else remark
    session = _create(model, [_CPU], threads=threads, tuning=tuning, remark=told)
    if provider == "cuda":
        raise ProviderError(f"{remark}; the libraries come with: pip install 'enas-toolchain[runtime-cuda]'")
    if tuning.cuda_graph:
        raise ProviderError(
            f"a CUDA graph takes CUDA, but the session runs on the CPU{f' ({remark})' if remark else ''}"
        )
    return session


def cuda_obstacles() -> tuple[str, ...]:
    """Reasons why onnxruntime cannot use CUDA, checked without creating a session; empty if none is found.

    A missing driver is the only reason returned: without it, fixing the others would not help.
    """
    driver = _DRIVERS.get(sys.platform)
    if driver is None or _load_failure(driver):
        return (NO_DRIVER,)
    if _CUDA not in onnxruntime.get_available_providers():
        return ("this onnxruntime is built without it, onnxruntime-gpu has it",)
    if sys.platform != "linux":
        return ()
    if hasattr(onnxruntime, "preload_dlls"):  # onnxruntime 1.21
        # It loads the libraries of the nvidia-* packages, and prints messages about missing ones.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            onnxruntime.preload_dlls()
    library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    reasons = [
        _load_failure(str(library)) if library.exists() else None,
        # Loaded only by the first convolution: without it a session is created and then fails.
        _load_failure("libcudnn.so.9"),
    ]
    return tuple(reason for reason in reasons if reason)


def fallbacks(session: Session) -> tuple[str, ...]:
    """Reasons why a session that requested CUDA does not run there; empty if it does."""
    if session.device != "cuda":
        return (f"the session came up on {', '.join(session.providers)}",)
    subgraphs = session.ort.get_provider_graph_assignment_info() if session.nodes else ()
    strays = Counter(
        node.op_type
        for subgraph in subgraphs
        if subgraph.ep_name != _CUDA
        for node in subgraph.get_nodes()
        if node.op_type in _HEAVY_OPERATIONS
    )
    return tuple(f"{count} {operation} nodes run elsewhere" for operation, count in strays.items())


def _load_failure(library: str) -> str | None:
    """The loader's error, such as `libcublasLt.so.13 is missing`; None if the library loads."""
    try:
        ctypes.CDLL(library)
    except OSError as error:
        name, separator, _ = str(error).partition(": cannot open shared object file")
        return f"{name} is missing" if separator else str(error)
    return None


def _cuda_options(tuning: Tuning) -> dict[str, str]:
    return {
        "cudnn_conv_algo_search": tuning.conv_search.upper(),
        "enable_cuda_graph": str(int(tuning.cuda_graph)),
    }


def _create(
    model: bytes | Path,
    providers: Sequence[str | tuple[str, dict[str, str]]],
    *,
    threads: int | None,
    tuning: Tuning,
    remark: str | None = None,
) -> Session:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(tuning.spinning)))
    if threads is not None:
        options.intra_op_num_threads = threads
    start = time.perf_counter()
    with _silence():
        ort = onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model, options, providers=list(providers)
        )
    load_ms = (time.perf_counter() - start) * 1e3
    nodes: Counter[str] = Counter()
    if hasattr(ort, "get_provider_graph_assignment_info"):
        for subgraph in ort.get_provider_graph_assignment_info():
            nodes[subgraph.ep_name] += len(subgraph.get_nodes())
    return Session(ort, tuple(ort.get_providers()), nodes, remark, load_ms)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silences onnxruntime's log: it repeats raised errors, or facts that we report more clearly."""
    onnxruntime.set_default_logger_severity(_SILENT)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
