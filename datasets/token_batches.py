"""A text on a device, in windows for truncated backpropagation through time.

Nothing is shuffled: an epoch reads the text in order, as parallel streams, so that a carried state continues where the
previous window ended. Tensors are time first.
"""

# N tokens of the split, L targets of a stream, T time steps of a window, B batch, S evaluation streams

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from datasets.store import StoreError, TextStore
from datasets.streams import EVALUATION_STREAMS, split_streams


class TokenBatches:
    """The tokens of one split, handed out in windows on one device."""

    def __init__(self, tokens: Tensor, *, where: str) -> None:
        """tokens: int32 [N]. where: the name of the split in error messages."""
        self.num_tokens = len(tokens)
        self._tokens = tokens
        self._where = where

    @classmethod
    def load(cls, store: TextStore, split: str, *, device: torch.device | str) -> TokenBatches:
        """Load a split onto the device.

        Raises: StoreError: the store has no such split, is damaged, or the split has fewer than 2 tokens.
        """
        tokens = store.stream(split)
        where = f"{store.path}: split '{split}'"
        if len(tokens) < 2:
            raise StoreError(f"{where} has {len(tokens)} token, but at least 2 are needed: give it more text")
        return cls(torch.from_numpy(tokens.astype(np.int32)).to(device), where=where)

    def num_steps(self, batch_size: int, window: int) -> int:
        """Windows in an epoch. Raises: StoreError: as `epoch`."""
        return -(-self._stream_length(batch_size) // window)

    def epoch(self, *, batch_size: int, window: int, start_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole split once, in windows of `batch_size` parallel streams, from step `start_step` on.

        The last window may be shorter; the tail that does not fill all streams is left out.

        Returns: inputs and targets, int64 [T, B] each, a target being the token after its input.
        Raises: StoreError: too few tokens for so many streams.
        """
        length = self._stream_length(batch_size)
        inputs, targets = (
            self._tokens[offset : offset + batch_size * length].view(batch_size, length).t().contiguous()  # [L, B]
            for offset in (0, 1)
        )
        return (
            (inputs[start : start + window].long(), targets[start : start + window].long())
            for start in range(start_step * window, length, window)
        )

    def windows(self, generator: np.random.Generator, *, batch_size: int, window: int) -> tuple[Tensor, Tensor]:
        """Returns `batch_size` windows from random places, all of `window` steps, or fewer if the split is shorter.

        Returns: inputs and targets, int64 [T, B] each.
        """
        length = min(window, self.num_tokens - 1)
        starts = torch.from_numpy(generator.integers(0, self.num_tokens - length, batch_size))  # [B]
        places = (starts + torch.arange(length)[:, None]).to(self._tokens.device)  # [T, B]
        return self._tokens[places].long(), self._tokens[places + 1].long()

    def evaluation_streams(self, num_streams: int = EVALUATION_STREAMS) -> tuple[Tensor, Tensor, Tensor]:
        """Returns streams in which every token but the first is a target once.

        Returns: inputs and targets, int64 [L, S], and weights float32 [L, S], 0 in the padding.
        """
        streams = split_streams(self._tokens.cpu().numpy(), num_streams)
        inputs, targets, weights = (
            torch.from_numpy(values.T.copy()).to(self._tokens.device)
            for values in (streams.inputs, streams.targets, streams.weights)
        )
        return inputs, targets, weights

    def _stream_length(self, batch_size: int) -> int:
        """Targets of each of `batch_size` streams."""
        length = (self.num_tokens - 1) // batch_size
        if length < 1:
            raise StoreError(
                f"{self._where} has {self.num_tokens} tokens, too few for a batch_size of {batch_size} streams of at "
                f"least 2 tokens each: use a batch_size of at most {self.num_tokens - 1}, or more text"
            )
        return length
