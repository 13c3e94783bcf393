"""Which tests run: those that need minutes or a GPU are reported as skipped unless they are asked for.

And what no test hands on to the next.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest

# A busy machine takes its time; pytest-timeout is what ends a test that hangs.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")

# The tests' networks are so small that a second thread only waits, and a hundred times as long once anything else runs.
# Before torch is imported, for it reads this once; what tests start inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests that take minutes")
    parser.addoption("--run-gpu", action="store_true", help="run the tests that need a CUDA device")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker in ("slow", "gpu"):
        if not config.getoption(f"--run-{marker}"):
            skip = pytest.mark.skip(reason=f"{marker}: run with make test-{marker}")
            for item in items:
                if marker in item.keywords:
                    item.add_marker(skip)


def pytest_configure() -> None:
    """What is imported stays, and is much: a quarter of the time of importing it goes into looking for garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What is imported by now stays: benchmarks and servers collect garbage, which would go through all of it."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _whole_float32_on_a_gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """In tests marked gpu float32 keeps all of its bits, and cuDNN takes the same algorithm every time.

    With TF32, which keeps 10 bits of the mantissa, gradients of equal networks are percents apart.
    """
    if request.node.get_closest_marker("gpu") is None:
        yield
        return
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic
    cudnn.allow_tf32 = matmul.allow_tf32 = cudnn.benchmark = False
    cudnn.deterministic = True
    yield
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


@pytest.fixture(autouse=True)
def _signals_and_denormals() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests were started with it ignored; denormal numbers stay numbers.

    Training in the tests' own process switches the latter off, and other tests do not expect that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
