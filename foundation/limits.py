"""Limits that all commands share: the size of a picture, the number of threads, the value of a seed."""

from __future__ import annotations

MAX_PIXELS = 80_000_000
"""A larger picture is refused before its pixels are read: a small file may need more than the memory when decoded.

Decoding takes up to 17 bytes a pixel (measured: 13 with transparency, 17 for a TIFF of 16 bits), so 1.4 GB at this
limit. Pictures of phones and cameras have 12 to 60 million pixels.
"""
MAX_FILE_BYTES = 1 << 29
"""A larger file is not a picture of at most MAX_PIXELS."""
MAX_STORED_PIXELS = 1 << 22
"""Limit for an image of a data set: resizing pictures to 2048×2048 takes 1.7 GB, to 4096×4096 6.7 GB (measured)."""

MAX_THREADS = 1024
"""onnxruntime takes a minute to start this many."""

MAX_SEED = 10**17 - 1
"""Documents allow integers of 18 digits, which leaves room for seeds counted up from this one, as in a comparison."""
