"""The spec document: round trips, golden documents, and what each broken one is told."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searcher.arch.catalog import published_names, published_spec
from searcher.arch.errors import ArchitectureError
from searcher.arch.operations import CELL_COSTS
from searcher.arch.space import SPACES
from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.arch.spaces.recurrent import RecurrentSize, RecurrentSpace
from searcher.arch.spec import Spec, parse_spec, read_spec, write_spec
from searcher.arch.tasks import ImageClassification, LanguageModelling

SPACES_TEXT = ", ".join(SPACES)
GOLDEN = Path(__file__).parents[2] / "golden"


@given(
    st.integers(0, 2**32),
    st.integers(1, 7),
    st.integers(3, 20),
    st.integers(2, 128),
    st.lists(st.text(min_size=1, max_size=9), min_size=2, max_size=12, unique=True),
)
def test_specs_come_back_as_they_were(seed: int, nodes: int, cells: int, channels: int, classes: list[str]) -> None:
    spec = Spec(
        space="micro",
        architecture=MicroSpace(nodes).random(random.Random(seed)),
        network=MicroSize(cells, channels, stem_stride=2),
        task=ImageClassification(dataset="x", input_shape=(28, 20, 3), classes=tuple(classes)),
        provenance={"seed": seed, "reward": 0.5},
    )
    text = spec.to_json()
    again = parse_spec(json.loads(text), source="spec")
    assert again == spec
    assert again.to_json() == text


@given(st.integers(0, 2**32), st.integers(3, 24), st.sampled_from(["sum", "concat"]), st.booleans())
def test_macro_specs_come_back_as_they_were(seed: int, num_layers: int, merge: Any, doubles: bool) -> None:
    spec = Spec(
        space="macro",
        architecture=MacroSpace(num_layers).random(random.Random(seed)),
        network=MacroSize(16, skip_merge=merge, double_channels=doubles),
        task=ImageClassification(dataset="x", input_shape=(28, 20, 3), classes=("a", "b")),
    )
    text = spec.to_json()
    again = parse_spec(json.loads(text), source="spec")
    assert again == spec
    assert again.to_json() == text


@given(st.integers(0, 2**32), st.integers(2, 12), st.sampled_from(["loose_ends", "all"]), st.integers(1, 900))
def test_recurrent_specs_come_back_as_they_were(seed: int, num_nodes: int, output: Any, hidden_size: int) -> None:
    spec = Spec(
        space="recurrent",
        architecture=RecurrentSpace(num_nodes, output=output).random(random.Random(seed)),
        network=RecurrentSize(hidden_size),
        task=LanguageModelling(dataset="x", tokens="char", vocabulary_size=65),
    )
    text = spec.to_json()
    again = parse_spec(json.loads(text), source="spec")
    assert again == spec
    assert again.to_json() == text


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"channels": 16, "cells": 8}, "network: unknown key 'cells'; expected one of channels, "),
        ({"channels": 16, "skip_merge": "add"}, "network.skip_merge: unknown value 'add'; expected one of sum, concat"),
        ({"channels": 1}, "network: channels is 1; at least 2 are needed"),
        ({"channels": 65_537}, "network: channels is 65,537; at most 65,536 is allowed"),
    ],
)
def test_a_broken_size_of_a_macro_network_names_the_place_and_the_rule(network: dict[str, Any], message: str) -> None:
    task = ImageClassification(dataset="x", input_shape=(28, 20, 3), classes=("a", "b"))
    spec = Spec("macro", MacroSpace(3).random(random.Random(0)), MacroSize(16), task)
    with pytest.raises(ArchitectureError) as error:
        parse_spec(spec.to_document() | {"network": network}, source="spec.json")
    assert str(error.value).startswith(f"spec.json: {message}")


def test_the_golden_spec_reads_and_writes_to_the_same_bytes(tmp_path: Path) -> None:
    spec = read_spec(GOLDEN / "spec.json")
    write_spec(tmp_path / "spec.json", spec)
    assert (tmp_path / "spec.json").read_bytes() == (GOLDEN / "spec.json").read_bytes()


def test_provenance_may_be_absent() -> None:
    document = json.loads((GOLDEN / "spec.json").read_text())
    del document["provenance"]
    assert parse_spec(document, source="spec").provenance == {}


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        place: Any = document
        for key in parents:
            place = place[int(key) if key.isdigit() else key]
        if value is ...:
            del place[int(last) if last.isdigit() else last]
        else:
            place[int(last) if last.isdigit() else last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, "schema is 2; this version reads schema 1"),
        ("space", "mikro", f"space: unknown space 'mikro'; expected one of {SPACES_TEXT}; did you mean 'micro'?"),
        (
            "architecture/normal/2/inputs/1",
            5,
            "architecture.normal[2].inputs[1] is 5, but node 4 can only read nodes 0 to 3",
        ),
        (
            "architecture/normal/0/inputs/0",
            -1,
            "architecture.normal[0].inputs[0] is -1, but node 2 can only read nodes 0 to 1",
        ),
        (
            "architecture/normal/0/inputs/0",
            True,
            "architecture.normal[0].inputs[0] is True, but node 2 can only read nodes 0 to 1",
        ),
        (
            "architecture/reduction/1/operations/0",
            "sepconv3x3",
            "architecture.reduction[1].operations[0]: unknown operation 'sepconv3x3'; expected one of "
            f"{', '.join(CELL_COSTS)}; did you mean 'sep_conv_3x3'?",
        ),
        ("architecture/normal/1", ..., "architecture.normal[1].node is 4; expected 3: nodes stand in order from 2"),
        ("architecture/reduction/4", ..., "architecture.reduction has 4 nodes, but architecture.normal has 5"),
        ("architecture/reduction", ..., "architecture.reduction is missing"),
        ("architecture/normal/0/inputs", [0], "architecture.normal[0].inputs must be a list of two"),
        (
            "architecture/normal/0/weight",
            1,
            "architecture.normal[0]: unknown key 'weight'; expected one of node, inputs, operations",
        ),
        ("architecture/normal", [], "architecture.normal must be a list with at least one node"),
        (
            "network/cels",
            3,
            "network: unknown key 'cels'; expected one of cells, channels, stem_stride; did you mean 'cells'?",
        ),
        ("network/cells", "8", "network.cells is '8'; expected a whole number"),
        ("network/cells", 2, "network: cells is 2; at least 3 are needed, two of which reduce"),
        ("network/cells", 1_001, "network: cells is 1,001; at most 1,000 is allowed"),
        ("network/channels", 65_537, "network: channels is 65,537; at most 65,536 is allowed"),
        ("network/stem_stride", 3, "network: stem_stride is 3; expected one of 1, 2, 4, 8, 16"),
        (
            "task/kind",
            "poetry",
            "task.kind: unknown kind 'poetry'; expected one of image-classification, language-modelling",
        ),
        (
            "task/kind",
            "language-modelling",
            "task.kind is 'language-modelling', but micro networks are for image-classification",
        ),
        ("task/input_shape", [28, 28], "task: input_shape is [28, 28]; expected [height, width, channels]"),
        ("task/classes", ["a"], "task: classes must name at least two different classes"),
        ("task/dataset", ..., "task.dataset is missing"),
        ("provenance", 3, "provenance must be an object"),
        ("notes", 3, "unknown key 'notes'; expected one of schema, space, architecture, network, task, provenance"),
    ],
)
def test_a_broken_spec_names_the_place_and_the_rule(path: str, value: object, message: str) -> None:
    document = json.loads((GOLDEN / "spec.json").read_text())
    change(path, value)(document)
    with pytest.raises(ArchitectureError) as error:
        parse_spec(document, source="spec.json")
    assert f"spec.json: {message}" in str(error.value).splitlines()


@pytest.mark.parametrize("name", published_names())
def test_a_fraction_is_no_number_of_a_node_in_any_space(name: str) -> None:
    document = published_spec(name).to_document()
    document["schema"] = 1.0
    with pytest.raises(ArchitectureError, match=r"schema is 1.0; this version reads schema 1"):
        parse_spec(document, source="spec.json")
    document["schema"] = 1
    nodes = document["architecture"]
    if isinstance(nodes, dict):
        nodes = next(value for value in nodes.values() if isinstance(value, list))
    key = next(key for key in ("layer", "node", "channels") if key in nodes[1])
    nodes[1][key] = float(nodes[1][key])
    with pytest.raises(ArchitectureError, match=rf"\[1\].{key} is {nodes[1][key]}; expected"):
        parse_spec(document, source="spec.json")


def parts_of(document: object, path: str = "") -> Iterator[str]:
    """The path of every part of a document, but not of the whole."""
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document if isinstance(document, list) else ())
    )
    for key, value in entries:
        yield f"{path}{key}"
        yield from parts_of(value, f"{path}{key}/")


@pytest.mark.parametrize("name", published_names())
@pytest.mark.parametrize("value", [[], [1], {}, {"a": 1}, None, 1.5, "", ...])
def test_what_stands_in_any_place_of_an_architecture_is_read_or_refused(name: str, value: object) -> None:
    document = published_spec(name).to_document()
    refused = 0
    paths = list(parts_of(document["architecture"], "architecture/"))
    for path in paths:
        broken = copy.deepcopy(document)
        change(path, value)(broken)
        try:
            parse_spec(broken, source="spec.json")
        except ArchitectureError:
            refused += 1
    # With another list of skips, or without one of its layers, it may be an architecture, too.
    assert refused == len(paths) or (refused and (value is ... or isinstance(value, list)))


def test_all_problems_are_reported_together() -> None:
    document = json.loads((GOLDEN / "spec.json").read_text())
    broken = copy.deepcopy(document)
    change("architecture/normal/0/inputs/0", 9)(broken)
    change("network/channels", "wide")(broken)
    change("task/classes", [])(broken)
    with pytest.raises(ArchitectureError) as error:
        parse_spec(broken, source="spec.json")
    assert len(error.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 1} trailing', "not valid JSON: Extra data"),
        ('{"schema": 1, "schema": 1}', "not valid JSON: the key 'schema' stands twice in one object"),
        ('{"schema": NaN}', "not valid JSON: NaN is not JSON"),
        ('{"schema"', "not valid JSON"),
        ("[1, 2]", "the document must be a JSON object"),
        ("[" * 100_000, "not"),
        ("\udce4", "not a JSON text"),
    ],
)
def test_text_that_is_no_spec_is_told_so(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArchitectureError) as error:
        read_spec(path)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_an_invalid_spec_is_not_written(tmp_path: Path) -> None:
    good = read_spec(GOLDEN / "spec.json")
    bad = Spec(good.space, good.architecture, good.network, good.task, provenance={"reward": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        write_spec(tmp_path / "spec.json", bad)
    assert not (tmp_path / "spec.json").exists()
