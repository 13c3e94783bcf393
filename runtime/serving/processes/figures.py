"""Metrics of several processes as one: each process keeps its own in memory that all of them read.

The supervisor creates a slot for every worker, and passes all slots to each worker. A slot is memory without a name in
any file system, so it cannot be removed; it is filled before use, so memory cannot run out later. The replacement of a
worker that died continues counting in the same slot. prometheus_client stores its values here (`value_class`), and
every worker reports the sum over all slots, or the highest value.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import reduction
from threading import Lock
from typing import Any

_SIZE = 2**20
_USED = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
_VALUE = struct.Struct("<d")
_LIVE = "livesum"


class Slot:
    """One worker's metrics: the number of bytes used, then entries of a key's length, the key, and its value."""

    def __init__(self, file: int) -> None:
        """Args: file: descriptor of a file with `_SIZE` allocated bytes."""
        self._file = file
        self._memory = mmap.mmap(file, _SIZE)
        self._places: dict[str, int] = {}
        self._read_to = _USED.size
        self._lock = Lock()

    @classmethod
    def reserve(cls) -> Slot:
        """Allocate a slot. Raises: OSError: there is not enough memory."""
        file = os.memfd_create("enas-figures") if hasattr(os, "memfd_create") else _unnamed()
        left = memoryview(_USED.pack(_USED.size) + bytes(_SIZE - _USED.size))
        while left:
            left = left[os.write(file, left) :]
        return cls(file)

    def __reduce__(self) -> tuple[Callable[[Any], Slot], tuple[Any]]:
        """Pickle it for a process that is being started."""
        return _attach, (reduction.DupFd(self._file),)

    def places(self) -> dict[str, int]:
        """Key -> offset of its value, including keys that the slot's worker has added since the last call."""
        with self._lock:
            (used,) = _USED.unpack_from(self._memory, 0)
            while self._read_to < used:
                (length,) = _LENGTH.unpack_from(self._memory, self._read_to)
                start = self._read_to + _LENGTH.size
                self._places[self._memory[start : start + length].decode().rstrip()] = start + length
                self._read_to = start + length + _VALUE.size
            return self._places

    def add(self, key: str) -> int | None:
        """Add a key and return the offset of its value; None if the slot is full. Only for the slot's own worker."""
        if (place := self.places().get(key)) is not None:
            return place
        data = key.encode()
        # Values are aligned to their size, so that no reader sees a partly written value.
        data += b" " * (-(_LENGTH.size + len(data)) % _VALUE.size)
        start = self._read_to
        end = start + _LENGTH.size + len(data) + _VALUE.size
        if end > _SIZE:
            return None
        self._memory[start:end] = _LENGTH.pack(len(data)) + data + _VALUE.pack(0.0)
        _USED.pack_into(self._memory, 0, end)
        return self.places()[key]

    def read(self, place: int) -> float:
        return float(_VALUE.unpack_from(self._memory, place)[0])

    def write(self, place: int, value: float) -> None:
        _VALUE.pack_into(self._memory, place, value)

    def forget_what_is_under_way(self) -> None:
        """Reset the gauges of open requests: the slot's worker died, and its requests with it."""
        for key, place in self.places().items():
            if _LIVE in json.loads(key):
                self.write(place, 0.0)


def _attach(file: Any) -> Slot:
    return Slot(file.detach())


def _unnamed() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Figures:
    """All slots, as one worker sees them."""

    def __init__(self, slots: Sequence[Slot], own: int) -> None:
        self.slots = slots
        self.own = slots[own]

    def labels(self) -> Iterator[tuple[str, list[str]]]:
        """Name and label values of every metric that any worker has."""
        seen = set()
        for slot in self.slots:
            for key in list(slot.places()):
                metric, _, names, values, _ = json.loads(key)
                # A histogram's buckets differ in the label `le`, which is not one of the metric's own.
                labels = [value for name, value in zip(names, values, strict=True) if name != "le"]
                if (found := (metric, *labels)) not in seen:
                    seen.add(found)
                    yield metric, labels

    def value_class(self) -> type:
        """The class of prometheus_client's stored numbers; see `prometheus_client.values.MutexValue`."""
        figures = self

        class Value:
            _multiprocess = False

            def __init__(self, _: str, *of: Any, multiprocess_mode: str = "", **__: Any) -> None:
                """Args: of: the metric, the number's own name, its labels' names and values, and a help text."""
                self._key = json.dumps([*of[:-1], multiprocess_mode])
                self._together = max if multiprocess_mode == "max" else sum
                self._lock = Lock()
                with _ADDING:
                    self._place = figures.own.add(self._key)
                self._value = 0.0 if self._place is None else figures.own.read(self._place)

            def inc(self, amount: float) -> None:
                with self._lock:
                    self._set(self._value + amount)

            def set(self, value: float, timestamp: float | None = None) -> None:
                with self._lock:
                    self._set(value)

            def get(self) -> float:
                slots = [(slot, slot.places().get(self._key)) for slot in figures.slots]
                values = [slot.read(place) for slot, place in slots if place is not None]
                return self._together([*values, self._value] if self._place is None else values)

            def _set(self, value: float) -> None:
                self._value = value
                # If the slot is full, only this worker reports the value.
                if self._place is not None:
                    figures.own.write(self._place, value)

            def get_exemplar(self) -> None:
                return None

            def set_exemplar(self, exemplar: object) -> None:
                pass

        return Value


_ADDING = Lock()
