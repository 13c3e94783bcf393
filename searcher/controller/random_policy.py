"""The control: a policy that draws every decision uniformly and never learns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from searcher.arch.decisions import Step, option_counts
from searcher.controller.policy import Sample


class RandomPolicy:
    """Uniform over every decision of a sequence of steps; can replace `LstmPolicy` anywhere."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._num_options = torch.tensor(option_counts(steps))  # [T]

    def sample(self, batch_size: int, *, generator: torch.Generator) -> Sample:
        """Draw `batch_size` architectures. See `Sample` for shapes and units."""
        uniforms = torch.rand(batch_size, len(self._num_options), generator=generator, dtype=torch.float64)
        return self.score((uniforms * self._num_options).long())

    def score(self, tokens: Tensor) -> Sample:
        """log_prob and entropy of given architectures, tokens [B, T]."""
        entropy = torch.full((len(tokens),), sum(math.log(n) for n in self._num_options.tolist()))
        return Sample(tokens, -entropy, entropy)
