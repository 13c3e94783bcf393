"""Complete search configs of the micro space. A variant is `dataclasses.replace(quick_micro(), num_epochs=2)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.arch.stems import stem_stride
from searcher.controller.policy import PolicyConfig
from searcher.controller.reinforce import ReinforceConfig
from searcher.presets import images
from searcher.presets.datasets import IMAGES
from searcher.presets.published import PAPER_AUGMENTATION, PAPER_REINFORCE, script_reinforce, script_sgd
from searcher.training.derive import DeriveConfig
from searcher.training.image_learner import ImageTraining
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
"""The authors' micro controller: a narrow range of logits and a bias towards convolutions, which keep it from choosing
only pooling."""


def quick_micro(*, image_size: int = 28) -> SearchConfig:
    """See `images.quick`; finds a network of about 0.2 M parameters."""
    size = MicroSize(cells=5, channels=16, stem_stride=stem_stride(image_size, largest_map=16))
    return images.quick(
        space="micro",
        search_space=MicroSpace(num_nodes=5),
        network=size,
        final_network=size,
        policy=REFERENCE_LOGITS,
        reinforce=ReinforceConfig(learning_rate=1e-2),
    )


def standard_micro(*, image_size: int = 32) -> SearchConfig:
    """See `images.standard`."""
    stride = stem_stride(image_size, largest_map=32)
    return images.standard(
        space="micro",
        search_space=MicroSpace(num_nodes=5),
        network=MicroSize(cells=8, channels=16, stem_stride=stride),
        final_network=MicroSize(cells=11, channels=32, stem_stride=stride),
        policy=REFERENCE_LOGITS,
        reinforce=ReinforceConfig(learning_rate=3.5e-3),
    )


def paper_micro(*, image_size: int = 32) -> SearchConfig:
    """See `images.paper`."""
    stride = stem_stride(image_size, largest_map=32)
    return images.paper(
        space="micro",
        search_space=MicroSpace(num_nodes=5),
        network=MicroSize(cells=8, channels=20, stem_stride=stride),
        final_network=MicroSize(cells=17, channels=36, stem_stride=stride),
        reinforce=PAPER_REINFORCE,
    )


def reference_micro(*, image_size: int = 32) -> SearchConfig:
    """The authors' published script for CIFAR-10: 150 epochs, 30 policy steps of 10 architectures, biased operations.

    Source: the authors' code, `cifar10_micro_search.sh` and `micro_controller.py`.
    """
    stride = stem_stride(image_size, largest_map=32)
    return SearchConfig(
        space="micro",
        preset="reference",
        dataset=IMAGES["reference"],
        seed=0,
        num_epochs=150,
        batch_size=160,
        search_space=MicroSpace(num_nodes=5),
        network=MicroSize(cells=8, channels=20, stem_stride=stride),
        final_network=MicroSize(cells=17, channels=36, stem_stride=stride),
        sgd=script_sgd(final_learning_rate=0.0005, weight_decay=2e-4),
        training=ImageTraining(augmentation=PAPER_AUGMENTATION, dropout_prob=0.1, auxiliary_weight=0.4),
        policy=replace(REFERENCE_LOGITS, operation_logit_start={"sep_conv_3x3": 10.0, "sep_conv_5x5": 10.0}),
        reinforce=script_reinforce(learning_rate=3.5e-3),
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
