"""Chooses the networks of a comparison: the one a run has found, random ones of its space, and known ones.

All have the same latency, which means: measured in onnxruntime, within 3 % of the found network's. A known network that
has no such width may take up to a tenth longer, which favours it.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from exporter.latency.measure import CAREFUL, measure
from exporter.latency.scaling import TOLERANCE, Fitted, Shares, fit_widths, shares_of
from foundation.document import read_json
from foundation.seeds import stream_seed
from foundation.statistics import Estimate, Interval
from searcher.arch.catalog import find_spec, published_names, published_spec
from searcher.arch.errors import ArchitectureError
from searcher.arch.retarget import retarget, with_stem_stride
from searcher.arch.space import Space
from searcher.arch.spec import Spec, parse_spec
from searcher.arch.stems import STEM_STRIDES, stem_stride
from searcher.arch.tasks import Task, image_size_of
from searcher.presets.catalog import search_preset
from searcher.running.run_folder import RunError, RunFolder, read_config, read_toml
from searcher.training.search_config import SearchConfig, config_types

Kind = Literal["found", "random", "reference"]
_REFERENCE_SPACE = "stages"
# Random architectures drawn for each one wanted: at a time, since not all have a width that fits, and in total.
_DRAWS_AT_A_TIME = 1.5
_DRAWS_PER_NETWORK = 12
# A known network without a width of equal latency may take this much longer, relative to the found one.
_LONGER = 0.1

Log = Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    name: str
    kind: Kind
    spec: Spec
    latency_ms: Estimate
    ratio: Estimate
    """Its latency divided by the found network's, round by round."""


@dataclass(frozen=True)
class LeftOut:
    """A network that is left out, and why."""

    name: str
    kind: Kind
    reason: str


@dataclass(frozen=True)
class Field:
    """The networks of a comparison, the found one first, and those left out."""

    contenders: tuple[Contender, ...]
    left_out: tuple[LeftOut, ...]
    disturbances: tuple[str, ...]
    """Why their latencies may be inaccurate."""
    cpu: str


def choose(
    spec: Spec,
    *,
    task: Task,
    space: Space,
    num_random: int,
    references: Sequence[tuple[str, Spec]],
    batch: int,
    threads: int,
    seed: int,
    log: Log,
) -> Field:
    """Fit the widths of all networks to the found one's latency, then measure those that match it in one sitting.

    Args: spec: of the found network. task: the task that all are re-targeted to. space: the space that random networks
    are drawn from. batch, threads: of the latencies. seed: of the draws.
    Raises: BenchmarkError: the found network cannot be run.
    """
    found = retarget(spec, task)
    left_out: list[LeftOut] = []
    chosen: list[tuple[str, Kind, Spec]] = [("found", "found", found)]
    if num_random:
        log(f"drawing {num_random} random networks as fast as the one found")
        drawn = _draw(spec, space, num_random, task=task, batch=batch, threads=threads, seed=seed)
        chosen += [(f"random {number}", "random", spec) for number, spec in enumerate(drawn, start=1)]
        if len(drawn) < num_random:
            reason = f"of {_DRAWS_PER_NETWORK * num_random} draws only {len(drawn)} can be made as fast"
            left_out.append(LeftOut(f"{num_random - len(drawn)} of {num_random} random networks", "random", reason))
    if references:
        log(f"fitting the widths of {', '.join(name for name, _ in references)}")
        shares = shares_of(found, batch=batch, threads=threads)
        fits = _fitted_or_longer([spec for _, spec in references], shares=shares)
        for (name, _), fit in zip(references, fits, strict=True):
            if _is_fair_reference(fit.ratio):
                chosen.append((name, "reference", fit.spec))
            else:
                left_out.append(LeftOut(name, "reference", _cannot(fit, "reference")))
    log(f"measuring {len(chosen)} networks in one sitting")
    latencies = measure([spec for *_, spec in chosen], batch=batch, threads=threads, effort=CAREFUL)
    contenders = []
    for (name, kind, spec), ms, ratio in zip(chosen, latencies.ms, latencies.ratios, strict=True):
        if _is_clearly_off(ratio, kind):
            left_out.append(LeftOut(name, kind, _cannot(Fitted(spec, ratio.value), kind)))
        else:
            contenders.append(Contender(name, kind, spec, ms, ratio))
    return Field(tuple(contenders), tuple(left_out), latencies.disturbances, latencies.machine.cpu)


def known_references(names: Sequence[str], *, like: Spec) -> list[tuple[str, Spec]]:
    """Known networks for the images of a spec, each with its label. A published one of the space for deployment comes
    with two stems, see `_stem_strides`: which is better at a latency depends on the data.

    Args: names: of published networks, files or runs, where an existing path takes precedence; empty: all published
    networks of the space for deployment.
    Raises: ArchitectureError: there is no such spec, or it is not for images.
    """
    published = [name for name in published_names() if published_spec(name).space == _REFERENCE_SPACE]
    wanted = names or published
    found: list[tuple[str, Spec]] = []
    for name, label in zip(wanted, _labels(wanted), strict=True):
        is_published = name in published and not (names and Path(name).exists())
        known = published_spec(name) if is_published else find_spec(Path(name))
        spec = _for_task(known, like, name=name)
        if is_published:
            strides = _stem_strides(known.task, like.task)
            found += [(f"{label}, stem stride {stride}", with_stem_stride(spec, stride)) for stride in strides]
        else:
            found.append((label, spec))
    return found


def _stem_strides(published: Task, task: Task) -> list[int]:
    """The stride that reduces pictures to maps no larger than the published task's pictures, and twice that stride.

    1 and 2 for up to 32 pixels, the size that networks are published for; 4 and 8 for 96 pixels.
    """
    largest_map, side = image_size_of(published), image_size_of(task)
    assert largest_map is not None
    assert side is not None
    stride = stem_stride(side, largest_map=largest_map)
    return [one for one in (stride, 2 * stride) if one in STEM_STRIDES]


def _labels(names: Sequence[str]) -> list[str]:
    """A label for each reference given by name, file or run. Labels are unique and can be folder names, also when the
    stem is added, see `known_references`.
    """
    labels: list[str] = []
    taken = {"found"}
    for name in names:
        path = Path(name).resolve()
        own = path.parent if path.name == "spec.json" else path.with_suffix("") if path.suffix == ".json" else path
        word = re.sub(r"[^\w.-]", "-", own.name)
        numbered = (f"{word}-{number}" for number in itertools.count(2))
        for label in itertools.chain([word], numbered):
            folders = {label, *(f"{label}-stem-stride-{stride}" for stride in STEM_STRIDES)}
            if not folders & taken and not re.fullmatch(r"random-\d+", label):
                break
        taken |= folders
        labels.append(label)
    return labels


def space_of(run: Path, spec: Spec) -> Space:
    """The space that the run's search draws from; without a search, that of the quick preset.

    Raises: DocumentError: the search's config.toml is damaged.
    """
    folder = RunFolder(run / "search")
    if folder.begun:
        space = str(read_toml(folder.config_path).get("space"))
        if space == spec.space:
            config = read_config(folder.config_path, SearchConfig, types=config_types(space))
            return cast(Space, config.search_space)
    return cast(Space, search_preset(spec.space, "quick", image_size=image_size_of(spec.task)).search_space)


def _draw(spec: Spec, space: Space, count: int, *, task: Task, batch: int, threads: int, seed: int) -> list[Spec]:
    """Up to `count` different random architectures, each at the width at which its latency equals the found one's."""
    rng = random.Random(stream_seed(seed, "comparison"))
    shares = shares_of(retarget(spec, task), batch=batch, threads=threads)
    draws_at_a_time = math.ceil(_DRAWS_AT_A_TIME * count)
    taken: list[Spec] = []
    seen = {spec.architecture}
    for _ in range(0, _DRAWS_PER_NETWORK * count, draws_at_a_time):
        drawn = dict.fromkeys(space.random(rng) for _ in range(draws_at_a_time))
        new = [architecture for architecture in drawn if architecture not in seen]
        seen.update(new)
        # Drawn for the pictures that the space is for, and re-targeted as the found one is.
        drawn_specs = [replace(spec, architecture=one, provenance={"source": "uniformly random"}) for one in new]
        draws = [retarget(one, task) for one in drawn_specs]
        taken += [fit.spec for fit in fit_widths(draws, shares=shares) if fit.fits]
        if len(taken) >= count or not draws:
            break
    return taken[:count]


def _fitted_or_longer(specs: Sequence[Spec], *, shares: Shares) -> list[Fitted]:
    """Each at the widths of the found network's latency, or, if there are none, at widths that take a little longer."""
    fits = fit_widths(specs, shares=shares)
    nearest = [fit.spec for fit in fits if not fit.fits]
    longer = iter(fit_widths(nearest, shares=shares, is_enough=[_is_fair_reference] * len(nearest)))
    return [fit if fit.fits else next(longer) for fit in fits]


def _most(kind: Kind) -> float:
    """The longest latency allowed, relative to the found network's."""
    return 1 + (_LONGER if kind == "reference" else TOLERANCE)


def _is_fair_reference(ratio: float) -> bool:
    return 1 - TOLERANCE <= ratio <= _most("reference")


def _cannot(fit: Fitted, kind: Kind) -> str:
    allowed = f"between {1 - TOLERANCE:.2f} and {_most(kind):.2f} of the found network's time"
    return f"no width takes {allowed}: the nearest takes {fit.ratio:.2f} of it"


def _is_clearly_off(ratio: Estimate, kind: Kind) -> bool:
    """Whether the whole interval of a network's latency ratio is outside of what is allowed."""
    low, high = (ratio.value, ratio.value) if ratio.interval is None else (ratio.interval.low, ratio.interval.high)
    return low > _most(kind) or high < 1 - TOLERANCE


def _for_task(spec: Spec, like: Spec, *, name: str) -> Spec:
    try:
        return replace(retarget(spec, like.task), provenance={"source": name})
    except ArchitectureError as error:
        raise ArchitectureError(name, error.problems) from None


def field_document(field: Field) -> dict[str, Any]:
    """The document that `read_field` reads."""
    return {
        **asdict(field),
        "contenders": [{**asdict(one), "spec": one.spec.to_document()} for one in field.contenders],
    }


def read_field(path: Path) -> Field:
    """Reads a field. Raises: DocumentError: it is damaged. RunError: it is not what a comparison writes."""
    document = read_json(path)
    try:
        contenders = tuple(
            Contender(
                entry["name"],
                entry["kind"],
                parse_spec(entry["spec"], source=f"{path}: {entry['name']}"),
                _estimate(entry["latency_ms"]),
                _estimate(entry["ratio"]),
            )
            for entry in document["contenders"]
        )
        left_out = tuple(LeftOut(**entry) for entry in document["left_out"])
        return Field(contenders, left_out, tuple(document["disturbances"]), document["cpu"])
    except (KeyError, TypeError):
        raise RunError(f"{path}: not the networks of a comparison; start anew with --force") from None


def _estimate(document: Mapping[str, Any]) -> Estimate:
    interval = document["interval"]
    return Estimate(document["value"], None if interval is None else Interval(**interval))
