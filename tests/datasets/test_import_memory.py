"""An import unfolds no more pictures at once than it has threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.foundation import sixteen_bits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

HEIGHT, WIDTH = 2000, 2500
_BYTES_A_PIXEL = 17
"""Of a picture with transparency while it is put on white: RGBA, its alpha, the RGB ground (4 bytes in Pillow), and
what the decoder holds. Of one of 16 bits while both its bytes are held, 8, and then as the other."""
_PROGRAM = """
import pathlib, sys
import enas
sys.argv = ["enas", "data", "import", sys.argv[1], "--name", sys.argv[2], "--size", "16"]
try:
    enas.main()
finally:
    print(pathlib.Path("/proc/self/status").read_text(), file=sys.stderr)
"""
"""VmHWM belongs to this program alone; `ru_maxrss` of a new process begins with the peak of the one that started it."""


def peak_bytes(folder: Path, name: str) -> int:
    """The most memory that a process of its own had while it imported the folder."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM, folder, name], capture_output=True, text=True, check=True)
    return next(1024 * int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("VmHWM"))


def test_memory_at_import_is_bounded_by_the_pictures_that_are_unfolded_at_once(
    tmp_path: Path, data_folder: Path
) -> None:
    large = np.linspace(0, 255, WIDTH).astype(np.uint8)[None, :, None].repeat(HEIGHT, 0).repeat(4, 2)
    small = tmp_path / "small.png"
    Image.fromarray(large[:16, :16]).save(small)
    Image.fromarray(large).save(tmp_path / "large.png", compress_level=1)
    files = {kind: (tmp_path / f"{kind}.png").read_bytes() for kind in ("small", "large")}
    deep = sixteen_bits.png(large.astype(np.uint16) << 4)
    for kind in files:
        for number in range(8):
            data = deep if kind == "large" and number >= 4 else files[kind]
            path = tmp_path / kind / f"class-{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data + bytes([number]))  # no two files alike
    base, peak = peak_bytes(tmp_path / "small", "small"), peak_bytes(tmp_path / "large", "large")
    num_threads = min(len(os.sched_getaffinity(0)), 8)
    assert peak - base < num_threads * HEIGHT * WIDTH * _BYTES_A_PIXEL
    assert peak - base > HEIGHT * WIDTH  # what was measured is the pictures
    print(f"{(peak - base) / num_threads / HEIGHT / WIDTH:.1f} bytes a pixel and thread")
