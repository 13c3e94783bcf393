"""Whole searches of the macro space by name. A variant is `dataclasses.replace(quick_macro(), num_epochs=2)`."""

from __future__ import annotations

from collections.abc import Callable

from datasets.augmentation import Augmentation
from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.tasks import stem_stride
from searcher.controller.policy import PolicyConfig
from searcher.controller.reinforce import ReinforceConfig
from searcher.presets.datasets import IMAGES
from searcher.training.derive import DeriveConfig
from searcher.training.image_learner import ImageTraining
from searcher.training.optim import SgdConfig
from searcher.training.search_config import SearchConfig


def quick_macro(*, image_size: int = 28) -> SearchConfig:
    """Minutes on two CPU cores with the embedded Fashion-MNIST; finds a network of about 0.3 M parameters."""
    stride = stem_stride(image_size, largest_map=16)
    return SearchConfig(
        space="macro",
        preset="quick",
        dataset=IMAGES["quick"],
        seed=0,
        num_epochs=6,
        min_steps=600,
        batch_size=64,
        search_space=MacroSpace(num_layers=12),
        network=MacroSize(channels=32, stem_stride=stride, skip_merge="sum"),
        final_network=MacroSize(channels=16, stem_stride=stride, double_channels=True),
        sgd=SgdConfig(learning_rate=0.1, final_learning_rate=0.002, warmup_epochs=0.5),
        training=ImageTraining(augmentation=Augmentation(crop_padding=1, flip=True)),
        policy=PolicyConfig(hidden_size=64, tanh_constant=1.5),
        reinforce=ReinforceConfig(learning_rate=1e-2, skip_weight=0.8),
        policy_start_epoch=3,
        policy_steps=10,
        policy_samples=10,
        control_samples=4,
        reward_batch_size=125,
        derivation=DeriveConfig(num_samples=40, num_batches=2, num_finalists=5),
    )


def standard_macro(*, image_size: int = 32) -> SearchConfig:
    """In between: an hour or two on a GPU, a night on a few CPU cores; our controller at the reference's sizes."""
    stride = stem_stride(image_size, largest_map=32)
    return SearchConfig(
        space="macro",
        preset="standard",
        dataset=IMAGES["standard"],
        seed=0,
        num_epochs=50,
        min_steps=5_000,
        batch_size=128,
        search_space=MacroSpace(num_layers=12),
        network=MacroSize(channels=32, stem_stride=stride, skip_merge="sum"),
        final_network=MacroSize(channels=48, stem_stride=stride, double_channels=True),
        sgd=SgdConfig(learning_rate=0.1, final_learning_rate=0.001, warmup_epochs=1),
        training=ImageTraining(augmentation=Augmentation(crop_padding=4, flip=True)),
        policy=PolicyConfig(hidden_size=64, tanh_constant=1.5),
        reinforce=ReinforceConfig(learning_rate=3.5e-3, skip_weight=0.8),
        policy_start_epoch=5,
        policy_steps=30,
        policy_samples=10,
        control_samples=5,
        reward_batch_size=250,
        derivation=DeriveConfig(),
    )


def paper_macro(*, image_size: int = 32) -> SearchConfig:
    """The paper's text on CIFAR-10: 310 epochs, 2000 policy steps each, one architecture a step; skips concatenated.

    Widths are the authors' scripts', since the text leaves them open.
    Source: Pham et al. 2018, sections 2 and 3.2 and appendix B.
    """
    stride = stem_stride(image_size, largest_map=32)
    return SearchConfig(
        space="macro",
        preset="paper",
        dataset=IMAGES["paper"],
        seed=0,
        num_epochs=310,
        batch_size=128,
        search_space=MacroSpace(num_layers=12),
        network=MacroSize(channels=36, stem_stride=stride),
        final_network=MacroSize(channels=96, stem_stride=stride, double_channels=True),
        sgd=SgdConfig(
            learning_rate=0.05, final_learning_rate=0.001, restart_epochs=10, restart_factor=2, weight_decay=1e-4
        ),
        training=ImageTraining(augmentation=Augmentation(crop_padding=4, flip=True)),
        policy=PolicyConfig(hidden_size=100, temperature=5.0, tanh_constant=2.5),
        reinforce=ReinforceConfig(
            learning_rate=3.5e-4,
            baseline="moving_average",
            entropy_weight=0.1,
            entropy_in="reward",
            entropy_reduction="mean",
            skip_weight=0.8,
        ),
        policy_steps=2000,
        policy_samples=1,
        control_samples=0,
        reward_batch_size=128,
        derivation=DeriveConfig(),
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
        sgd=SgdConfig(
            learning_rate=0.05,
            final_learning_rate=0.0005,
            restart_epochs=10,
            restart_factor=2,
            weight_decay=5e-4,
            decay_norms=True,
            update_unused=True,
        ),
        training=ImageTraining(augmentation=Augmentation(crop_padding=4, flip=True), dropout_prob=0.1),
        policy=PolicyConfig(hidden_size=64, tanh_constant=1.5),
        reinforce=ReinforceConfig(
            learning_rate=1e-3,
            adam_betas=(0.0, 0.999),
            adam_eps=1e-3,
            baseline="moving_average",
            entropy_weight=1e-4,
            entropy_in="reward",
            skip_weight=0.8,
        ),
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
