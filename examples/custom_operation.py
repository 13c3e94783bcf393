"""The command line with one more operation for micro cells, `dil_conv_3x3`, and searches that use it by default.

    python examples/custom_operation.py search --space micro --run runs/mine
    python examples/custom_operation.py retrain runs/mine
    python examples/custom_operation.py export runs/mine

A spec with the operation can be read only where it is registered, so every command that reads the spec is given by this
file. The exported model needs nothing of it.
"""

from __future__ import annotations

import sys

from torch import Tensor, nn
from torch.nn import functional

from enas import main
from searcher.arch.costs import Cost, Sides, area_of, conv_norm, depthwise, halved
from searcher.arch.operations import CELL_COSTS
from searcher.arch.spaces.micro import PUBLISHED_OPERATIONS
from searcher.nn.kernels.norm import Norm
from searcher.nn.operations import CELL_OPERATIONS

NAME = "dil_conv_3x3"


class DilatedConv(nn.Module):
    """ReLU, depthwise 3×3 convolution of dilation 2, pointwise convolution, norm: [B, C, H, W]."""

    def __init__(self, channels: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, 3, stride=stride, padding=2, dilation=2, groups=channels, bias=False
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(functional.relu(x))))


def cost(sides: Sides, channels: int, *, stride: int) -> Cost:
    """What the operation costs on a map of these sides."""
    area = area_of(halved(sides, stride=stride))
    return depthwise(area, channels, kernel_size=3) + conv_norm(area, channels, channels)


def register() -> None:
    """Add the operation to the tables that every part of the toolchain reads."""
    CELL_COSTS[NAME] = cost
    CELL_OPERATIONS[NAME] = DilatedConv


if __name__ == "__main__":
    register()
    if sys.argv[1:2] == ["search"]:
        names = ", ".join(f'"{name}"' for name in (*PUBLISHED_OPERATIONS, NAME))
        sys.argv += ["--set", f"search_space.operations=[{names}]"]
    main()
