"""Complete search configs of the macro space. A variant is `dataclasses.replace(quick_macro(), num_epochs=2)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.stems import stem_stride
from searcher.controller.policy import PolicyConfig
from searcher.controller.reinforce import ReinforceConfig
from searcher.presets import images
from searcher.presets.datasets import IMAGES
from searcher.presets.published import PAPER_AUGMENTATION, PAPER_REINFORCE, script_reinforce, script_sgd
from searcher.training.derive import DeriveConfig
from searcher.training.image_learner import ImageTraining
from searcher.training.search_config import SearchConfig


def quick_macro(*, image_size: int = 28) -> SearchConfig:
    """See `images.quick`; finds a network of about 0.3 M parameters."""
    stride = stem_stride(image_size, largest_map=16)
    return images.quick(
        space="macro",
        search_space=MacroSpace(num_layers=12),
        network=MacroSize(channels=32, stem_stride=stride, skip_merge="sum"),
        final_network=MacroSize(channels=16, stem_stride=stride, double_channels=True),
        policy=PolicyConfig(hidden_size=64, tanh_constant=1.5),
        reinforce=ReinforceConfig(learning_rate=1e-2, skip_weight=0.8),
    )


def standard_macro(*, image_size: int = 32) -> SearchConfig:
    """See `images.standard`."""
    stride = stem_stride(image_size, largest_map=32)
    return images.standard(
        space="macro",
        search_space=MacroSpace(num_layers=12),
        network=MacroSize(channels=32, stem_stride=stride, skip_merge="sum"),
        final_network=MacroSize(channels=48, stem_stride=stride, double_channels=True),
        policy=PolicyConfig(hidden_size=64, tanh_constant=1.5),
        reinforce=ReinforceConfig(learning_rate=3.5e-3, skip_weight=0.8),
    )


def paper_macro(*, image_size: int = 32) -> SearchConfig:
    """See `images.paper`; skips are concatenated. The text leaves widths open; these are from the authors' scripts."""
    stride = stem_stride(image_size, largest_map=32)
    return images.paper(
        space="macro",
        search_space=MacroSpace(num_layers=12),
        network=MacroSize(channels=36, stem_stride=stride),
        final_network=MacroSize(channels=96, stem_stride=stride, double_channels=True),
        reinforce=replace(PAPER_REINFORCE, skip_weight=0.8),
    )


def reference_macro(*, image_size: int = 32) -> SearchConfig:
    """The authors' published script for CIFAR-10: 310 epochs, 50 policy steps of 20 architectures, skips added up.

    Source: the authors' code, `cifar10_macro_search.sh` and `general_controller.py`.
    """
    stride = stem_stride(image_size, largest_map=32)
    return SearchConfig(
        space="macro",
        preset="reference",
        dataset=IMAGES["reference"],
        seed=0,
        num_epochs=310,
        batch_size=128,
        search_space=MacroSpace(num_layers=12, stem_anchor=False),
        network=MacroSize(channels=36, stem_stride=stride, skip_merge="sum"),
        final_network=MacroSize(channels=96, stem_stride=stride, double_channels=True),
        sgd=script_sgd(final_learning_rate=0.0005, weight_decay=5e-4),
        training=ImageTraining(augmentation=PAPER_AUGMENTATION, dropout_prob=0.1),
        policy=PolicyConfig(hidden_size=64, tanh_constant=1.5),
        reinforce=script_reinforce(learning_rate=1e-3, skip_weight=0.8),
        policy_steps=50,
        policy_samples=20,
        control_samples=0,
        reward_batch_size=128,
        derivation=DeriveConfig(),
    )


LATENCY = None

PRESETS: dict[str, Callable[..., SearchConfig]] = {
    "quick": quick_macro,
    "standard": standard_macro,
    "paper": paper_macro,
    "reference": reference_macro,
}
