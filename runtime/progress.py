"""Progress on stderr: a bar on a terminal, one plain line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(description: str, *, total: float) -> Iterator[Callable[[float], object]]:
    """Yield a function to be told how much more is done, of `total`."""
    if not sys.stderr.isatty():
        print(description, file=sys.stderr, flush=True)
        yield lambda amount: None
        return
    from tqdm import tqdm

    layout = "{desc} {bar} {percentage:3.0f} %, {remaining} left"
    with tqdm(total=total, desc=description, leave=False, bar_format=layout, dynamic_ncols=True) as bar:
        # What takes longer than foreseen must not push the bar past its end.
        yield lambda amount: bar.update(min(amount, total - bar.n))
