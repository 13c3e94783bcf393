"""A hundred architectures from the controller: in one pass, and one at a time."""

from __future__ import annotations

import torch

from searcher.arch.spaces.micro import MicroSpace
from searcher.controller.policy import LstmPolicy, PolicyConfig
from tests.benchmarks.side_by_side import side_by_side

COUNT = 100


def main() -> None:
    space = MicroSpace()
    policy = LstmPolicy(space.steps(), PolicyConfig(), seed=0)
    generator = torch.Generator().manual_seed(0)

    def draw(batch_size: int) -> None:
        with torch.no_grad():
            for _ in range(COUNT // batch_size):
                rows = policy.sample(batch_size, generator=generator).tokens.tolist()
                for row in rows:
                    space.from_tokens(row)

    side_by_side(
        f"{COUNT} architectures sampled",
        {"one at a time": lambda: draw(1), "in one pass": lambda: draw(COUNT)},
        per_call=COUNT,
        unit="architectures",
    )
