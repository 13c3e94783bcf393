"""Places tensors one behind the other in memory, and reads such tensors as few vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def lay_flat(weights: Sequence[nn.Parameter]) -> None:
    """Make parameters of one dtype and device views of one vector, with unchanged shapes and strides.

    If any of them is already a view of a larger tensor, all stay where they are: other code relies on that memory.
    """
    if any(weight.untyped_storage().nbytes() != weight.nbytes for weight in weights):
        return
    vector = weights[0].new_empty(sum(weight.numel() for weight in weights))
    for weight, view in zip(weights, views_of(vector, weights), strict=True):
        view.copy_(weight)
        weight.data = view


def views_of(vector: Tensor, likes: Sequence[Tensor]) -> list[Tensor]:
    """Consecutive views of a vector [sum of n], with the shapes and strides of tensors of n numbers without gaps.

    Strides are copied exactly, because libraries choose kernels by them even where they do not affect the layout.
    """
    views, offset = [], vector.storage_offset()
    for like in likes:
        views.append(vector.as_strided(like.shape, like.stride(), offset))
        offset += like.numel()
    return views


def addresses(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """The memory addresses of tensors."""
    return tuple([tensor.data_ptr() for tensor in tensors])


class Pieces:
    """Reads tensors without gaps as vectors [n], one for each run of tensors that directly follow one another.

    The vectors are computed again if the tensors have moved.
    """

    def __init__(self) -> None:
        self._where: tuple[int, ...] = ()
        self._vectors: list[Tensor] = []
        self.sizes: list[int] = []
        """Elements of each vector."""

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
