"""Whole searches of the micro space by name. A variant is `dataclasses.replace(quick_micro(), num_epochs=2)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from datasets.augmentation import Augmentation
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.arch.tasks import stem_stride
from searcher.controller.policy import PolicyConfig
from searcher.controller.reinforce import ReinforceConfig
from searcher.presets.datasets import IMAGES
from searcher.training.derive import DeriveConfig
from searcher.training.image_learner import ImageTraining
from searcher.training.optim import SgdConfig
from searcher.training.search_config import SearchConfig

REFERENCE_LOGITS = PolicyConfig(
    hidden_size=64,
    tanh_constant=1.10,
    operation_tanh_divisor=2.5,
    operation_bias={
        "sep_conv_3x3": 0.25,
        "sep_conv_5x5": 0.25,
        "avg_pool_3x3": -0.25,
        "max_pool_3x3": -0.25,
        "identity": -0.25,
    },
)
"""The authors' micro controller: so narrow a range of logits, and a bias to convolutions, that it cannot settle on
pooling alone."""


def quick_micro(*, image_size: int = 28) -> SearchConfig:
    """Minutes on two CPU cores with the embedded Fashion-MNIST; finds a network of about 0.2 M parameters."""
    return SearchConfig(
        space="micro",
        preset="quick",
        dataset=IMAGES["quick"],
        seed=0,
        num_epochs=6,
        min_steps=600,
        batch_size=64,
        search_space=MicroSpace(num_nodes=5),
        network=MicroSize(cells=5, channels=16, stem_stride=stem_stride(image_size, largest_map=16)),
        final_network=MicroSize(cells=5, channels=16, stem_stride=stem_stride(image_size, largest_map=16)),
        sgd=SgdConfig(learning_rate=0.1, final_learning_rate=0.002, warmup_epochs=0.5),
        training=ImageTraining(augmentation=Augmentation(crop_padding=1, flip=True)),
        policy=REFERENCE_LOGITS,
        reinforce=ReinforceConfig(learning_rate=1e-2),
        policy_start_epoch=3,
        policy_steps=10,
        policy_samples=10,
        control_samples=4,
        reward_batch_size=125,
        derivation=DeriveConfig(num_samples=40, num_batches=2, num_finalists=5),
    )


def standard_micro(*, image_size: int = 32) -> SearchConfig:
    """In between: an hour or two on a GPU, a night on a few CPU cores; our controller at the reference's sizes."""
    return SearchConfig(
        space="micro",
        preset="standard",
        dataset=IMAGES["standard"],
        seed=0,
        num_epochs=50,
        min_steps=5_000,
        batch_size=128,
        search_space=MicroSpace(num_nodes=5),
        network=MicroSize(cells=8, channels=16, stem_stride=stem_stride(image_size, largest_map=32)),
        final_network=MicroSize(cells=11, channels=32, stem_stride=stem_stride(image_size, largest_map=32)),
        sgd=SgdConfig(learning_rate=0.1, final_learning_rate=0.001, warmup_epochs=1),
        training=ImageTraining(augmentation=Augmentation(crop_padding=4, flip=True)),
        policy=REFERENCE_LOGITS,
        reinforce=ReinforceConfig(learning_rate=3.5e-3),
        policy_start_epoch=5,
        policy_steps=30,
        policy_samples=10,
        control_samples=5,
        reward_batch_size=250,
        derivation=DeriveConfig(),
    )


def paper_micro(*, image_size: int = 32) -> SearchConfig:
    """The paper's text on CIFAR-10: 310 epochs, 2000 policy steps each, one architecture a step.

    Source: Pham et al. 2018, sections 2 and 3.2 and appendix B.
    """
    return SearchConfig(
        space="micro",
        preset="paper",
        dataset=IMAGES["paper"],
        seed=0,
        num_epochs=310,
        batch_size=128,
        search_space=MicroSpace(num_nodes=5),
        network=MicroSize(cells=8, channels=20, stem_stride=stem_stride(image_size, largest_map=32)),
        final_network=MicroSize(cells=17, channels=36, stem_stride=stem_stride(image_size, largest_map=32)),
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
        ),
        policy_steps=2000,
        policy_samples=1,
        control_samples=0,
        reward_batch_size=128,
        derivation=DeriveConfig(),
    )


def reference_micro(*, image_size: int = 32) -> SearchConfig:
    """The authors' published script for CIFAR-10: 150 epochs, 30 policy steps of 10 architectures, biased operations.

    Source: the authors' code, `cifar10_micro_search.sh` and `micro_controller.py`.
    """
    return SearchConfig(
        space="micro",
        preset="reference",
        dataset=IMAGES["reference"],
        seed=0,
        num_epochs=150,
        batch_size=160,
        search_space=MicroSpace(num_nodes=5),
        network=MicroSize(cells=8, channels=20, stem_stride=stem_stride(image_size, largest_map=32)),
        final_network=MicroSize(cells=17, channels=36, stem_stride=stem_stride(image_size, largest_map=32)),
        sgd=SgdConfig(
            learning_rate=0.05,
            final_learning_rate=0.0005,
            restart_epochs=10,
            restart_factor=2,
            weight_decay=2e-4,
            decay_norms=True,
            update_unused=True,
        ),
        training=ImageTraining(
            augmentation=Augmentation(crop_padding=4, flip=True), dropout_prob=0.1, auxiliary_weight=0.4
        ),
        policy=replace(REFERENCE_LOGITS, operation_logit_start={"sep_conv_3x3": 10.0, "sep_conv_5x5": 10.0}),
        reinforce=ReinforceConfig(
            learning_rate=3.5e-3,
            adam_betas=(0.0, 0.999),
            adam_eps=1e-3,
            baseline="moving_average",
            entropy_weight=1e-4,
            entropy_in="reward",
        ),
        policy_steps=30,
        policy_samples=10,
        control_samples=0,
        reward_batch_size=160,
        derivation=DeriveConfig(),
    )


LATENCY = None

PRESETS: dict[str, Callable[..., SearchConfig]] = {
    "quick": quick_micro,
    "standard": standard_micro,
    "paper": paper_micro,
    "reference": reference_micro,
}
