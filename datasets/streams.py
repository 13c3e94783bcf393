"""Cuts one flat stream of tokens into parallel streams, which a recurrent model reads side by side."""

# N tokens, S streams, L targets of a stream

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.store import StoreError

EVALUATION_STREAMS = 32
"""Number of streams over which perplexity is measured; each starts from the zero state and carries its state. The
number determines how often text is read without its past, so it is the same for every perplexity that we report."""


@dataclass(frozen=True)
class Streams:
    """Parallel streams: the input at a place is the token before the target at that place."""

    inputs: np.ndarray
    """int64 [S, L]."""
    targets: np.ndarray
    """int64 [S, L]; every token but the first of the flat stream, once, in order."""
    weights: np.ndarray
    """float32 [S, L], 1 where a target counts, 0 in the padding that ends the last streams."""


def split_streams(tokens: np.ndarray, num_streams: int) -> Streams:
    """Cut tokens [N] into `num_streams` streams, or into N - 1 streams if there are fewer targets than `num_streams`.

    Raises: StoreError: fewer than 2 tokens.
    """
    num_targets = len(tokens) - 1
    if num_targets < 1:
        raise StoreError(f"a text of {len(tokens)} tokens: at least 2 are needed, one to read and one to predict")
    num_streams = min(num_streams, num_targets)
    length = -(-num_targets // num_streams)

    def cut(values: np.ndarray, dtype: type) -> np.ndarray:
        """[N - 1] -> [S, L], padded with zeros."""
        padding = num_streams * length - num_targets
        return np.pad(values.astype(dtype), (0, padding)).reshape(num_streams, length)

    return Streams(
        inputs=cut(tokens[:-1], np.int64),
        targets=cut(tokens[1:], np.int64),
        weights=cut(np.ones(num_targets), np.float32),
    )
