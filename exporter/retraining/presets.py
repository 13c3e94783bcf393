"""Complete retraining configurations by name, one for each of the search's presets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from datasets.augmentation import Augmentation
from exporter.retraining.config import RetrainConfig
from foundation.document import DocumentError, unknown
from searcher.arch.space import space_module
from searcher.arch.tasks import IMAGE_CLASSIFICATION, LANGUAGE_MODELLING
from searcher.nn.recurrent import Dropout
from searcher.presets.published import PAPER_AUGMENTATION, PAPER_SGD, script_sgd
from searcher.training.image_learner import ImageTraining
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.text_learner import TextTraining


def quick_images() -> RetrainConfig:
    """Minutes on two CPU cores."""
    return RetrainConfig(
        preset="quick",
        num_epochs=16,
        batch_size=64,
        sgd=SgdConfig(learning_rate=0.1, final_learning_rate=0.0, warmup_epochs=1, weight_decay=5e-4, optimizer="muon"),
        training=ImageTraining(augmentation=Augmentation(crop_padding=1, flip=True), label_smoothing=0.1),
        average_share=0.1,
        min_steps=1_200,
    )


def standard_images() -> RetrainConfig:
    """Between quick and paper: about an hour on a GPU."""
    return RetrainConfig(
        preset="standard",
        num_epochs=150,
        batch_size=128,
        sgd=SgdConfig(learning_rate=0.1, final_learning_rate=0.0, warmup_epochs=2, weight_decay=3e-4),
        training=ImageTraining(
            augmentation=Augmentation(crop_padding=4, flip=True, cutout=8), label_smoothing=0.1, dropout_prob=0.1
        ),
        average_share=0.1,
        min_steps=10_000,
    )


def standard_micro() -> RetrainConfig:
    """As `standard_images`, with an auxiliary head and drop path, which only cells have."""
    config = standard_images()
    return replace(config, training=replace(config.training, auxiliary_weight=0.4, drop_path_prob=0.2))


def paper_micro() -> RetrainConfig:
    """As the paper describes it for CIFAR-10, with the cutout of its best result.

    Source: Pham et al. 2018, section 3.2 and appendix B; the cutout's side, 16, is the usual one for CIFAR-10.
    """
    return RetrainConfig(
        preset="paper",
        num_epochs=310,
        batch_size=128,
        sgd=PAPER_SGD,
        training=ImageTraining(
            augmentation=replace(PAPER_AUGMENTATION, cutout=16),
            auxiliary_weight=0.4,
            drop_path_prob=0.4,
            dropout_prob=0.2,
        ),
    )


def reference_micro() -> RetrainConfig:
    """The authors' published script: 630 epochs on train and valid together, the last epoch's weights.

    Source: the authors' code, `cifar10_micro_final.sh`.
    """
    return RetrainConfig(
        preset="reference",
        num_epochs=630,
        batch_size=144,
        sgd=script_sgd(final_learning_rate=0.0001, weight_decay=4e-4),
        training=ImageTraining(
            augmentation=PAPER_AUGMENTATION,
            auxiliary_weight=0.4,
            drop_path_prob=0.4,
            dropout_prob=0.2,
        ),
        train_on="train+valid",
    )


def paper_macro() -> RetrainConfig:
    """As the paper describes it for CIFAR-10; the dropout, which it does not state, is from the authors' script.

    Source: Pham et al. 2018, section 3.2 and appendix B.
    """
    return RetrainConfig(
        preset="paper",
        num_epochs=310,
        batch_size=128,
        sgd=PAPER_SGD,
        training=ImageTraining(augmentation=PAPER_AUGMENTATION, dropout_prob=0.5),
    )


def reference_macro() -> RetrainConfig:
    """The authors' published script: 310 epochs on train and valid together, the last epoch's weights.

    Source: the authors' code, `cifar10_macro_final.sh`.
    """
    return RetrainConfig(
        preset="reference",
        num_epochs=310,
        batch_size=100,
        sgd=script_sgd(final_learning_rate=0.001, weight_decay=4e-4),
        training=ImageTraining(augmentation=PAPER_AUGMENTATION, dropout_prob=0.5),
        train_on="train+valid",
    )


def quick_stages() -> RetrainConfig:
    """More epochs than in the other spaces, whose steps take longer."""
    config = quick_images()
    return replace(
        config,
        num_epochs=18,
        sgd=replace(config.sgd, weight_decay=1e-3),
        training=replace(config.training, augmentation=Augmentation(crop_padding=2, flip=True)),
    )


def deploy_stages() -> RetrainConfig:
    """About an hour on two CPU cores with a full data set of 60,000 small images.

    There is no cutout: with it, a network of 0.2 million weights is in the end no better on train than on valid.
    """
    config = quick_images()
    return replace(
        config,
        preset="deploy",
        num_epochs=30,
        training=replace(config.training, augmentation=Augmentation(crop_padding=2, flip=True)),
        min_steps=2_000,
    )


RECURRENT_SGD = SgdConfig(
    learning_rate=20.0,
    final_learning_rate=0.5,
    warmup_epochs=0.1,
    momentum=0.0,
    weight_decay=1e-7,
    clip_norm=0.25,
)
"""The paper's learning rate with a cosine schedule, and a warm-up: the full rate makes many cells unstable at first."""


def quick_recurrent() -> RetrainConfig:
    """Minutes on two CPU cores."""
    return RetrainConfig(
        preset="quick",
        num_epochs=2,
        batch_size=64,
        sgd=RECURRENT_SGD,
        training=TextTraining(weight_range=0.1),
        min_steps=400,
    )


def small_recurrent() -> RetrainConfig:
    """About an hour on two CPU cores, including the search."""
    return RetrainConfig(
        preset="small",
        num_epochs=6,
        batch_size=64,
        sgd=RECURRENT_SGD,
        training=TextTraining(weight_range=0.1, dropout=Dropout(input=0.1, output=0.2)),
        min_steps=1_200,
    )


def paper_recurrent() -> RetrainConfig:
    """As the paper describes it for Penn Treebank; the dropout, which it does not state, is from the authors' script.

    Source: Pham et al. 2018, section 3.1 and appendix A; `ptb_final.sh`.
    """
    return RetrainConfig(
        preset="paper",
        num_epochs=150,
        batch_size=64,
        sgd=SgdConfig(
            learning_rate=20.0, decay=0.96, decay_start_epoch=15, momentum=0.0, weight_decay=1e-7, clip_norm=0.25
        ),
        training=TextTraining(dropout=Dropout(embedding=0.21, input=0.75, state=0.25, output=0.76)),
    )


def reference_recurrent() -> RetrainConfig:
    """enas_lm's final training on one GPU: averaged SGD over up to 3000 epochs.

    Source: google-research's enas_lm, `fixed.py` and `fixed_lib.py`. Its windows of random length are left out.
    """
    return RetrainConfig(
        preset="reference",
        num_epochs=3000,
        batch_size=64,
        # enas_lm's decay, 8e-7, multiplies the squared norm in the loss, and so twice the weights in the gradient.
        sgd=SgdConfig(learning_rate=20.0, final_learning_rate=20.0, momentum=0.0, weight_decay=1.6e-6, clip_norm=0.25),
        training=TextTraining(
            # On the input enas_lm applies two masks, which keep 0.825 and 0.275: 1 - 0.825 · 0.275.
            dropout=Dropout(embedding=0.125, input=0.773125, state=0.225, output=0.75),
            activation_penalty=0.7,
            weight_range=0.05,
        ),
        average_patience=10,
    )


PRESETS: dict[str, dict[str, Callable[[], RetrainConfig]]] = {
    "micro": {"quick": quick_images, "standard": standard_micro, "paper": paper_micro, "reference": reference_micro},
    "macro": {"quick": quick_images, "standard": standard_images, "paper": paper_macro, "reference": reference_macro},
    "stages": {"quick": quick_stages, "standard": standard_images, "deploy": deploy_stages},
    "recurrent": {
        "quick": quick_recurrent,
        "small": small_recurrent,
        "paper": paper_recurrent,
        "reference": reference_recurrent,
    },
}


# For spaces without presets of their own.
_BY_TASK: dict[str, dict[str, Callable[[], RetrainConfig]]] = {
    IMAGE_CLASSIFICATION: {"quick": quick_images, "standard": standard_images},
    LANGUAGE_MODELLING: {"quick": quick_recurrent, "small": small_recurrent},
}


def presets_of(space: str) -> dict[str, Callable[[], RetrainConfig]]:
    """The presets of a space by name: its own, or else the general ones for its kind of task."""
    return PRESETS.get(space) or _BY_TASK[space_module(space).TASK_KIND]


def retrain_preset(space: str, name: str) -> RetrainConfig:
    """The preset `name` of a space. Raises: DocumentError: there is none."""
    presets = presets_of(space)
    if name not in presets:
        raise DocumentError("preset", [unknown("preset", name, tuple(presets))])
    return presets[name]()
