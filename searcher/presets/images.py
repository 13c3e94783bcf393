"""Complete search configs that all image spaces share, except for the space, its sizes and the controller."""

from __future__ import annotations

from typing import Any

from datasets.augmentation import Augmentation
from searcher.controller.policy import PolicyConfig
from searcher.controller.reinforce import ReinforceConfig
from searcher.presets.datasets import IMAGES
from searcher.presets.published import PAPER_AUGMENTATION, PAPER_POLICY, PAPER_SGD
from searcher.training.derive import DeriveConfig
from searcher.training.image_learner import ImageTraining
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.search_config import SearchConfig


def quick(
    *, space: str, search_space: Any, network: Any, final_network: Any, policy: PolicyConfig, reinforce: ReinforceConfig
) -> SearchConfig:
    """A search that takes minutes on two CPU cores with the embedded Fashion-MNIST."""
    return SearchConfig(
        space=space,
        preset="quick",
        dataset=IMAGES["quick"],
        seed=0,
        num_epochs=6,
        min_steps=600,
        batch_size=64,
        search_space=search_space,
        network=network,
        final_network=final_network,
        sgd=SgdConfig(learning_rate=0.1, final_learning_rate=0.002, warmup_epochs=0.5),
        training=ImageTraining(augmentation=Augmentation(crop_padding=1, flip=True)),
        policy=policy,
        reinforce=reinforce,
        policy_start_epoch=3,
        policy_steps=10,
        policy_samples=10,
        control_samples=4,
        reward_batch_size=125,
        derivation=DeriveConfig(num_samples=40, num_batches=2, num_finalists=5),
    )


def standard(
    *, space: str, search_space: Any, network: Any, final_network: Any, policy: PolicyConfig, reinforce: ReinforceConfig
) -> SearchConfig:
    """A search of an hour or two on a GPU, or a night on a few CPU cores; our controller at the reference's sizes."""
    return SearchConfig(
        space=space,
        preset="standard",
        dataset=IMAGES["standard"],
        seed=0,
        num_epochs=50,
        min_steps=5_000,
        batch_size=128,
        search_space=search_space,
        network=network,
        final_network=final_network,
        sgd=SgdConfig(learning_rate=0.1, final_learning_rate=0.001, warmup_epochs=1),
        training=ImageTraining(augmentation=Augmentation(crop_padding=4, flip=True)),
        policy=policy,
        reinforce=reinforce,
        policy_start_epoch=5,
        policy_steps=30,
        policy_samples=10,
        control_samples=5,
        reward_batch_size=250,
        derivation=DeriveConfig(),
    )


def paper(
    *, space: str, search_space: Any, network: Any, final_network: Any, reinforce: ReinforceConfig
) -> SearchConfig:
    """The search of the paper's text on CIFAR-10: 310 epochs, 2000 policy steps each, one architecture a step.

    Source: Pham et al. 2018, sections 2 and 3.2 and appendix B.
    """
    return SearchConfig(
        space=space,
        preset="paper",
        dataset=IMAGES["paper"],
        seed=0,
        num_epochs=310,
        batch_size=128,
        search_space=search_space,
        network=network,
        final_network=final_network,
        sgd=PAPER_SGD,
        training=ImageTraining(augmentation=PAPER_AUGMENTATION),
        policy=PAPER_POLICY,
        reinforce=reinforce,
        policy_steps=2000,
        policy_samples=1,
        control_samples=0,
        reward_batch_size=128,
        derivation=DeriveConfig(),
    )
