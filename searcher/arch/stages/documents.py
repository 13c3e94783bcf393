"""The written forms of stages architectures: the `architecture` section of a spec, and the integer encoding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from foundation.document import Problems
from searcher.arch.errors import ArchitectureError
from searcher.arch.reading import read_entries, read_list, read_numbers, read_object
from searcher.arch.stages.architecture import Stage, StagesArchitecture, Stem, stage_problems, stem_problems
from searcher.arch.stages.operations import OPERATIONS


def to_document(architecture: StagesArchitecture) -> dict[str, Any]:
    """The `architecture` section of a spec."""
    return {
        "stem": {"channels": architecture.stem.channels, "stride": architecture.stem.stride},
        "stages": [{"channels": stage.channels, "layers": list(stage.layers)} for stage in architecture.stages],
    }


def from_document(document: object, *, place: str, problems: Problems) -> StagesArchitecture | None:
    """Read the `architecture` section of a spec; None, with the reasons noted, if it breaks a rule."""
    before = len(problems)
    found = read_object(document, place=place, keys=("stem", "stages"), problems=problems)
    if found is None:
        return None
    stem = _read_stem(found.get("stem", {}), place=f"{place}.stem", problems=problems)
    stages = tuple(_read_stages(found.get("stages", []), place=f"{place}.stages", problems=problems))
    return None if len(problems) > before or stem is None else StagesArchitecture(stem, stages)


def from_published(text: str) -> StagesArchitecture:
    """Read the integer encoding: stem width and stride; for each stage its width, its number of layers, and the
    operation of each layer as its position in OPERATIONS.

    The encoding is our own, because the literature has none that contains widths.
    Raises: ArchitectureError: not whole numbers, too few of them, or a number out of range.
    """
    source = "integer encoding"
    numbers = read_numbers(text, source=source)
    if len(numbers) < 5:
        raise ArchitectureError(source, [f"{len(numbers)} numbers; expected 2 for the stem and 3 or more a stage"])
    stem, rest = Stem(*numbers[:2]), numbers[2:]
    names = tuple(OPERATIONS)
    stages: list[Stage] = []
    while rest:
        channels, depth, *operations = rest if len(rest) > 1 else [*rest, 0]
        if depth < 1 or len(operations) < depth:
            raise ArchitectureError(
                source, [f"stage {len(stages) + 1}: expected its width, its number of layers, and that many operations"]
            )
        for number in operations[:depth]:
            if not 0 <= number < len(names):
                problem = f"stage {len(stages) + 1}: operation {number}; expected 0 to {len(names) - 1}"
                raise ArchitectureError(source, [problem])
        stages.append(Stage(channels, tuple(names[number] for number in operations[:depth])))
        rest = rest[2 + depth :]
    return StagesArchitecture(stem, tuple(stages))


def to_published(architecture: StagesArchitecture) -> str:
    """The inverse of `from_published`: a line for the stem and one for each stage."""
    names = tuple(OPERATIONS)
    rows = [
        [architecture.stem.channels, architecture.stem.stride],
        *([stage.channels, len(stage.layers), *map(names.index, stage.layers)] for stage in architecture.stages),
    ]
    return "\n".join(" ".join(map(str, row)) for row in rows)


def _read_stem(document: object, *, place: str, problems: Problems) -> Stem | None:
    before = len(problems)
    stem = read_object(document, place=place, keys=("channels", "stride"), problems=problems)
    if stem is None or len(problems) > before:
        return None
    for problem in stem_problems(stem["channels"], stem["stride"]):
        problems.add(f"{place}.{problem}")
    return None if len(problems) > before else Stem(stem["channels"], stem["stride"])


def _read_stages(document: object, *, place: str, problems: Problems) -> Iterator[Stage]:
    entries = read_list(document, place=place, entry="stage", problems=problems)
    for _, stage_place, stage in read_entries(entries, place=place, keys=("channels", "layers"), problems=problems):
        if not isinstance(stage["layers"], list):
            problems.add(f"{stage_place}.layers must be a list of operations")
            continue
        before = len(problems)
        for problem in stage_problems(stage["channels"], stage["layers"]):
            problems.add(f"{stage_place}.{problem}")
        if len(problems) == before:
            yield Stage(stage["channels"], tuple(stage["layers"]))
