"""A small network, and the plainest settings to train it with."""

from __future__ import annotations

from torch import Tensor, nn

from searcher.training.optimizers.optimizer import SgdConfig

PLAIN = SgdConfig(learning_rate=0.1, final_learning_rate=0.0, weight_decay=0.0, clip_norm=0.0)


class Toy(nn.Module):
    """A linear layer, a norm, and a layer that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)
        self.unused = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x)[:, :, None, None])[:, :, 0, 0]
