"""What `make bench-gpu` measures: steps of search, scoring and retraining, each with levers that may be left out."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from searcher.arch.spaces.recurrent import RecurrentSize, RecurrentSpace
from searcher.arch.spec import Spec
from searcher.arch.tasks import ImageClassification, LanguageModelling
from searcher.nn.build import build_network, build_supernet
from searcher.nn.graphs import GraphedNetwork, Graphs, graph_operations, recordable
from searcher.nn.tapes import CudaTapes, EagerTape
from searcher.presets.catalog import search_preset
from searcher.running.device import Precision, computing
from searcher.training.image_learner import ImageTraining, classification_loss, correct_answers
from searcher.training.learner import StepLoss
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.weights_trainer import WeightsTrainer
from tests.benchmarks.gpu_measuring import Call, Effort


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
    sgd: SgdConfig = SgdConfig(learning_rate=0.05)  # noqa: RUF009
    """Of the shared weights."""


@dataclass(frozen=True)
class Text:
    """The recurrent space at the size of a preset."""

    hidden_size: int = 1000
    num_nodes: int = 12
    batch_size: int = 64
    window: int = 35
    vocabulary_size: int = 10_000


def reference(space_name: Literal["micro", "macro"]) -> Images:
    """The space at the size, and with the optimiser, of its preset `reference`."""
    config = search_preset(space_name, "reference", image_size=32)
    assert isinstance(config.training, ImageTraining)
    return Images(
        space_name,
        config.search_space,
        config.network,
        config.final_network,
        config.batch_size,
        config.reward_batch_size,
        training=config.training,
        sgd=config.sgd,
    )


SIZES: tuple[Images | Text, ...] = (reference("micro"), reference("macro"), Text())


def works_of_images(
    size: Images, device: torch.device, effort: Effort
) -> Iterator[tuple[str, Callable[[Levers], Call]]]:
    shape, name = size.input_shape, f"{size.space_name}, {size.input_shape[0]}×{size.input_shape[1]}"
    options: dict[str, Any] = {
        "auxiliary": size.training.auxiliary_weight > 0,
        "dropout_prob": size.training.dropout_prob,
    }

    def architectures() -> Iterator[Any]:
        rng = random.Random(0)
        return itertools.cycle([size.space.random(rng) for _ in range(effort.num_architectures)])

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

        return training_step(network, loss, device, size.sgd)

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

        return training_step(network, loss, device)

    yield f"{name}: step of shared weights, batch {size.batch_size}, {size.supernet.channels} channels", step
    yield f"{name}: an architecture scored, batch {size.reward_batch_size}", scoring
    yield f"{name}: step of retraining, batch {size.batch_size}, {size.final.channels} channels", retraining


def works_of_text(size: Text, device: torch.device, _: Effort) -> Iterator[tuple[str, Callable[[Levers], Call]]]:
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

        return training_step(network, loss, device)

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


class OneBatch:
    """As much of a learner as training needs: the same batch for ever, whose loss is a function's."""

    steps_per_epoch = 2**31

    def __init__(self, loss: Callable[[], Tensor]) -> None:
        self._loss = loss

    def batches(self, *, epoch: int, start_step: int) -> Iterator[None]:
        return itertools.repeat(None)

    def loss(self, network: object, batch: None, *, progress: float) -> StepLoss:
        loss = self._loss()
        return StepLoss(loss, torch.zeros_like(loss), 1)


def training_step(
    network: nn.Module,
    loss: Callable[[], Tensor],
    device: torch.device,
    sgd: SgdConfig = SgdConfig(learning_rate=0.05),  # noqa: B008
) -> Call:
    """A step as search and retraining take it."""
    learner: Any = OneBatch(loss)
    trainer = WeightsTrainer(network, learner, sgd=sgd, num_epochs=1, seed=0, device=device)
    steps = trainer.epoch(lambda _: network, epoch=0, start_step=0)
    return lambda: next(steps)


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
