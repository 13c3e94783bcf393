"""Trains a network's weights epoch by epoch.

Knows a learner, which turns a network and a batch into a loss, and nothing of search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foundation.seeds import stream_seed
from searcher.running.distributed import ALONE, World
from searcher.training.learner import Learner, Network, StepLoss
from searcher.training.optimizers.flat_sgd import FlatSgd
from searcher.training.optimizers.optimizer import EachParameter, SgdConfig, learning_rate
from searcher.training.optimizers.sharpness import climbed

# With more, a training would see each example of a tiny data set hundreds of times.
_MOST_ROUNDS = 8


class DivergedError(ValueError):
    """The loss is no longer finite."""


class Totals:
    """Sums over the steps of an epoch, kept on the device: reading them is the epoch's only synchronisation."""

    def __init__(self, device: torch.device, *, world: World) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        """This rank's sums of the loss times its count, of the learner's measured value, and of the count."""
        self._world = world

    def add(self, step: StepLoss) -> None:
        loss, measured = step.loss.detach().double(), step.measured.double()
        self.sums += torch.stack([loss * step.count, measured, torch.full_like(loss, step.count)])

    def watch(self, value: Tensor) -> None:
        """Makes `check` raise if a scalar is not finite, without reading it now."""
        self.sums[0] += 0 * value

    def whole(self) -> Tensor:
        """Returns the sums over all ranks. Raises: DivergedError: a step's loss, or a watched value, was not finite."""
        sums = self._world.sum(self.sums)
        if not torch.isfinite(sums[0]):
            raise DivergedError(
                "the loss is no longer a number; the last checkpoint is kept. Start again with a smaller learning rate "
                "or a smaller clip_norm (--config), or another seed"
            )
        return sums

    def check(self) -> None:
        """Raises: DivergedError: as `whole`."""
        self.whole()

    def load(self, sums: Tensor) -> None:
        """Restores the result of `whole`: the first rank takes all of it, the others start at zero."""
        self.sums.copy_(sums if self._world.leads else torch.zeros_like(sums))

    def means(self) -> tuple[float, float]:
        """Returns the mean loss, and the mean measured value. Raises: DivergedError: the loss is not finite."""
        loss, measured, count = self.whole().tolist()
        return loss / count, measured / count


class WeightsTrainer:
    """Trains a network with a learner's loss and an optimiser; search and retraining share it.

    A step's random draws depend only on (seed, epoch, step), so an epoch can stop between steps and resume from
    `state`.
    """

    def __init__(
        self,
        network: nn.Module,
        learner: Learner,
        *,
        sgd: SgdConfig,
        num_epochs: int,
        seed: int,
        device: torch.device,
        min_steps: int = 0,
        passes: int = 1,
        world: World = ALONE,
        replicated: bool = False,
    ) -> None:
        """min_steps: of all epochs together, see `rounds_of`.
        passes: forward and backward passes per step; gradients are averaged over passes and ranks.
        replicated: the network comes from `World.replicate`, which averages over the ranks itself.
        """
        self._network = network
        self._parameters = list(network.parameters())
        self._learner = learner
        self._sgd = sgd
        self._num_epochs = num_epochs
        self._seed = seed
        self._passes = passes
        self._world = world
        self._replicated = replicated
        self.rounds = rounds_of(learner.steps_per_epoch, num_epochs=num_epochs, min_steps=min_steps)
        """Passes over train in an epoch."""
        self.steps_per_epoch = self.rounds * learner.steps_per_epoch
        self.rate_scale = 1.0
        """Factor of the learning rate; below 1 if the training was restarted with a smaller rate."""
        self.optimizer = FlatSgd(network, sgd) if sgd.update_unused else EachParameter(network, sgd)
        self.totals = Totals(device, world=world)

    def epoch(self, network_of: Callable[[int], Network], *, epoch: int, start_step: int) -> Iterator[int]:
        """Trains the rest of an epoch from `start_step` on; yields after each step how many of the epoch are done.

        network_of: maps the number of a pass in the epoch to the network of that pass. The network is put into training
        mode once, and must stay in it.
        """
        self._network.train()  # not at every step: a supernet has thousands of modules
        for step, batch in enumerate(self._batches(epoch, start_step), start=start_step):
            self._set_rate(epoch + step / self.steps_per_epoch)
            progress = (epoch + (step + 1) / self.steps_per_epoch) / self._num_epochs
            noise = stream_seed(self._seed, "noise", epoch, step, *self._world.stream)
            networks = [network_of(index) for index in range(step * self._passes, (step + 1) * self._passes)]
            for result in self._gradients(networks, batch, progress=progress, noise=noise):
                self.totals.add(result)
            if self._sgd.sharpness:
                with climbed(self._parameters, radius=self._sgd.sharpness):
                    self._gradients(networks, batch, progress=progress, noise=noise)
            norm = self.optimizer.step()
            if norm is not None:
                self.totals.watch(norm)
            yield step + 1

    def _gradients(self, networks: Sequence[Network], batch: Any, *, progress: float, noise: int) -> list[StepLoss]:
        """Sets the parameters' gradients for a batch, averaged over networks; returns the result of each pass.

        noise: seed of the passes' random draws.
        """
        # Dropout and drop path draw from the global generator.
        torch.manual_seed(noise)
        self.optimizer.zero_grad()
        parts = parts_of_batch(batch, self._sgd.accumulation)
        results = []
        for network in networks:
            for part, share in parts:
                result = self._learner.loss(network, part, progress=progress)
                (result.loss / (len(networks) / share)).backward()
                results.append(result)
        if not self._replicated:
            self._world.average_gradients(self._parameters)
        return results

    @property
    def rounds_text(self) -> str:
        return f"train is small: an epoch is {self.rounds} passes over it, {self.steps_per_epoch} steps"

    def _batches(self, epoch: int, start_step: int) -> Iterator[Any]:
        """Yields the batches of an epoch from `start_step` on, round by round."""
        first, step = divmod(start_step, self._learner.steps_per_epoch)
        for number in range(first, self.rounds):
            yield from self._learner.batches(epoch=epoch * self.rounds + number, start_step=step)
            step = 0

    def record(self) -> dict[str, float]:
        """The figures of the epoch so far. Raises: DivergedError."""
        return {**self._learner.record(*self.totals.means()), "learning_rate": self.optimizer.param_groups[0]["lr"]}

    def state(self) -> dict[str, Any]:
        """Raises: DivergedError: the loss is no longer finite, so the state is not worth saving."""
        totals = self.totals.whole()
        return {
            "optimizer": self.optimizer.state_dict(),
            "totals": totals,
            "learner": self._learner.state(),
            "rate_scale": self.rate_scale,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.totals.load(state["totals"])
        self._learner.load(state["learner"])
        self.rate_scale = state.get("rate_scale", 1.0)  # earlier checkpoints have none

    def _set_rate(self, epoch: float) -> None:
        rate = self.rate_scale * learning_rate(self._sgd, epoch, num_epochs=self._num_epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def parts_of_batch(batch: Any, count: int) -> list[tuple[Any, float]]:
    """Splits a batch into `count` parts, each with its share of it; one part is the batch itself, of whatever kind.

    Others are of batches of images, tuples of tensors whose first axis is the batch's. A short batch has fewer parts:
    each has at least two images, for batch norm.
    """
    if count == 1:
        return [(batch, 1.0)]
    size = len(batch[0])
    parts = zip(*(tensor.tensor_split(min(count, max(1, size // 2))) for tensor in batch), strict=True)
    return [(part, len(part[0]) / size) for part in parts]


def rounds_of(steps: int, *, num_epochs: int, min_steps: int) -> int:
    """Returns how many rounds of `steps` steps over train make an epoch, so that all epochs together have `min_steps`.

    In the number of epochs that a large data set needs, a small one has too few steps to learn anything. At most 8
    rounds, so a tiny data set may stay below min_steps.
    """
    return min(max(1, -(-min_steps // (num_epochs * steps))), _MOST_ROUNDS)
