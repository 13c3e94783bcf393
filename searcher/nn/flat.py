"""Tensors that lie one behind the other in memory: made so, and read as few vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def lay_flat(weights: Sequence[nn.Parameter]) -> None:
    """Let parameters be views of one vector, with their shapes and strides; they are of one type, on one device.

    Where any of them is a view of something larger already, all are left as they lie: somebody else relies on it.
    """
    if any(weight.untyped_storage().nbytes() != weight.nbytes for weight in weights):
        return
    vector = weights[0].new_empty(sum(weight.numel() for weight in weights))
    for weight, view in zip(weights, views_of(vector, weights), strict=True):
        view.copy_(weight)
        weight.data = view


def views_of(vector: Tensor, likes: Sequence[Tensor]) -> list[Tensor]:
    """Views of [sum of n], one behind the other, with the shapes and strides of tensors of n numbers without gaps.

    Strides are kept to the letter, for libraries choose by them even where they do not matter.
    """
    views, offset = [], vector.storage_offset()
    for like in likes:
        views.append(vector.as_strided(like.shape, like.stride(), offset))
        offset += like.numel()
    return views


def addresses(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Where tensors lie."""
    return tuple([tensor.data_ptr() for tensor in tensors])


class Pieces:
    """Tensors without gaps as vectors, one for those that lie directly behind one another: [n] each.

    It looks for them again once the tensors have moved, so it may outlive that.
    """

    def __init__(self) -> None:
        self._where: tuple[int, ...] = ()
        self._vectors: list[Tensor] = []
        self.sizes: list[int] = []
        """Of the vectors."""

    def of(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The vectors, detached."""
        where = addresses(tensors)
        if where != self._where:
            self._vectors = list(_vectors(tensors))
            self._where, self.sizes = where, [vector.numel() for vector in self._vectors]
        return self._vectors


def _vectors(tensors: Sequence[Tensor]) -> list[Tensor]:
    runs: list[list[Tensor]] = []
    for tensor in tensors:
        last = runs[-1][-1] if runs else None
        follows = (
            last is not None
            and tensor.untyped_storage().data_ptr() == last.untyped_storage().data_ptr()
            and tensor.storage_offset() == last.storage_offset() + last.numel()
        )
        if follows:
            runs[-1].append(tensor)
        else:
            runs.append([tensor])
    return [
        run[0].detach().as_strided((sum(tensor.numel() for tensor in run),), (1,), run[0].storage_offset())
        for run in runs
    ]
