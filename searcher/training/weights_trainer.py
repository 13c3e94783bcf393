"""Training a network's weights epoch by epoch.

Knows of a learner, which turns a network and a batch into a loss, and of nothing that searches.
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

# More would show each example of a tiny data set hundreds of times over a training.
_MOST_ROUNDS = 8


class DivergedError(ValueError):
    """The loss is no longer a number."""


class Totals:
    """Sums over the steps of an epoch, kept on the device: reading them is the epoch's only synchronisation."""

    def __init__(self, device: torch.device, *, world: World) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        """Of the loss times its count, of what the learner measures, and of counts: this rank's part of each."""
        self._world = world

    def add(self, step: StepLoss) -> None:
        loss, measured = step.loss.detach().double(), step.measured.double()
        self.sums += torch.stack([loss * step.count, measured, torch.full_like(loss, step.count)])

    def watch(self, value: Tensor) -> None:
        """Let `check` find out whether a scalar was finite, without reading it now."""
        self.sums[0] += 0 * value

    def whole(self) -> Tensor:
        """The sums over all ranks. Raises: DivergedError: a step's loss, or a value watched, was not finite."""
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
        """Go on with what `whole` gave, which the first rank takes on."""
        self.sums.copy_(sums if self._world.leads else torch.zeros_like(sums))

    def means(self) -> tuple[float, float]:
        """Mean loss, and mean of what is measured. Raises: DivergedError: the loss is not finite."""
        loss, measured, count = self.whole().tolist()
        return loss / count, measured / count


class WeightsTrainer:
    """A network's optimiser and the learner it follows: what search and retraining do alike.

    Whatever a step draws depends on (seed, epoch, step) alone, so an epoch may stop between steps and go on later with
    the same `state`.
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
        passes: forward and backward passes a step, whose gradients are averaged, as are those of the ranks.
        replicated: the network comes from `World.replicate`, which does the latter.
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
        """Over train, which make an epoch."""
        self.steps_per_epoch = self.rounds * learner.steps_per_epoch
        self.rate_scale = 1.0
        """Factor of the learning rate, of a training that began again with a smaller one."""
        self.optimizer = FlatSgd(network, sgd) if sgd.update_unused else EachParameter(network, sgd)
        self.totals = Totals(device, world=world)

    def epoch(self, network_of: Callable[[int], Network], *, epoch: int, start_step: int) -> Iterator[int]:
        """The rest of an epoch from `start_step` on, yielding after each step how many of the epoch are done.

        network_of: from the number of a pass in its epoch to the network of that pass. The network is put into
        training mode once, and has to stay in it.
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
        """Give the parameters the gradients of a batch, averaged over networks; what each pass gave.

        noise: seeds what the passes draw.
        """
        # Dropout and drop path draw from the global generator.
        torch.manual_seed(noise)
        self.optimizer.zero_grad()
        parts = _parts(batch, self._sgd.accumulation)
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
        """The batches of an epoch from a step on, round by round."""
        first, step = divmod(start_step, self._learner.steps_per_epoch)
        for number in range(first, self.rounds):
            yield from self._learner.batches(epoch=epoch * self.rounds + number, start_step=step)
            step = 0

    def record(self) -> dict[str, float]:
        """The figures of the epoch so far. Raises: DivergedError."""
        return {**self._learner.record(*self.totals.means()), "learning_rate": self.optimizer.param_groups[0]["lr"]}

    def state(self) -> dict[str, Any]:
        """Raises: DivergedError: the loss is no longer finite, and the state not worth keeping."""
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


def _parts(batch: Any, count: int) -> list[tuple[Any, float]]:
    """A batch, a tuple of tensors whose first axis is the batch's, in parts, each with its share of it."""
    if count == 1:
        return [(batch, 1.0)]
    size = len(batch[0])
    parts = zip(*(tensor.tensor_split(min(count, size)) for tensor in batch), strict=True)
    return [(part, len(part[0]) / size) for part in parts]


def rounds_of(steps: int, *, num_epochs: int, min_steps: int) -> int:
    """How many rounds of `steps` steps over train make an epoch, so that all epochs together have `min_steps`.

    A small data set's epochs are so few steps that nothing is learnt in as many of them as a large one needs. It is at
    most 8 rounds, so a tiny data set may stay below min_steps.
    """
    return min(max(1, -(-min_steps // (num_epochs * steps))), _MOST_ROUNDS)
