"""`make bench-gpu`: what each lever of the CUDA path is worth, one left out at a time, as a table for the README.

Steps of shared weights and the scoring of architectures over random architectures, and steps of retraining.
"""

from __future__ import annotations

import gc
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from runtime.machine import Machine
from searcher.arch.macro import MacroSize, MacroSpace
from searcher.arch.micro import MicroSize, MicroSpace
from searcher.arch.recurrent import RecurrentSize, RecurrentSpace
from searcher.arch.spec import Spec
from searcher.arch.tasks import ImageClassification, LanguageModelling
from searcher.nn.build import build_network, build_supernet
from searcher.nn.graphs import CudaTapes, EagerTape, GraphedNetwork, Graphs, graph_operations, recordable
from searcher.training.device import Precision, computing, describe, prepare, resolve_device
from searcher.training.image_learner import ImageTraining, classification_loss, correct_answers
from searcher.training.optim import SgdConfig, clip_gradients, make_sgd

NUM_ARCHITECTURES = 20
NUM_ROUNDS = 5
Call = Callable[[], object]
_OF_IMAGES = ("channels_last left out", "cuDNN's choice left out")


@dataclass(frozen=True)
class Levers:
    """What is done to be fast."""

    parts: Literal["replayed", "compiled", "eager"] = "replayed"
    """How operations, and fixed networks, are run: from CUDA graphs, through torch.compile, or as they are."""
    precision: Precision = "auto"
    channels_last: bool = True
    chooses_kernels: bool = True
    """cuDNN tries its algorithms for every shape."""


ALL = Levers()
ABLATION: dict[str, Levers] = {
    "all": ALL,
    "graphs left out": replace(ALL, parts="eager"),
    "torch.compile in their place": replace(ALL, parts="compiled"),
    "bfloat16 and TF32 left out": replace(ALL, precision="float32"),
    "channels_last left out": replace(ALL, channels_last=False),
    "cuDNN's choice left out": replace(ALL, chooses_kernels=False),
    "all left out": Levers("eager", "float32", channels_last=False, chooses_kernels=False),
}


@dataclass(frozen=True)
class Images:
    """A convolutional space at the size of a preset, and what is shown to it."""

    space_name: Literal["micro", "macro"]
    space: Any
    supernet: Any
    final: Any
    batch_size: int
    reward_batch_size: int
    input_shape: tuple[int, int, int] = (32, 32, 3)
    training: ImageTraining = ImageTraining()  # noqa: RUF009 - frozen, so one serves all


@dataclass(frozen=True)
class Text:
    """The recurrent space at the size of a preset."""

    hidden_size: int = 1000
    num_nodes: int = 12
    batch_size: int = 64
    window: int = 35
    vocabulary_size: int = 10_000


SIZES: tuple[Images | Text, ...] = (
    Images(
        "micro",
        MicroSpace(),
        MicroSize(8, 20),
        MicroSize(17, 36),
        160,
        160,
        training=ImageTraining(auxiliary_weight=0.4, dropout_prob=0.1),
    ),
    Images("macro", MacroSpace(), MacroSize(36, skip_merge="sum"), MacroSize(96, skip_merge="concat"), 128, 128),
    Text(),
)


def main(device: torch.device, *, sizes: tuple[Images | Text, ...] = SIZES) -> None:
    """Print a table of every work at the sizes given."""
    prepare(device)
    print(Machine.inspect().describe())
    print(f"{describe(device)}, torch {torch.__version__}")
    for size in sizes:
        for title, make in (works_of_images if isinstance(size, Images) else works_of_text)(size, device):  # type: ignore[operator]
            print(f"\n{title}\n\n| | ms | of the first | MiB at most | GPU busy |\n| --- | ---: | ---: | ---: | ---: |")
            first = None
            for name, levers in ABLATION.items():
                if isinstance(size, Text) and name in _OF_IMAGES:
                    continue
                with set_up(levers):
                    row = measured(make(levers), device)
                first = first or row.ms
                busy = "" if row.busy is None else f"{row.busy:.0%}"
                print(f"| {name} | {row.ms:.2f} | {row.ms / first:.2f} | {row.mib:,.0f} | {busy} |", flush=True)


def works_of_images(size: Images, device: torch.device) -> Iterator[tuple[str, Callable[[Levers], Call]]]:
    shape, name = size.input_shape, f"{size.space_name}, {size.input_shape[0]}×{size.input_shape[1]}"
    options: dict[str, Any] = {
        "auxiliary": size.training.auxiliary_weight > 0,
        "dropout_prob": size.training.dropout_prob,
    }

    def architectures() -> Iterator[Any]:
        rng = random.Random(0)
        return itertools.cycle([size.space.random(rng) for _ in range(NUM_ARCHITECTURES)])

    def supernet(levers: Levers) -> nn.Module:
        made = build_supernet(size.space_name, size.space, size.supernet, input_shape=shape, num_classes=10, seed=0, **options)  # fmt: skip # noqa: E501
        made = laid_out(made, levers).to(device)
        if levers.parts == "replayed":
            graph_operations(made, graphs_on(device))
        elif levers.parts == "compiled":
            for part, _ in recordable(made):
                compiled(part, device)
        return made

    def step(levers: Levers) -> Call:
        network, order = supernet(levers), architectures()
        images, labels = pictures(size.batch_size, shape, levers, device)

        def loss() -> Tensor:
            with computing(device, levers.precision):
                answers = network(images, next(order))
            return classification_loss(*answers, labels, training=size.training)

        return training_step(network, loss)

    def scoring(levers: Levers) -> Call:
        network, order = supernet(levers).eval(), architectures()
        images, labels = pictures(size.reward_batch_size, shape, levers, device)

        def score() -> Tensor:
            architecture = next(order)
            return correct_answers(
                lambda x: network(x, architecture)[0], images, labels, precision=levers.precision
            ).sum()

        return score

    def retraining(levers: Levers) -> Call:
        task = ImageClassification(
            dataset="made-up", input_shape=shape, classes=tuple(f"class {number}" for number in range(10))
        )
        spec = Spec(size.space_name, next(architectures()), size.final, task)
        network = laid_out(build_network(spec, **options), levers).to(device)
        called = whole(network, levers, device)
        images, labels = pictures(size.batch_size, shape, levers, device)
        drops = {"drop_path_prob": 0.2} if size.space_name == "micro" else {}

        def loss() -> Tensor:
            with computing(device, levers.precision):
                answers = called(images, **drops)
            return classification_loss(*answers, labels, training=size.training)

        return training_step(network, loss)

    yield f"{name}: step of shared weights, batch {size.batch_size}, {size.supernet.channels} channels", step
    yield f"{name}: an architecture scored, batch {size.reward_batch_size}", scoring
    yield f"{name}: step of retraining, batch {size.batch_size}, {size.final.channels} channels", retraining


def works_of_text(size: Text, device: torch.device) -> Iterator[tuple[str, Callable[[Levers], Call]]]:
    space = RecurrentSpace(size.num_nodes)
    words = torch.randint(size.vocabulary_size, (size.window + 1, size.batch_size)).to(device)
    state = torch.zeros(size.batch_size, size.hidden_size, device=device)

    def retraining(levers: Levers) -> Call:
        task = LanguageModelling(dataset="made-up", tokens="word", vocabulary_size=size.vocabulary_size)
        spec = Spec("recurrent", space.random(random.Random(0)), RecurrentSize(size.hidden_size), task)
        network = build_network(spec).to(device)
        called = whole(network, levers, device)

        def loss() -> Tensor:
            with computing(device, levers.precision):
                return called(words[:-1], words[1:], state).nll.mean()

        return training_step(network, loss)

    sizes = f"batch {size.batch_size}, {size.window} time steps, {size.num_nodes} nodes, hidden {size.hidden_size}"
    yield f"recurrent: step of retraining, {sizes}", retraining


# --- one way of doing a work ------------------------------------------------------------------------------------------


def graphs_on(device: torch.device) -> Graphs:
    return Graphs(CudaTapes() if device.type == "cuda" else EagerTape)


def compiled(module: nn.Module, device: torch.device) -> None:
    module.compile(backend="inductor" if device.type == "cuda" else "eager", dynamic=False)


def whole(network: nn.Module, levers: Levers, device: torch.device) -> nn.Module:
    """A fixed network as its training calls it."""
    if levers.parts == "replayed":
        return GraphedNetwork(network, graphs_on(device))
    if levers.parts == "compiled":
        compiled(network, device)
    return network


def laid_out(network: nn.Module, levers: Levers) -> nn.Module:
    return network.to(memory_format=layout(levers))  # type: ignore[call-overload, no-any-return]


def layout(levers: Levers) -> torch.memory_format:
    return torch.channels_last if levers.channels_last else torch.contiguous_format


def pictures(
    batch_size: int, shape: tuple[int, int, int], levers: Levers, device: torch.device
) -> tuple[Tensor, Tensor]:
    height, width, channels = shape
    images = torch.randn(batch_size, channels, height, width).to(device)
    return images.contiguous(memory_format=layout(levers)), torch.arange(batch_size, device=device) % 10


def training_step(network: nn.Module, loss: Callable[[], Tensor]) -> Call:
    sgd = SgdConfig(learning_rate=0.05)
    optimizer, parameters = make_sgd(network, sgd), list(network.parameters())

    def step() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        clip_gradients(parameters, sgd.clip_norm)
        optimizer.step()

    return step


@contextmanager
def set_up(levers: Levers) -> Iterator[None]:
    """The settings of the whole process, and a clean start."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    cudnn.benchmark = levers.chooses_kernels
    cudnn.allow_tf32 = matmul.allow_tf32 = levers.precision != "float32"  # of backward passes, too
    torch.compiler.reset()
    # Every operation is the same code at several shapes; the default gives up after eight, and says nothing.
    limits = {"recompile_limit": 256, "accumulated_recompile_limit": 4096, "fail_on_recompile_limit_hit": True}
    try:
        with torch._dynamo.config.patch(**limits):
            yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    ms: float
    """Median over rounds of a call's mean, which includes whatever waits for the device."""
    mib: float
    """The most that the device's allocator held, 0 on a processor."""
    busy: float | None
    """Part of the time in which the device computes, None on a processor."""


def measured(call: Call, device: torch.device) -> Row:
    for _ in range(NUM_ARCHITECTURES):  # records, compiles, chooses kernels for each of them
        call()
    reset(device)
    rounds = [seconds_of(call, device) for _ in range(NUM_ROUNDS)]
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
    row = Row(1e3 * float(np.median(rounds)) / NUM_ARCHITECTURES, peak / 2**20, busy_share(call, device))
    del call
    reset(device)
    return row


def seconds_of(call: Call, device: torch.device) -> float:
    """Of a call for each architecture."""
    wait_for(device)
    started = time.perf_counter()
    for _ in range(NUM_ARCHITECTURES):
        call()
    wait_for(device)
    return time.perf_counter() - started


def busy_share(call: Call, device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    # The profiler's own work on the processor would count as idle time; the kernels' own times are right.
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds_of(call, device)
    events = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    kernels = sum(event.device_time_total for event in events if not event.is_user_annotation)
    return kernels / 1e6 / seconds_of(call, device)


def reset(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    try:
        main(resolve_device("cuda"))
    except ValueError as error:
        sys.exit(f"error: {error}")
