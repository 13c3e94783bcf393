"""Random streams named by their purpose.

A stream depends on the run's seed and its name, never on earlier draws: a run resumed at any step draws the same
numbers as the uninterrupted run, with no generator state to save.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream_seed(seed: int, *name: str | int) -> int:
    """A 63-bit seed for the stream `name` of the run `seed`, e.g. `stream_seed(0, "augment", epoch, step)`."""
    digest = hashlib.sha256(repr((seed, *name)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def numpy_generator(seed: int, *name: str | int) -> np.random.Generator:
    """A fresh numpy generator for the stream `name` of the run `seed`."""
    return np.random.default_rng(stream_seed(seed, *name))
