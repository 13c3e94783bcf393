"""How large a picture or a seed may be, and how many threads there may be, for every command alike."""

from __future__ import annotations

MAX_PIXELS = 80_000_000
"""A picture of more is refused before its pixels are read: a small file may unfold to more than the memory holds.

One takes up to 17 bytes a pixel while it is decoded (measured: 13 with transparency, 17 of a TIFF of 16 bits), so 1.4
GB at this limit. Phones and cameras make 12 to 60 million pixels.
"""
MAX_FILE_BYTES = 1 << 29
"""A larger file is no picture of that many pixels."""
MAX_STORED_PIXELS = 1 << 22
"""Of an image of a data set: bringing pictures to 2048×2048 takes 1.7 GB, to 4096×4096 6.7 GB (measured)."""

MAX_THREADS = 1024
"""onnxruntime takes a minute to start as many."""

MAX_SEED = 10**17 - 1
"""A document holds whole numbers of 18 digits: one that is counted on from a seed, as in a comparison, is read, too."""
