"""Random networks of every image space, with norms that have seen data, as ONNX files without torch's exporter."""

from __future__ import annotations

import random

import numpy as np
import onnx
import torch

from exporter.conversion.convert import DeployedNetwork, check, describe
from exporter.conversion.trace import record
from exporter.conversion.transforms.align import align
from exporter.conversion.transforms.passes import transform
from runtime.models.tolerance import Tolerance
from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.arch.spaces.stages import StagesSize
from searcher.arch.spec import Spec
from searcher.nn.build import build_network
from tests.searcher.conftest import STAGES_SPACE, make_spec

SPACES = ("micro", "macro", "stages")


def random_spec(space: str, seed: int, *, input_shape: tuple[int, int, int], channels: int = 4) -> Spec:
    generator = random.Random(seed)
    if space == "micro":
        return make_spec(MicroSpace(3).random(generator), MicroSize(3, channels), input_shape=input_shape)
    if space == "macro":
        size = MacroSize(channels, skip_merge=generator.choice(["sum", "concat", "residual"]))
        return make_spec(MacroSpace(6).random(generator), size, input_shape=input_shape)
    return make_spec(STAGES_SPACE.random(generator), StagesSize(), input_shape=input_shape)


def deployed(spec: Spec, *, seed: int = 0) -> DeployedNetwork:
    """The network of a spec, its norms' statistics and weights unlike those they begin with."""
    torch.manual_seed(seed)
    bound = build_network(spec, seed=seed)
    height, width, channels = spec.task.input_shape  # type: ignore[union-attr]
    with torch.no_grad():
        bound(torch.randn(8, channels, height, width))
        for module in bound.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return DeployedNetwork(bound, mean=[0.4] * channels, std=[0.3] * channels).eval()


def as_recorded(network: DeployedNetwork, input_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """The network as ONNX before any pass."""
    return record(network, input_shape=input_shape)


def images(input_shape: tuple[int, int, int], *, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *input_shape), dtype=np.uint8)


def exported(
    space: str, seed: int, *, input_shape: tuple[int, int, int], resize: str = "squash", block: int | None = None
) -> bytes:
    """A random network's file as `enas export` writes it, with channels filled up to multiples of `block`."""
    spec = random_spec(space, seed, input_shape=input_shape)
    network = deployed(spec)
    model = transform(as_recorded(network, input_shape))
    if block is not None:
        model = align(model, block)
    pictures = images(input_shape)
    with torch.no_grad():
        logits = network(torch.from_numpy(pictures))[0].numpy()
    accuracy = {"split": "test", "value": 0.5, "count": 3}
    describe(
        model,
        spec,
        golden_images=pictures,
        golden_logits=logits,
        tolerance=Tolerance(),
        accuracy=accuracy,
        drawing="<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><circle r='4'/></svg>",
        origin={"weights": "random"},
        resize=resize,
        block=block,
    )
    return check(model)
