"""Whom a comparison takes for known networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.judging.contenders import known_references
from searcher.arch.catalog import published_names, published_spec
from searcher.arch.spec import write_spec
from searcher.arch.tasks import ImageClassification

TASK = ImageClassification(dataset="any", input_shape=(32, 32, 3), classes=("a", "b"))
FOUND = replace(published_spec("resnet-20"), task=TASK)


def test_a_published_network_takes_part_with_two_stems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    both = known_references(("resnet-20",), like=FOUND)
    assert [name for name, _ in both] == ["resnet-20, stem stride 1", "resnet-20, stem stride 2"]
    assert [spec.architecture.stem.stride for _, spec in both] == [1, 2]
    by_default = known_references((), like=FOUND)
    assert all(one in by_default for one in both)
    published = [name for name in published_names() if published_spec(name).space == "stages"]
    assert len(by_default) == 2 * len(published)


@pytest.mark.parametrize(("side", "strides"), [(28, {1, 2}), (96, {4, 8}), (1024, {16})])
def test_the_two_stems_suit_the_pictures_size(side: int, strides: set[int]) -> None:
    like = replace(FOUND, task=replace(TASK, input_shape=(side, side, 3)))
    for name in ("resnet-20", "inverted-small"):
        references = known_references((name,), like=like)
        assert {spec.architecture.stem.stride for _, spec in references} == strides
        assert [label for label, _ in references] == [f"{name}, stem stride {stride}" for stride in sorted(strides)]


@pytest.mark.parametrize("names", [("resnet-20", "resnet-20-stem-stride-1"), ("resnet-20-stem-stride-1", "resnet-20")])
def test_no_name_is_that_of_anothers_stem(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet-20-stem-stride-1").mkdir()
    write_spec(tmp_path / "resnet-20-stem-stride-1" / "spec.json", FOUND)
    folders = [name.replace(", ", "-").replace(" ", "-") for name, _ in known_references(names, like=FOUND)]
    assert len(set(folders)) == len(folders) == 3


def test_a_file_takes_part_as_it_is_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet-20").mkdir()
    write_spec(tmp_path / "resnet-20" / "spec.json", FOUND)
    ((name, spec),) = known_references(("resnet-20",), like=FOUND)
    assert name == "resnet-20"
    assert spec.architecture == FOUND.architecture
    assert len(known_references((), like=FOUND)) > 2
