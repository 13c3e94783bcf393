"""Random streams named by what they are for.

A stream is a function of the run's seed and a name, never of what was drawn before it: a run resumed at any step draws
what the uninterrupted run would have drawn, with no generator state to save.
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
