"""Batches of images on a device: kept there as bytes, augmented there one batch at a time.

A split that fits the memory budget is on the device as a whole; a larger split streams through a buffer of random
chunks that a thread reads ahead. There is no random state: the order of an epoch and the augmentation of a step are
functions of (seed, epoch, step), drawn on the CPU, so an epoch can start at any step and is the same on every device.
"""

# N images of the split, B batch, H W C an image's height, width and channels, K classes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from datasets.augmentation import Augmentation
from datasets.augmenter import Augmenter
from datasets.store import ImageStore
from foundation.seeds import numpy_generator

DEFAULT_MEMORY_BUDGET_BYTES = 2 << 30


class ImageBatches:
    """The images and labels of one split, handed out in batches on one device."""

    def __init__(
        self, images: _Images, *, labels: Tensor, num_classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.num_images = len(labels)
        self._images = images
        self._labels = labels
        self._num_classes = num_classes
        # One row of an image, [W*C], so that the innermost loop is long even with a single channel.
        width = images.shape[1]
        mean_row, std_row = (torch.tensor(values, dtype=torch.float64).repeat(width) for values in (mean, std))
        self._scale = (1 / (255 * std_row)).float().to(labels.device)  # [W*C]
        self._shift = (-mean_row / std_row).float().to(labels.device)  # [W*C]

    @classmethod
    def load(
        cls,
        store: ImageStore,
        split: str,
        *,
        device: torch.device | str,
        memory_budget_bytes: int = DEFAULT_MEMORY_BUDGET_BYTES,
    ) -> ImageBatches:
        """Load a split onto the device if its pixels fit the budget, else stream it within the budget.

        Raises: StoreError: the store has no such split, or is damaged.
        """
        device = torch.device(device)
        images: _Images
        if store.nbytes(split) <= memory_budget_bytes:
            images = _Resident(torch.from_numpy(store.images(split)).to(device))
        else:
            images = _Streaming(store, split, device=device, memory_budget_bytes=memory_budget_bytes)
        labels = torch.from_numpy(store.labels(split)).to(device)
        return cls(images, labels=labels, num_classes=len(store.classes), mean=store.mean, std=store.std)

    def num_steps(self, batch_size: int, drop_last: bool = False) -> int:
        """Batches in an epoch; the last one may be smaller unless it is dropped."""
        return self.num_images // batch_size if drop_last else -(-self.num_images // batch_size)

    def order(
        self, *, batch_size: int, seed: int, epoch: int, shuffle: bool = True, drop_last: bool = False
    ) -> np.ndarray:
        """The indices of the images [N] in the order in which an epoch shows them."""
        order = self._images.order(numpy_generator(seed, "order", epoch) if shuffle else None, batch_size)
        return order[: self.num_steps(batch_size, drop_last) * batch_size] if drop_last else order

    def epoch(
        self,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        augmentation: Augmentation | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        start_step: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields every image once, in batches; from `start_step` on, the batches are the same as in a whole epoch.

        Returns: images float32 [B, C, H, W], normalised, channels_last; labels int64 [B], or shares of the classes
        float32 [B, K] if the augmentation mixes images.
        """
        order = self.order(batch_size=batch_size, seed=seed, epoch=epoch, shuffle=shuffle, drop_last=drop_last)
        labels = self._labels[torch.from_numpy(order).to(self._labels.device)]
        augmenter = None
        if augmentation is not None:
            augmenter = Augmenter(
                augmentation,
                image_shape=self._images.shape,
                num_classes=self._num_classes,
                batch_size=batch_size,
                count=len(order),
                seed=seed,
                epoch=epoch,
                device=self._labels.device,
            )
        for step, pixels in enumerate(self._images.walk(order, batch_size, start_step), start_step):
            shown = labels[step * batch_size : (step + 1) * batch_size]
            if augmenter is None:
                yield self._normalise(pixels), shown
            else:
                images = augmenter.images(pixels, step, normalise=self._normalise)
                yield augmenter.mixed(images, shown, step)

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """The images of the split at `indices` [B], unaugmented, in the form that `epoch` yields."""
        numbers = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        return self._normalise(self._images.pick(numbers.numpy())), self._labels[numbers.to(self._labels.device)]

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Pixels [B, H, W, C], 0 to 255 -> float32 [B, C, H, W], channels_last: the memory layout is unchanged."""
        rows = pixels.flatten(2)  # [B, H, W*C]
        rows = (rows if rows.is_floating_point() else rows.float()).mul_(self._scale).add_(self._shift)
        return rows.view(pixels.shape).permute(0, 3, 1, 2)


# --- where the pixels are --------------------------------------------------------------------------------------------


class _Images(Protocol):
    """The pixels of one split."""

    shape: tuple[int, int, int]
    """H, W, C."""

    def order(self, generator: np.random.Generator | None, batch_size: int) -> np.ndarray:
        """All image numbers [N] in the order of an epoch of that batch size; without a generator, ascending."""

    def walk(self, order: np.ndarray, batch_size: int, start_step: int) -> Iterator[Tensor]:
        """The images uint8 [B, H, W, C] of each batch of `order`, from `start_step` on."""

    def pick(self, indices: np.ndarray) -> Tensor:
        """The images uint8 [B, H, W, C] at `indices` [B]."""


class _Resident:
    """All pixels on the device."""

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels  # [N, H, W, C]
        _, height, width, channels = pixels.shape
        self.shape = (height, width, channels)

    def order(self, generator: np.random.Generator | None, batch_size: int) -> np.ndarray:
        numbers = np.arange(len(self._pixels))
        return numbers if generator is None else generator.permutation(numbers)

    def walk(self, order: np.ndarray, batch_size: int, start_step: int) -> Iterator[Tensor]:
        numbers = torch.from_numpy(order).to(self._pixels.device)
        for start in range(start_step * batch_size, len(order), batch_size):
            yield self._pixels.index_select(0, numbers[start : start + batch_size])

    def pick(self, indices: np.ndarray) -> Tensor:
        return self._pixels.index_select(0, torch.from_numpy(indices).to(self._pixels.device))


class _Streaming:
    """Pixels in the store's file, read chunk by chunk into a buffer that mixes many chunks.

    The file's chunks are in random order, and all images of one buffer are shuffled together. The next buffer is read
    while one is handed out. The budget covers three buffers: in use, being read, and changing hands.
    """

    def __init__(self, store: ImageStore, split: str, *, device: torch.device, memory_budget_bytes: int) -> None:
        self.shape = store.image_shape
        self._store, self._split, self._device = store, split, device
        self._buffer_length = max(1, memory_budget_bytes // 3 // store.image_nbytes)

    def order(self, generator: np.random.Generator | None, batch_size: int) -> np.ndarray:
        numbers = np.arange(self._store.count(self._split))
        if generator is None:
            return numbers
        chunks = np.split(numbers, range(self._store.chunk_length, len(numbers), self._store.chunk_length))
        order = np.concatenate([chunks[number] for number in generator.permutation(len(chunks))])
        length = self._whole_batches(batch_size)
        for start in range(0, len(order), length):
            generator.shuffle(order[start : start + length])
        return order

    def walk(self, order: np.ndarray, batch_size: int, start_step: int) -> Iterator[Tensor]:
        length = self._whole_batches(batch_size)
        start = start_step * batch_size
        stops = [*range((start // length + 1) * length, len(order), length), len(order)]
        if start >= len(order):
            return
        with ThreadPoolExecutor(max_workers=1) as reader:
            upcoming = reader.submit(self._read, order[start : stops[0]])
            for stop, next_stop in zip(stops, [*stops[1:], None], strict=True):
                buffer = upcoming.result()
                if next_stop is not None:
                    upcoming = reader.submit(self._read, order[stop:next_stop])
                for batch in buffer.split(batch_size):  # type: ignore[no-untyped-call]
                    yield batch.to(self._device)

    def pick(self, indices: np.ndarray) -> Tensor:
        return self._read(indices).to(self._device)

    def _whole_batches(self, batch_size: int) -> int:
        """The buffer's length in images, made of whole batches so that none spans two buffers."""
        return max(1, self._buffer_length // batch_size) * batch_size

    def _read(self, indices: np.ndarray) -> Tensor:
        return torch.from_numpy(self._store.take(self._split, indices))
