"""A module to record and replay, with its weights and their gradients in few pieces of memory."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Sequence

from torch import Tensor, nn

from searcher.nn.flat import Pieces, lay_flat, views_of

_GRADIENT_OF = operator.attrgetter("grad")


class Part:
    """A module to replay, with its constant properties.

    Its weights may be views of any memory, and may move; replays are faster the fewer pieces of memory the weights and
    their gradients occupy.

    Args: place: its place in the network; a pass may use only one part of a place. build: equal for modules that
    differ only in their weights. shared: whether parts of its place and build share a recording, to which the weights
    are copied, instead of being read in place. Gradients of a shared part's weights are added to their `grad` directly,
    or stay in the recording's memory; gradients of other parts go through autograd, which calls its hooks. A shared
    part computes the same in training and in evaluation.
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
        """The weights that autograd sees: for a shared part any one, so that there is a gradient to compute."""
        if shared:
            lay_flat(self.weights)
        self._weight_pieces, self._gradient_pieces = Pieces(), Pieces()

    @property
    def size(self) -> int:
        """Numbers in all weights."""
        return sum(weight.numel() for weight in self.weights)

    def pieces(self) -> list[Tensor]:
        """The weights, in order, as few vectors."""
        return self._weight_pieces.of(self.weights)

    def add_gradient(self, vector: Tensor, views: Sequence[Tensor]) -> bool:
        """Add gradients to the weights' gradients.

        Args: vector: the gradients to add, in the weights' order. views: views of it in the weights' shapes.
        Returns: whether the weights had no gradients and now have the views themselves; `keep_gradient` must then be
        called before the vector changes.
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
        """Copy each weight's gradient that is still a view of the vector to memory of its own."""
        if any(map(operator.is_, map(_GRADIENT_OF, self.weights), views)):
            for weight, view, kept in zip(self.weights, views, views_of(vector.clone(), self.weights), strict=True):
                if weight.grad is view:
                    weight.grad = kept
