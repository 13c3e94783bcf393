"""One pass over training batches, and scoring without gradients. Knows of a function from images to logits, and of
nothing that searches."""

# B batch, C channels, H height, W width

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.seeds import stream_seed
from searcher.training.device import Precision, autocast
from searcher.training.optim import SgdConfig, clip_gradients, learning_rate

Forward = Callable[[int, Tensor], tuple[Tensor, Tensor | None]]
"""Number of the pass and images [B, C, H, W] -> logits [B, classes] and the auxiliary head's logits or None."""


class DivergedError(ValueError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Objective:
    """The loss of a step."""

    auxiliary_weight: float = 0.0
    """Of the auxiliary head's loss; 0 for networks without one. Authors' code: 0.4."""
    label_smoothing: float = 0.0
    """Part of the target spread over all classes, in [0, 1)."""

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
        self.sums += torch.stack([loss.detach() * len(labels), correct, torch.full_like(correct, len(labels))]).to(
            self.sums.dtype
        )

    def mean_loss(self) -> float:
        """Mean over the images. Raises: DivergedError: it is not finite."""
        loss = (self.sums[0] / self.sums[2]).item()
        if not torch.isfinite(self.sums[0]):
            raise DivergedError(
                "the loss is no longer a number; the last checkpoint is kept. "
                "Start again with a smaller learning rate (--config), or another seed"
            )
        return loss

    def accuracy(self) -> float:
        """In [0, 1]."""
        return (self.sums[1] / self.sums[2]).item()


def train_epoch(
    forward: Forward,
    *,
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    config: SgdConfig,
    totals: Totals,
    seed: int,
    epoch: int,
    num_epochs: int,
    num_steps: int,
    start_step: int = 0,
    passes: int = 1,
    precision: Precision = "auto",
) -> Iterator[int]:
    """Train on each batch, yielding the number of steps of the epoch done so far after each.

    A step averages the gradients of `passes` passes over its batch; `forward` is told the pass's number in the epoch.
    The caller may stop between steps and go on later with `start_step` and the same `totals`: whatever a step draws
    depends on (seed, epoch, step) alone.
    """
    parameters = list(network.parameters())
    device = totals.sums.device
    network.train()
    for step, (images, labels) in enumerate(batches, start=start_step):
        rate = learning_rate(config, epoch + step / num_steps, num_epochs=num_epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Dropout and drop path draw from the global generator.
        torch.manual_seed(stream_seed(seed, "noise", epoch, step))
        optimizer.zero_grad(set_to_none=True)
        for index in range(step * passes, (step + 1) * passes):
            with autocast(device, precision):
                logits, auxiliary_logits = forward(index, images)
            loss = objective(logits, auxiliary_logits, labels)
            (loss / passes).backward()
            totals.add(loss, logits, labels)
        clip_gradients(parameters, config.clip_norm)
        optimizer.step()
        yield step + 1


@torch.inference_mode()
def evaluate(
    forward: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device,
    precision: Precision = "auto",
) -> tuple[float, float]:
    """Accuracy in [0, 1] and mean loss of a function from images to logits over all batches."""
    totals = Totals(device)
    for images, labels in batches:
        with autocast(device, precision):
            logits = forward(images)
        totals.add(functional.cross_entropy(logits.float(), labels), logits, labels)
    return totals.accuracy(), (totals.sums[0] / totals.sums[2]).item()
