"""Whole retraining configurations by name, one for each of the search's presets."""

from __future__ import annotations

from collections.abc import Callable

from datasets.batches import Augmentation
from exporter.retrain import RetrainConfig
from searcher.arch.document import DocumentError, unknown
from searcher.training.epoch import Objective
from searcher.training.optim import SgdConfig


def quick() -> RetrainConfig:
    """Minutes on two CPU cores."""
    return RetrainConfig(
        preset="quick",
        num_epochs=16,
        batch_size=64,
        sgd=SgdConfig(learning_rate=0.1, final_learning_rate=0.0, warmup_epochs=1, weight_decay=5e-4),
        augmentation=Augmentation(crop_padding=1, flip=True),
        objective=Objective(label_smoothing=0.1),
        ema_decay=0.995,
    )


def standard() -> RetrainConfig:
    """In between: an hour or so on a GPU."""
    return RetrainConfig(
        preset="standard",
        num_epochs=150,
        batch_size=128,
        sgd=SgdConfig(learning_rate=0.1, final_learning_rate=0.0, warmup_epochs=2, weight_decay=3e-4),
        augmentation=Augmentation(crop_padding=4, flip=True, cutout=8),
        objective=Objective(auxiliary_weight=0.4, label_smoothing=0.1),
        drop_path_prob=0.2,
        dropout_prob=0.1,
        ema_decay=0.999,
    )


def paper() -> RetrainConfig:
    """The paper's text on CIFAR-10, with the cutout of its best result.

    Source: Pham et al. 2018, section 3.2 and appendix B; the cutout's side, 16, is the usual one for CIFAR-10.
    """
    return RetrainConfig(
        preset="paper",
        num_epochs=310,
        batch_size=128,
        sgd=SgdConfig(
            learning_rate=0.05, final_learning_rate=0.001, restart_epochs=10, restart_factor=2, weight_decay=1e-4
        ),
        augmentation=Augmentation(crop_padding=4, flip=True, cutout=16),
        objective=Objective(auxiliary_weight=0.4),
        drop_path_prob=0.4,
        dropout_prob=0.2,
    )


def reference() -> RetrainConfig:
    """The authors' published script: 630 epochs on train and valid together, the last epoch's weights.

    Source: the authors' code, `cifar10_micro_final.sh`.
    """
    return RetrainConfig(
        preset="reference",
        num_epochs=630,
        batch_size=144,
        sgd=SgdConfig(
            learning_rate=0.05,
            final_learning_rate=0.0001,
            restart_epochs=10,
            restart_factor=2,
            weight_decay=4e-4,
            decay_norms=True,
            update_unused=True,
        ),
        augmentation=Augmentation(crop_padding=4, flip=True),
        objective=Objective(auxiliary_weight=0.4),
        drop_path_prob=0.4,
        dropout_prob=0.2,
        train_on="train+valid",
    )


PRESETS: dict[str, Callable[[], RetrainConfig]] = {
    "quick": quick,
    "standard": standard,
    "paper": paper,
    "reference": reference,
}


def retrain_preset(name: str) -> RetrainConfig:
    """The preset `name`. Raises: DocumentError: there is none."""
    if name not in PRESETS:
        raise DocumentError("preset", [unknown("preset", name, tuple(PRESETS))])
    return PRESETS[name]()
