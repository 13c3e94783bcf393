"""Complete search configs of the stages space. A variant is `dataclasses.replace(quick_stages(), num_epochs=2)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from datasets.augmentation import Augmentation
from searcher.arch.spaces.stages import StagesSize, StagesSpace
from searcher.arch.stems import stem_stride
from searcher.controller.policy import PolicyConfig
from searcher.controller.reinforce import ReinforceConfig
from searcher.presets import images
from searcher.presets.datasets import IMAGES
from searcher.training.derive import DeriveConfig
from searcher.training.image_learner import ImageTraining
from searcher.training.search_config import SearchConfig

LATENCY = "0.9x resnet-20"
"""The default latency target: slightly less than the latency of a hand-designed network, ResNet-20."""


def small_space(image_size: int) -> StagesSpace:
    """Networks of 0.1 to 1 ms an image on one core, in whole blocks of 16 channels."""
    return StagesSpace(
        stem_channels=(16, 32),
        stem_strides=_stem_strides(image_size),
        stage_channels=((16, 32), (32, 64), (64, 96, 128)),
        max_layers=(2, 3, 3),
    )


def large_space(image_size: int) -> StagesSpace:
    """Wider and deeper networks; contains ResNet-20 and the MobileNetV2 for small images (`enas spec list`)."""
    return StagesSpace(
        stem_channels=(16, 24, 32, 48),
        stem_strides=_stem_strides(image_size),
        stage_channels=((16, 24, 32, 48), (32, 48, 64, 96), (64, 96, 128, 192)),
        max_layers=(3, 4, 4),
    )


def quick_stages(*, image_size: int = 28) -> SearchConfig:
    """See `images.quick`; policy training starts early, because the policy has a latency target to reach."""
    config = images.quick(
        space="stages",
        search_space=small_space(image_size),
        network=StagesSize(),
        final_network=StagesSize(),
        policy=PolicyConfig(hidden_size=64, tanh_constant=1.5),
        reinforce=ReinforceConfig(learning_rate=1e-2, ramp_epochs=2),
    )
    return replace(config, num_epochs=4, min_steps=500, policy_start_epoch=1)


def standard_stages(*, image_size: int = 32) -> SearchConfig:
    """See `images.standard`; policy training starts after a quarter of the epochs."""
    config = images.standard(
        space="stages",
        search_space=large_space(image_size),
        network=StagesSize(),
        final_network=StagesSize(),
        policy=PolicyConfig(hidden_size=64, tanh_constant=1.5),
        reinforce=ReinforceConfig(learning_rate=3.5e-3),
    )
    return replace(config, policy_start_epoch=12)


def deploy_stages(*, image_size: int = 28) -> SearchConfig:
    """Hours on two CPU cores with a full data set of 60,000 small images: the space of `quick`, trained for longer."""
    config = quick_stages(image_size=image_size)
    return replace(
        config,
        preset="deploy",
        dataset=IMAGES["deploy"],
        num_epochs=8,
        min_steps=2_000,
        batch_size=128,
        training=ImageTraining(augmentation=Augmentation(crop_padding=2, flip=True)),
        reinforce=ReinforceConfig(learning_rate=5e-3),
        policy_start_epoch=2,
        policy_steps=30,
        reward_batch_size=250,
        derivation=DeriveConfig(num_samples=100, num_batches=4, num_finalists=10),
    )


def _stem_strides(image_size: int) -> tuple[int, ...]:
    """Returns stem strides after which the map has at most 32 pixels a side, or half of that."""
    stride = stem_stride(image_size, largest_map=32)
    return (stride, 2 * stride) if stride < 16 else (stride,)


PRESETS: dict[str, Callable[..., SearchConfig]] = {
    "quick": quick_stages,
    "standard": standard_stages,
    "deploy": deploy_stages,
}
