"""Results of two devices, or of other algorithms, compared by norms: single numbers may differ by any factor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

# A tensor that is smaller than this share of all together is compared with that.
_SHARE = 1e-2


def assert_close_in_norm(actual: Any, expected: Any, *, bound: float) -> None:
    """Each tensor's difference is at most `bound` times the norm of what is expected.

    Args: actual, expected: tensors, or sequences or mappings of such, alike in form.
    """
    pairs = list(zip(_tensors(actual), _tensors(expected), strict=True))
    pairs = [(mine.detach().double().cpu(), right.detach().double().cpu()) for mine, right in pairs]
    assert all(mine.shape == right.shape for mine, right in pairs)
    whole = torch.stack([right.norm() for _, right in pairs]).norm()
    for number, (mine, right) in enumerate(pairs):
        difference, norm = (mine - right).norm(), torch.maximum(right.norm(), _SHARE * whole)
        assert difference <= bound * norm, f"tensor {number} of {len(pairs)}: {difference:.3g} of {norm:.3g}"


def _tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
        return
    if isinstance(found, Mapping):
        found = [found[name] for name in sorted(found)]
    for part in found:
        yield from _tensors(part)
