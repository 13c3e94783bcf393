"""Complete search configs of the recurrent space."""

from __future__ import annotations

from collections.abc import Callable

from searcher.arch.spaces.recurrent import RecurrentSize, RecurrentSpace
from searcher.controller.policy import PolicyConfig
from searcher.controller.reinforce import ReinforceConfig
from searcher.nn.recurrent import Dropout
from searcher.presets.datasets import TEXTS
from searcher.presets.published import PAPER_POLICY
from searcher.training.derive import DeriveConfig
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.search_config import SearchConfig
from searcher.training.text_learner import TextTraining

SEARCH_SGD = SgdConfig(
    learning_rate=10.0, final_learning_rate=2.0, warmup_epochs=0.1, momentum=0.0, weight_decay=1e-7, clip_norm=0.25
)
SEARCH_TRAINING = TextTraining(batch_norm=True, weight_range=0.1)
"""With the paper's batch norm of the state: without it the states of some cells overflow."""


def quick_recurrent() -> SearchConfig:
    """A search that takes minutes on two CPU cores with the embedded Shakespeare."""
    return SearchConfig(
        space="recurrent",
        preset="quick",
        dataset=TEXTS["quick"],
        seed=0,
        num_epochs=2,
        min_steps=400,
        batch_size=64,
        search_space=RecurrentSpace(num_nodes=8),
        network=RecurrentSize(hidden_size=128),
        final_network=RecurrentSize(hidden_size=128),
        sgd=SEARCH_SGD,
        training=SEARCH_TRAINING,
        policy=PolicyConfig(hidden_size=64, tanh_constant=2.5, temperature=2.0),
        reinforce=ReinforceConfig(learning_rate=5e-3),
        policy_steps=20,
        policy_samples=10,
        control_samples=4,
        reward_batch_size=32,
        derivation=DeriveConfig(num_samples=40, num_batches=2, num_finalists=4),
    )


def small_recurrent() -> SearchConfig:
    """A search of a quarter of an hour on two CPU cores; with retraining, an hour or less."""
    return SearchConfig(
        space="recurrent",
        preset="small",
        dataset=TEXTS["small"],
        seed=0,
        num_epochs=4,
        min_steps=800,
        batch_size=64,
        search_space=RecurrentSpace(num_nodes=12),
        network=RecurrentSize(hidden_size=200),
        final_network=RecurrentSize(hidden_size=200),
        sgd=SEARCH_SGD,
        training=SEARCH_TRAINING,
        policy=PolicyConfig(hidden_size=64, tanh_constant=2.5, temperature=2.0),
        reinforce=ReinforceConfig(learning_rate=3.5e-3),
        policy_steps=30,
        policy_samples=10,
        control_samples=4,
        reward_batch_size=32,
        derivation=DeriveConfig(num_samples=60, num_batches=4, num_finalists=6),
    )


def paper_recurrent() -> SearchConfig:
    """The search of the paper's text on Penn Treebank: 150 epochs, 2000 policy steps each, one architecture a step.

    The paper names variational dropout but not its rates; these are from the authors' first code.
    Source: Pham et al. 2018, sections 2 and 3.1 and appendix A; `ptb_search.sh`.
    """
    return SearchConfig(
        space="recurrent",
        preset="paper",
        dataset=TEXTS["paper"],
        seed=0,
        num_epochs=150,
        batch_size=64,
        search_space=RecurrentSpace(num_nodes=12),
        network=RecurrentSize(hidden_size=1000),
        final_network=RecurrentSize(hidden_size=748),
        sgd=SgdConfig(
            learning_rate=20.0, decay=0.96, decay_start_epoch=15, momentum=0.0, weight_decay=1e-7, clip_norm=0.25
        ),
        training=TextTraining(
            dropout=Dropout(embedding=0.25, input=0.75, state=0.25, output=0.75), batch_norm=True, weight_range=0.025
        ),
        policy=PAPER_POLICY,
        reinforce=ReinforceConfig(
            learning_rate=3.5e-4,
            baseline="moving_average",
            entropy_weight=1e-4,
            entropy_in="reward",
            entropy_reduction="mean",
        ),
        policy_steps=2000,
        policy_samples=1,
        control_samples=0,
        reward_batch_size=64,
        derivation=DeriveConfig(),
    )


def reference_recurrent() -> SearchConfig:
    """enas_lm, the authors' corrected code for Penn Treebank, in its own space: 600 epochs, 25 policy steps each.

    Its windows of random length, its prior for near nodes and its controller's nine layers are left out.
    Source: google-research's enas_lm, `child.py`, `controller.py` and `search.py`.
    """
    return SearchConfig(
        space="recurrent",
        preset="reference",
        dataset=TEXTS["reference"],
        seed=0,
        num_epochs=600,
        batch_size=128,
        search_space=RecurrentSpace(num_nodes=9, output="all", weights="per_activation", first_activation="tanh"),
        network=RecurrentSize(hidden_size=200),
        final_network=RecurrentSize(hidden_size=800),
        sgd=SgdConfig(learning_rate=20.0, final_learning_rate=20.0, momentum=0.0, weight_decay=8e-7, clip_norm=0.1),
        training=TextTraining(
            # enas_lm applies two masks to the input, which keep 0.8 and 0.25 of it: 0.2 remain.
            dropout=Dropout(embedding=0.1, input=0.8, state=0.25, output=0.75),
            slowness_penalty=1.0,
            weight_range=0.04,
        ),
        policy=PolicyConfig(hidden_size=64, temperature=5.0, tanh_constant=2.25, weight_range=0.01),
        reinforce=ReinforceConfig(
            learning_rate=5e-5,
            baseline="moving_average",
            baseline_decay=0.999,
            entropy_weight=1e-5,
            entropy_in="reward",
        ),
        policy_steps=25,
        policy_samples=10,
        control_samples=0,
        reward_batch_size=128,
        derivation=DeriveConfig(),
    )


LATENCY = None

PRESETS: dict[str, Callable[..., SearchConfig]] = {
    "quick": quick_recurrent,
    "small": small_recurrent,
    "paper": paper_recurrent,
    "reference": reference_recurrent,
}
