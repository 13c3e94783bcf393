"""Knowledge distillation: learning from a teacher's answers in addition to the labels.

Knows answers and losses; other modules define a teacher and run it.

Source: Hinton et al. 2015, arXiv:1503.02531. The teacher sees the same view of an image as the network: Beyer et al.
2022, "Knowledge distillation: a good teacher is patient and consistent", arXiv:2106.05237.
"""

# M models of a teacher, N images of the split, B batch, C channels, H height, W width, K classes

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.batches import ImageBatches

Teacher = Callable[[Tensor], Tensor]
"""Normalised images [B, C, H, W] as the network sees them -> logits [B, M, K], float32, on the images' device."""

_BATCH_SIZE = 250
_MOST_KEPT_BYTES = 1 << 28


class Distillation:
    """A teacher and the weight of its loss."""

    def __init__(self, teacher: Teacher, *, temperature: float, weight: float) -> None:
        """temperature: of both softmaxes, above 0. weight: of the teacher's loss, in (0, 1]."""
        self._teacher = teacher
        self._temperature = temperature
        self.weight = weight
        self._kept: Tensor | None = None  # [N, M, K]

    def keep(self, images: ImageBatches) -> bool:
        """Computes the answers to all unaugmented images of a split, once, and keeps them; False if they are too large.

        In the split's order, so that a resumed training gets the same answers to the bit.
        """
        if self._kept is None:
            first, _ = images.batch(np.arange(min(_BATCH_SIZE, images.num_images)))
            answers = self._teacher(first)
            if answers.nbytes // len(first) * images.num_images > _MOST_KEPT_BYTES:
                return False
            rest = images.epoch(batch_size=_BATCH_SIZE, seed=0, epoch=0, shuffle=False, start_step=1)
            self._kept = torch.cat([answers, *(self._teacher(batch) for batch, _ in rest)])
        return True

    def answers(self, images: Tensor, numbers: np.ndarray | None) -> Tensor:
        """The teacher's logits [B, M, K]. numbers: of the images in the split [B], if answers are kept."""
        if numbers is None:
            return self._teacher(images)
        assert self._kept is not None
        return self._kept[torch.from_numpy(numbers).to(self._kept.device)]

    def loss(self, logits: Tensor, answers: Tensor, *, image_weights: Tensor | None = None) -> Tensor:
        """Returns the KL divergence of softened logits [B, K] from the mean of softened answers [B, M, K], in nats.

        A scalar, the mean over B, times the squared temperature, so that its gradients are as large as those of the
        labels' loss. image_weights: [B], weight of each image; None weights all by 1.
        """
        wanted = (answers / self._temperature).softmax(-1).mean(1)
        found = (logits.float() / self._temperature).log_softmax(-1)
        if image_weights is None:
            return self._temperature**2 * functional.kl_div(found, wanted, reduction="batchmean")
        divergences = functional.kl_div(found, wanted, reduction="none").sum(1)  # [B]
        return self._temperature**2 * (image_weights * divergences).mean()
