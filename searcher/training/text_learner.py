"""Learning to predict the next token: truncated backpropagation through time, scored by perplexity."""

# T time steps, B batch, S evaluation streams, H hidden size

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.store import TextStore
from datasets.token_batches import TokenBatches
from foundation.document import ConfigError
from searcher.nn.recurrent import Dropout, Scores
from searcher.running.device import Precision, computing, products_precision
from searcher.running.distributed import ALONE, World
from searcher.training.learner import Half, Network, Score, StepLoss

_EVALUATION_WINDOW = 64
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class TextTraining:
    """Settings of training on text: window, regularisation and reward."""

    window: int = 35
    """Time steps through which a gradient flows. Paper: 35."""
    dropout: Dropout = Dropout()  # noqa: RUF009 - frozen, so one serves all
    activation_penalty: float = 0.0
    """Factor, in the loss, of the mean square of the states, before dropout. enas_lm's final network: 0.7."""
    slowness_penalty: float = 0.0
    """Factor, in the loss, of the mean square of the state's change from one time step to the next. enas_lm: 1."""
    batch_norm: bool = False
    """Whether to normalise the new state, in the search only. Paper: yes."""
    weight_range: float = 0.04
    """Initial weights are uniform in ± this. Paper: 0.025 in the search, 0.04 in the final network."""
    reward_constant: float = 80.0
    """A reward is this divided by the perplexity. Paper: 80."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"window is {self.window}; at least 1 is needed")
        for name in ("activation_penalty", "slowness_penalty"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in ("weight_range", "reward_constant"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")


class TextBatch(NamedTuple):
    """A window of parallel streams."""

    tokens: Tensor
    """int64 [T, B]."""
    targets: Tensor
    """int64 [T, B]: the token after each."""
    state: Tensor | None
    """[B, H] before the window; None is the zero state."""


class TextLearner:
    """Learns to predict a store's text. A reward is reward_constant / perplexity.

    Networks take tokens, targets and a state, and return `Scores`. In training the state is carried from window to
    window, detached from the gradient; it is zero at the start of each epoch, and of each window scored for a reward.
    """

    metric = criterion = "perplexity"

    def __init__(
        self,
        training: TextTraining,
        *,
        store: TextStore,
        train_on: str,
        batch_size: int,
        reward_batch_size: int,
        seed: int,
        device: torch.device,
        memory_budget_mb: int,
        precision: Precision,
        world: World = ALONE,
    ) -> None:
        """Loads train and valid onto the device. A text is small, so memory_budget_mb is not used; nor is the seed.

        Raises: StoreError: the store has no such split, is damaged, or is too short for the batch.
        ConfigError: a batch has no stream for some rank.
        """
        if batch_size < world.size:
            raise ConfigError(f"batch_size is {batch_size}; each of the {world.size} processes needs a stream of it")
        self._training = training
        self._store = store
        self._device = device
        self._precision = products_precision(device, precision)
        self._train = TokenBatches.load(store, train_on, device=device)
        self._valid = TokenBatches.load(store, "valid", device=device)
        self._world = world
        self._batch_size = batch_size
        self._reward_batch_size = reward_batch_size
        self.steps_per_epoch = self._train.num_steps(batch_size, training.window)
        self.network_options: dict[str, Any] = {
            "dropout": training.dropout,
            "batch_norm": training.batch_norm,
            "weight_range": training.weight_range,
        }
        self._state: Tensor | None = None

    def batches(self, *, epoch: int, start_step: int) -> Iterator[TextBatch]:
        """Yields the windows of an epoch, from `start_step` on, each with the state that the window before ended in.

        A rank has the same part of the streams throughout.
        """
        if start_step == 0:
            self._state = None
        windows = self._train.epoch(batch_size=self._batch_size, window=self._training.window, start_step=start_step)
        streams = self._world.part(self._batch_size)
        for tokens, targets in windows:
            yield TextBatch(tokens[:, streams], targets[:, streams], self._state)

    def loss(self, network: Network, batch: TextBatch, *, progress: float) -> StepLoss:
        """Mean negative log likelihood of a window, in nats, with the penalties."""
        with computing(self._device, self._precision):
            scores: Scores = network(*batch)
        self._state = scores.state.detach()
        loss = scores.nll.mean()
        if self._training.activation_penalty > 0:
            loss = loss + self._training.activation_penalty * scores.states.square().mean()
        if self._training.slowness_penalty > 0 and len(scores.states) > 1:
            change = scores.states[1:] - scores.states[:-1]
            loss = loss + self._training.slowness_penalty * change.square().mean()
        return StepLoss(loss, scores.nll.detach().sum(), scores.nll.numel())

    def record(self, mean_loss: float, mean_measured: float) -> dict[str, float]:
        """An epoch's training figures by name."""
        return {"loss": mean_loss, "train_perplexity": math.exp(min(mean_measured, _LARGEST_EXPONENT))}

    def norm_batches(self, generator: np.random.Generator, *, count: int) -> list[TextBatch]:
        """Returns windows of train from random places, about `count` tokens in total."""
        window, size = self._training.window, self._batch_size
        windows = [
            self._train.windows(generator, batch_size=size, window=window)
            for _ in range(max(1, count // (size * window)))
        ]
        streams = self._world.part(size)
        return [TextBatch(tokens[:, streams], targets[:, streams], None) for tokens, targets in windows]

    def state(self) -> dict[str, Any]:
        """Returns the state at the start of the next window, for the streams of all ranks."""
        return {} if self._state is None else {"state": self._world.whole(self._state, self._batch_size)}

    def load(self, state: dict[str, Any]) -> None:
        """See `state`."""
        streams = self._world.part(self._batch_size)
        self._state = state["state"][streams].to(self._device) if "state" in state else None

    def reward_batch(self, generator: np.random.Generator) -> TextBatch:
        """Windows of valid from random places."""
        window = self._training.window
        return TextBatch(*self._valid.windows(generator, batch_size=self._reward_batch_size, window=window), None)

    def reward_batches(self, generator: np.random.Generator, *, count: int) -> list[TextBatch]:
        """`count` minibatches of windows of valid."""
        return [self.reward_batch(generator) for _ in range(count)]

    @torch.inference_mode()
    def reward(self, network: Network, batches: Sequence[TextBatch]) -> Tensor:
        """reward_constant / perplexity with the shared weights: scalar; 0 if the child's state overflows to nan."""
        with computing(self._device, self._precision):
            nll = torch.cat([network(*batch).nll.flatten() for batch in batches])
        return self._training.reward_constant * torch.exp(-nll.mean()).nan_to_num(nan=0.0)

    def whole_reward(self, network: Network, generator: np.random.Generator, *, half: Half | None = None) -> float:
        """reward_constant / perplexity on all of valid, or a half, with the state carried; 0 as in `reward`."""
        nll = mean_nll(network, self._valid, precision=self._precision, half=half)
        reward = self._training.reward_constant / perplexity_of(nll)
        return 0.0 if math.isnan(reward) else reward

    def chance_reward(self, *, num_batches: int | None = None) -> float:
        """reward_constant / perplexity of predictions by token frequency alone: the counts in train, plus 1 each."""
        seen = np.bincount(self._store.stream("train"), minlength=len(self._store.vocabulary)) + 1
        nll = -np.log(seen / seen.sum())[self._store.stream("valid")].mean()
        return self._training.reward_constant / perplexity_of(float(nll))

    def score(self, network: Network, split: str, *, half: Half | None = None) -> Score:
        """Returns the score on a whole split, or a half, in full float32. The network must be in evaluation mode."""
        text = self._valid if split == "valid" else TokenBatches.load(self._store, split, device=self._device)
        loss = mean_nll(network, text, precision="float32", world=self._world, half=half)
        count = text.num_tokens - 1 if half is None else text.num_tokens // 2
        return Score(perplexity_of(loss), count, loss)


def perplexity(network: Network, text: TokenBatches, *, precision: Precision) -> float:
    """Returns the perplexity of a whole split, see `mean_nll`; infinite if it exceeds a float's range."""
    return perplexity_of(mean_nll(network, text, precision=precision))


def perplexity_of(nll: float) -> float:
    """The perplexity of a mean negative log likelihood in nats."""
    return float(torch.tensor(nll, dtype=torch.float64).exp())


@torch.inference_mode()
def mean_nll(
    network: Network,
    text: TokenBatches,
    *,
    precision: Precision,
    world: World = ALONE,
    half: Half | None = None,
) -> float:
    """Returns the mean negative log likelihood of a split in nats, over the streams of `datasets/streams.py`.

    Each stream starts from the zero state. The ranks divide the streams among themselves. A half is the same half of
    every stream; the second half is read after the first.
    """
    streams = text.evaluation_streams()  # [L, S] each
    if half is not None:
        middle = len(streams[0]) // 2
        counted = slice(0, middle) if half == "first" else slice(middle, None)
        weights = torch.zeros_like(streams[2])
        weights[counted] = streams[2][counted]
        streams = (*streams[:2], weights)
    tokens, targets, weights = (values[:, world.part(values.shape[1])] for values in streams)
    state, total = None, torch.zeros((), dtype=torch.float64, device=tokens.device)
    for start in range(0, len(tokens), _EVALUATION_WINDOW):
        piece = slice(start, start + _EVALUATION_WINDOW)
        with computing(tokens.device, precision):
            scores: Scores = network(tokens[piece], targets[piece], state)
        state = scores.state
        total += (scores.nll * weights[piece]).sum(dtype=torch.float64)
    total, count = world.sum(torch.stack([total, weights.sum(dtype=torch.float64)]))
    return float(total / count)
