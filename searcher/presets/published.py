"""Settings that published searches and retrainings share: those of the paper's text and of the authors' scripts.

Source: Pham et al. 2018, sections 2 and 3.2 and appendix B; the authors' code.
"""

from __future__ import annotations

from datasets.augmentation import Augmentation
from searcher.controller.policy import PolicyConfig
from searcher.controller.reinforce import ReinforceConfig
from searcher.training.optimizers.optimizer import SgdConfig

PAPER_AUGMENTATION = Augmentation(crop_padding=4, crop_border="black", flip=True)
PAPER_SGD = SgdConfig(
    learning_rate=0.05, final_learning_rate=0.001, restart_epochs=10, restart_factor=2, weight_decay=1e-4
)
PAPER_POLICY = PolicyConfig(hidden_size=100, temperature=5.0, tanh_constant=2.5)
PAPER_REINFORCE = ReinforceConfig(
    learning_rate=3.5e-4,
    baseline="moving_average",
    entropy_weight=0.1,
    entropy_in="reward",
    entropy_reduction="mean",
)


def script_sgd(*, final_learning_rate: float, weight_decay: float) -> SgdConfig:
    """The optimizer of the authors' scripts: the paper's restarts; weight decay also on norms and on unused weights."""
    return SgdConfig(
        learning_rate=0.05,
        final_learning_rate=final_learning_rate,
        restart_epochs=10,
        restart_factor=2,
        weight_decay=weight_decay,
        decay_norms=True,
        update_unused=True,
    )


def script_reinforce(*, learning_rate: float, skip_weight: float = 0.0) -> ReinforceConfig:
    """The training of the controller in the authors' scripts."""
    return ReinforceConfig(
        learning_rate=learning_rate,
        adam_betas=(0.0, 0.999),
        adam_eps=1e-3,
        baseline="moving_average",
        entropy_weight=1e-4,
        entropy_in="reward",
        skip_weight=skip_weight,
    )
