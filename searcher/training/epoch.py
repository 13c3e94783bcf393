"""Training a network's weights epoch by epoch, and scoring without gradients.

Knows of a function from images to logits, and of nothing that searches.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.batches import Augmentation, ImageBatches
from datasets.seeds import stream_seed
from searcher.arch.document import ConfigError
from searcher.training.device import Precision, computing
from searcher.training.optim import SgdConfig, clip_gradients, learning_rate, make_sgd

Forward = Callable[[int, Tensor], tuple[Tensor, Tensor | None]]
"""Number of the pass in its epoch and images [B, C, H, W] -> logits [B, classes], the auxiliary head's or None."""


class DivergedError(ValueError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Objective:
    """The loss of a step."""

    auxiliary_weight: float = 0.0
    """Of the auxiliary head's loss; 0 for networks without one. Authors' code: 0.4."""
    label_smoothing: float = 0.0
    """Part of the target spread over all classes, in [0, 1)."""

    def __post_init__(self) -> None:
        if not self.auxiliary_weight >= 0:
            raise ConfigError(f"auxiliary_weight is {self.auxiliary_weight}; it must not be negative")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing is {self.label_smoothing}; expected 0 up to, not including, 1")

    def __call__(self, logits: Tensor, auxiliary_logits: Tensor | None, labels: Tensor) -> Tensor:
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
        if auxiliary_logits is None:
            return loss
        auxiliary = functional.cross_entropy(auxiliary_logits.float(), labels, label_smoothing=self.label_smoothing)
        return loss + self.auxiliary_weight * auxiliary


class Totals:
    """Sums over the steps of an epoch, kept on the device: reading them is the epoch's only synchronisation."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        """Of loss, correct answers and images."""

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        correct = (logits.detach().argmax(1) == labels).sum()
        self.sums += torch.stack([loss.detach() * len(labels), correct, torch.full_like(correct, len(labels))])

    def watch(self, value: Tensor) -> None:
        """Let `check` find out whether a scalar was finite, without reading it now."""
        self.sums[0] += 0 * value

    def check(self) -> None:
        """Raises: DivergedError: a step's loss, or a value watched, was not finite."""
        if not torch.isfinite(self.sums[0]):
            raise DivergedError(
                "the loss is no longer a number; the last checkpoint is kept. "
                "Start again with a smaller learning rate (--config), or another seed"
            )

    def mean_loss(self) -> float:
        """Mean over the images. Raises: DivergedError: it is not finite."""
        self.check()
        return (self.sums[0] / self.sums[2]).item()

    def accuracy(self) -> float:
        """In [0, 1]."""
        return (self.sums[1] / self.sums[2]).item()


class WeightsTrainer:
    """A network's optimiser and its training images: what search and retraining do alike.

    Whatever a step draws depends on (seed, epoch, step) alone, so an epoch may stop between steps and go on later with
    the same `totals`.
    """

    def __init__(
        self,
        network: nn.Module,
        train: ImageBatches,
        *,
        sgd: SgdConfig,
        objective: Objective,
        augmentation: Augmentation,
        batch_size: int,
        num_epochs: int,
        seed: int,
        device: torch.device,
        passes: int = 1,
        precision: Precision = "auto",
    ) -> None:
        """passes: forward and backward passes a step, whose gradients are averaged."""
        self._network = network
        self._parameters = list(network.parameters())
        self._train = train
        self._sgd = sgd
        self._objective = objective
        self._augmentation = augmentation
        self._batch_size = batch_size
        self._num_epochs = num_epochs
        self._seed = seed
        self._device = device
        self._passes = passes
        self._precision = precision
        # Norms want batches of one size; a data set smaller than a batch is taken as it is.
        self._drop_last = train.num_images >= batch_size
        self.steps_per_epoch = train.num_steps(batch_size, drop_last=self._drop_last)
        self.optimizer = make_sgd(network, sgd)
        self.totals = Totals(device)

    def epoch(self, forward: Forward, *, epoch: int, start_step: int) -> Iterator[int]:
        """The rest of an epoch from `start_step` on, yielding after each step how many of the epoch are done."""
        batches = self._train.epoch(
            batch_size=self._batch_size,
            seed=self._seed,
            epoch=epoch,
            augmentation=self._augmentation,
            drop_last=self._drop_last,
            start_step=start_step,
        )
        for step, (images, labels) in enumerate(batches, start=start_step):
            self._network.train()
            self._set_rate(epoch + step / self.steps_per_epoch)
            # Dropout and drop path draw from the global generator.
            torch.manual_seed(stream_seed(self._seed, "noise", epoch, step))
            self.optimizer.zero_grad(set_to_none=True)
            for index in range(step * self._passes, (step + 1) * self._passes):
                with computing(self._device, self._precision):
                    logits, auxiliary_logits = forward(index, images)
                loss = self._objective(logits, auxiliary_logits, labels)
                (loss / self._passes).backward()
                self.totals.add(loss, logits, labels)
            if self._sgd.update_unused:
                for parameter in self._parameters:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
            norm = clip_gradients(self._parameters, self._sgd.clip_norm)
            if norm is not None:
                self.totals.watch(norm)
            self.optimizer.step()
            yield step + 1

    @property
    def learning_rate(self) -> float:
        """Of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def state(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "totals": self.totals.sums}

    def load(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.totals.sums.copy_(state["totals"])

    def _set_rate(self, epoch: float) -> None:
        rate = learning_rate(self._sgd, epoch, num_epochs=self._num_epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate


@torch.inference_mode()
def correct_answers(
    forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, precision: Precision = "auto"
) -> Tensor:
    """Whether the best logit of each image is its label's: bool [B]."""
    with computing(images.device, precision):
        return forward(images).argmax(1) == labels


def accuracy(
    forward: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    precision: Precision = "auto",
) -> float:
    """Part of all images that a function from images to logits answers correctly, in [0, 1]."""
    answers = [correct_answers(forward, images, labels, precision=precision) for images, labels in batches]
    return torch.cat(answers).double().mean().item()
