"""Makes the latency table of a space on this machine: measures every fused block, then whole networks to fit on.

Rows are saved after each group of blocks, so that an interrupted profile resumes where it stopped. Only the whole
networks at its end are measured all together, since they are compared with each other.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from datasets.catalog import data_folder
from exporter.latency.measure import Effort, Latencies, Untrained, measure, onnx_of
from exporter.latency.probes import frame, frame_key, probe
from foundation.document import DocumentError, Problems, read_json, write_dataclass
from foundation.files import write_text
from foundation.machine import Machine
from foundation.seeds import stream_seed
from foundation.statistics import Interval
from runtime.models.ort import onnxruntime
from searcher.arch.spec import Spec
from searcher.arch.tasks import ImageClassification
from searcher.latency.blocks import Block, blocks_of_space
from searcher.latency.references import references_of
from searcher.latency.table import (
    LatencyTable,
    Row,
    Setting,
    check_setting,
    fit_networks,
    read_rows,
    read_table,
    write_rows,
)
from searcher.running.progress import Progress
from searcher.running.run_folder import lock_file

# A row's error is one of many in a network's sum, so many rows measured fast are better than few measured carefully.
_ROWS = Effort(seconds=0.02, sittings=2)
_NETWORKS = Effort(seconds=0.06, sittings=3)
_GROUP = 40
_FITTED, _HELD_OUT = 40, 30
_TRIES_WHEN_NOISY = 2
_LONGEST_PROFILE_S = 3600.0


@dataclass(frozen=True)
class Profiled:
    """The subject of a latency table."""

    space_name: str
    space: Any
    network: Any
    """The size of the deployed networks."""
    task: ImageClassification


def setting_here(*, batch: int, threads: int) -> Setting:
    """Returns the setting of this machine's CPU and the installed onnxruntime."""
    return Setting(
        cpu=Machine.inspect().cpu, provider="cpu", onnxruntime=onnxruntime.__version__, threads=threads, batch=batch
    )


def table_path(profiled: Profiled, setting: Setting) -> Path:
    """Returns the path of a space's table in the data folder, for this setting."""
    what = (
        profiled.space_name,
        write_dataclass(profiled.space),
        write_dataclass(profiled.network),
        profiled.task.input_shape,
        len(profiled.task.classes),
        asdict(setting),
    )
    digest = hashlib.sha256(repr(what).encode()).hexdigest()[:12]
    return data_folder() / "latency" / f"{profiled.space_name}-{digest}.json"


def table_here(profiled: Profiled, *, batch: int, threads: int, log: Callable[[str], None]) -> LatencyTable:
    """Returns this machine's table of a space: reads it if it exists, else makes it, which takes about a minute.

    Raises: as `profile` and `read_table`.
    """
    setting = setting_here(batch=batch, threads=threads)
    path = table_path(profiled, setting)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One of several processes measures, and the others wait for its table.
    with closing(lock_file(path.with_suffix(".lock"), wait_s=_LONGEST_PROFILE_S)):
        if path.exists():
            table = read_table(path)
            check_setting(table, setting, source=str(path))
        else:
            log(f"measuring, once for this machine, what the blocks of the space {profiled.space_name} take: {path}")
            table = profile(profiled, setting=setting, path=path, log=log)
    if table.is_noisy:
        log(
            f"{path} was measured while other work ran, so its times may be too long, and targets that are a part of a "
            "known network's time, too; once the machine is quiet, remove it to have it measured anew"
        )
    return table


def profile(profiled: Profiled, *, setting: Setting, path: Path, log: Callable[[str], None]) -> LatencyTable:
    """Measures a space's blocks and networks, or the rest of them, and writes the table to `path`.

    Raises: BenchmarkError: a network cannot be run. KeyboardInterrupt: the saved rows are kept.
    """
    blocks = blocks_of_space(profiled.space_name, profiled.space, profiled.network, profiled.task)
    specs = list(_networks(profiled, count=_FITTED + _HELD_OUT))
    references = references_of(profiled.space_name, profiled.space, profiled.task)
    partial = _Partial(path.with_name(path.name + ".part"), setting, log=log)
    sittings = _Sittings(setting, log)
    rows = partial.rows
    missing = [block for block in blocks if block not in rows]
    total = len(blocks) + len(specs)
    with Progress("profile", total=total, done=len(rows), unit="network") as progress:
        for group in _groups(missing):
            found = _measure_rows(profiled.space_name, group, sittings)
            partial.is_noisy |= sittings.were_noisy
            rows.update(found)
            partial.write()
            progress.reach(len(rows))
        files = [onnx_of(spec) for spec in (*specs, *references.values())]
        measured = sittings.measure(files, _NETWORKS)
        progress.reach(total)
    times = [estimate.value for estimate in measured.ms]
    fit = fit_networks(rows, specs, times[: len(specs)], held_out=_HELD_OUT)
    table = LatencyTable(
        space=profiled.space_name,
        setting=setting,
        rows=dict(rows),
        fit=fit,
        references=dict(zip(references, times[len(specs) :], strict=True)),
        is_noisy=partial.is_noisy or sittings.were_noisy,
    )
    table.write(path)
    partial.path.unlink(missing_ok=True)
    return read_table(path)


def _measure_rows(space: str, blocks: Sequence[Block], sittings: _Sittings) -> list[tuple[Block, Row]]:
    """Returns the time that each block adds to its frame, measured together; at least 0."""
    frames = {frame_key(block): frame(block) for block in blocks}
    networks: list[Untrained] = [*frames.values(), *(probe(space, block) for block in blocks)]
    measured = sittings.measure(networks, _ROWS)
    bare = dict(zip(frames, measured.ms, strict=False))
    rows = []
    for block, estimate in zip(blocks, measured.ms[len(frames) :], strict=True):
        base = bare[frame_key(block)].value
        interval = estimate.interval or Interval(estimate.value, estimate.value)
        times = (estimate.value - base, interval.low - base, interval.high - base)
        rows.append((block, Row(*(max(ms, 0.0) for ms in times))))
    return rows


@dataclass
class _Sittings:
    """The measurements of one table. If the machine was noisy, one is repeated, and the last counts."""

    setting: Setting
    log: Callable[[str], None]
    were_noisy: bool = False
    """Whether a measurement that counts was noisy."""
    _is_told: bool = False

    def measure(self, networks: Sequence[Untrained | bytes], effort: Effort) -> Latencies:
        for _ in range(_TRIES_WHEN_NOISY):
            found = measure(networks, batch=self.setting.batch, threads=self.setting.threads, effort=effort)
            if not found.disturbances:
                return found
            if not self._is_told:  # once: there are dozens of sittings
                self.log(
                    f"the machine is noisy: {'; '.join(found.disturbances)} - what is measured so is measured again"
                )
            self._is_told = True
        self.were_noisy = True
        return found


def _networks(profiled: Profiled, *, count: int) -> Iterator[Spec]:
    """Yields random networks of the space."""
    rng = random.Random(stream_seed(0, "latency", "networks"))
    for architecture in islice(iter(lambda: profiled.space.random(rng), None), count):
        yield Spec(profiled.space_name, architecture, profiled.network, profiled.task)


def _groups(blocks: Sequence[Block]) -> Iterator[Sequence[Block]]:
    for start in range(0, len(blocks), _GROUP):
        yield blocks[start : start + _GROUP]


class _Partial:
    """The rows of an unfinished table, in a file beside it; rows of another setting and damaged files are dropped."""

    def __init__(self, path: Path, setting: Setting, *, log: Callable[[str], None]) -> None:
        self.path = path
        self._setting = asdict(setting)
        self.rows: dict[Block, Row] = {}
        self.is_noisy = False
        """Whether rows were measured on a noisy machine."""
        if not path.exists():
            return
        problems = Problems(str(path))
        try:
            match read_json(path):
                case {"setting": found, "is_noisy": bool(is_noisy), "rows": rows}:
                    if found == self._setting:
                        self.rows, self.is_noisy = read_rows(rows, problems), is_noisy
                case _:
                    problems.add("expected a setting, whether it is noisy, and rows")
            problems.raise_if_any()
        except DocumentError as error:
            self.rows, self.is_noisy = {}, False
            log(f"{path} is damaged ({error.problems[0]}): what it held is measured anew")

    def write(self) -> None:
        document = {"setting": self._setting, "is_noisy": self.is_noisy, "rows": write_rows(self.rows)}
        write_text(self.path, json.dumps(document) + "\n")
