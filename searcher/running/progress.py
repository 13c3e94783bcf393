"""Progress of long work: a bar on a terminal, a plain line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm


class Progress:
    """A bar of `total` steps on stderr; on anything but a terminal only the lines given to `line` are printed."""

    def __init__(self, title: str, *, total: int, done: int = 0, unit: str = "step", shown: bool = True) -> None:
        """shown: whether anything is printed."""
        self._shown = shown
        self._title, self._total, self._unit = title, total, unit
        self._tenths = 0  # of the total, reported so far
        self._done = self._done_before = done
        self._started = time.perf_counter()
        self._figures: dict[str, str] = {}
        # disable=None switches the bar off where stderr is not a terminal.
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=title,
            disable=None if shown else True,
            unit=unit,
            smoothing=0.05,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining} {rate_fmt}{postfix}",
        )

    def step(self, **figures: str) -> None:
        """Adds one step; `figures` are shown after the bar until new values are given."""
        self._figures |= figures
        self._bar.set_postfix(self._figures, refresh=False)
        self._bar.update(1)
        self._done += 1

    def reach(self, done: int, **figures: str) -> None:
        """Sets the number of steps done, which may also decrease; without a terminal, prints a line at every tenth."""
        self._figures |= figures
        self._bar.set_postfix(self._figures, refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()
        self._done = done
        if self._bar.disable and 10 * done // self._total > self._tenths:
            self._tenths = 10 * done // self._total
            words = "".join(f", {name} {value}" for name, value in self._figures.items())
            self.line(f"{self._title}: {done} of {self._total} {self._unit}s{words}{self.time_left}")

    def show(self, **figures: str) -> None:
        """Changes figures without a step."""
        self._figures |= figures

    def start_over(self) -> None:
        """Resets the number of steps to 0."""
        self._bar.initial = 0  # it is larger in a resumed run
        self._bar.reset()
        self._done = self._done_before = 0
        self._started = time.perf_counter()

    @property
    def time_left(self) -> str:
        """`, 12 min left`, estimated from the speed so far; empty at the end, and on a terminal: the bar shows it."""
        taken, left = self._done - self._done_before, self._total - self._done
        if not self._bar.disable or taken <= 0 or left <= 0:
            return ""
        seconds = left * (time.perf_counter() - self._started) / taken
        if seconds < 100:
            return f", {seconds:.0f} s left"
        return f", {seconds / 60:.0f} min left" if seconds < 6000 else f", {seconds / 3600:.1f} h left"

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        if not self._shown:
            return
        if self._bar.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
