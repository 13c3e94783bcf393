"""A module that is to be recorded and replayed, with its weights and their gradients in few pieces of memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from searcher.nn.flat import Pieces, lay_flat, views_of


class Part:
    """A module that is to be replayed, with what does not change about it.

    Its weights may be views of any memory, and move; the fewer pieces they and their gradients lie in, the
    faster it is.

    Args: place: where in its network it is; a pass may use one part of a place only. build: the same for modules that
    differ in nothing but weights. shared: whether parts of its place and build share a recording, to which the weights
    are copied, rather than being read where they are. Gradients of such a part's weights are added to their `grad`
    directly, in memory that the part uses again at the next pass; those of another go through autograd, which has hooks
    for whoever wants to know. A shared part computes the same in training and in evaluation.
    """

    def __init__(self, module: nn.Module, *, place: Hashable, build: str = "", shared: bool = True) -> None:
        self.module = module
        self.place = place
        self.build = build
        self.shared = shared
        named = dict(module.named_parameters())
        self.names = tuple(named)
        self.weights = tuple(named.values())
        self.seen = self.weights[:1] if shared else self.weights
        """What autograd is told of: for a shared part any weight, so that there is a gradient to compute."""
        if shared:
            lay_flat(self.weights)
        self._weight_pieces, self._gradient_pieces = Pieces(), Pieces()
        self._gradient: Tensor | None = None
        self._gradient_views: list[Tensor] = []

    @property
    def size(self) -> int:
        """Numbers in all weights."""
        return sum(weight.numel() for weight in self.weights)

    def copy_weights(self, vector: Tensor) -> None:
        """Copy the weights to [size], one behind the other."""
        pieces = self._weight_pieces.of(self.weights)
        _copy(vector, pieces, self._weight_pieces.sizes)

    def add_gradient(self, vector: Tensor) -> None:
        """Add to the weights' gradients what lies in [size] as `copy_weights` copies."""
        if self._gradient is None or self._gradient.device != vector.device:
            self._gradient = torch.empty_like(vector)
            self._gradient_views = views_of(self._gradient, self.weights)
        found = [weight.grad for weight in self.weights]
        there = [gradient for gradient in found if gradient is not None]
        if not there:
            self._gradient.copy_(vector)
            for weight, view in zip(self.weights, self._gradient_views, strict=True):
                weight.grad = view
        elif len(there) == len(found):
            pieces = self._gradient_pieces.of(there)
            for piece, new in zip(pieces, vector.split(self._gradient_pieces.sizes), strict=True):
                piece.add_(new)
        else:
            for weight, new in zip(self.weights, views_of(vector, self.weights), strict=True):
                weight.grad = new.clone() if weight.grad is None else weight.grad.add_(new)


def _copy(vector: Tensor, pieces: Sequence[Tensor], sizes: list[int]) -> None:
    """Put pieces one behind the other."""
    if len(pieces) == 1:
        vector.copy_(pieces[0])
        return
    for mine, piece in zip(vector.split(sizes), pieces, strict=True):
        mine.copy_(piece)
