"""A store's images for training and for validation, within one memory budget."""

from __future__ import annotations

import torch

from datasets.batches import ImageBatches
from datasets.store import ImageStore

_VALID_SHARE = 4


def load_train_and_valid(
    store: ImageStore, train_split: str, *, device: torch.device, memory_budget_mb: int
) -> tuple[ImageBatches, ImageBatches]:
    """The split to train on and `valid`; whichever does not fit its share of the budget streams from the store.

    Raises: StoreError: the store has no such split, or is damaged.
    """
    budget = memory_budget_mb << 20
    for_valid = min(store.nbytes("valid"), budget // _VALID_SHARE)
    return (
        ImageBatches.load(store, train_split, device=device, memory_budget_bytes=budget - for_valid),
        ImageBatches.load(store, "valid", device=device, memory_budget_bytes=max(for_valid, 1)),
    )
