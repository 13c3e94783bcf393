"""A module that is to be recorded and replayed, with its weights and their gradients in few pieces of memory."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Sequence

from torch import Tensor, nn

from searcher.nn.flat import Pieces, lay_flat, views_of

_GRADIENT_OF = operator.attrgetter("grad")


class Part:
    """A module that is to be replayed, with what does not change about it.

    Its weights may be views of any memory, and move; the fewer pieces they and their gradients lie in, the
    faster it is.

    Args: place: where in its network it is; a pass may use one part of a place only. build: the same for modules that
    differ in nothing but weights. shared: whether parts of its place and build share a recording, to which the weights
    are copied, rather than being read where they are. Gradients of such a part's weights are added to their `grad`
    directly, or lie where the recording leaves them; those of another go through autograd, which has hooks for whoever
    wants to know. A shared part computes the same in training and in evaluation.
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

    @property
    def size(self) -> int:
        """Numbers in all weights."""
        return sum(weight.numel() for weight in self.weights)

    def pieces(self) -> list[Tensor]:
        """The weights as few vectors, to be read one behind the other."""
        return self._weight_pieces.of(self.weights)

    def add_gradient(self, vector: Tensor, views: Sequence[Tensor]) -> bool:
        """Add a gradient to the weights': a vector, one behind the other, and its views in their shapes.

        Returns: whether they had none, and have the views themselves now; before the vector changes, they are to be
        kept.
        """
        found = list(map(_GRADIENT_OF, self.weights))
        there = [gradient for gradient in found if gradient is not None]
        if not there:
            for weight, view in zip(self.weights, views, strict=True):
                weight.grad = view
        elif len(there) == len(found):
            pieces = self._gradient_pieces.of(there)
            for piece, new in zip(pieces, vector.split(self._gradient_pieces.sizes), strict=True):
                piece.add_(new)
        else:
            for weight, new in zip(self.weights, views, strict=True):
                weight.grad = new.clone() if weight.grad is None else weight.grad.add_(new)
        return not there

    def keep_gradient(self, vector: Tensor, views: Sequence[Tensor]) -> None:
        """Let the weights whose gradient is one of the vector's views have it in memory of their own."""
        if any(map(operator.is_, map(_GRADIENT_OF, self.weights), views)):
            for weight, view, kept in zip(self.weights, views, views_of(vector.clone(), self.weights), strict=True):
                if weight.grad is view:
                    weight.grad = kept
