"""The macro space: its decisions, its encodings, its size."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.document import Problems
from searcher.arch.decisions import LearnedAnchor, num_tokens
from searcher.arch.errors import ArchitectureError
from searcher.arch.spaces.macro import (
    Layer,
    MacroArchitecture,
    MacroSpace,
    from_document,
    from_published,
    reduction_layers,
    to_document,
    to_published,
)

PUBLISHED = (Path(__file__).parents[2] / "golden" / "published_macro_encoding.txt").read_text(encoding="utf-8")

seeds = st.integers(min_value=0, max_value=2**32)
depths = st.integers(min_value=3, max_value=24)


@given(seeds, depths)
def test_tokens_documents_and_published_encoding_come_back_as_they_were(seed: int, num_layers: int) -> None:
    space = MacroSpace(num_layers)
    architecture = space.random(random.Random(seed))
    tokens = space.to_tokens(architecture)
    assert len(tokens) == num_tokens(space.steps())
    assert space.from_tokens(tokens) == architecture
    assert from_published(to_published(architecture)) == architecture
    problems = Problems("spec")
    assert from_document(to_document(architecture), place="architecture", problems=problems) == architecture
    problems.raise_if_any()


def test_the_size_is_the_number_of_different_token_rows() -> None:
    space = MacroSpace(3)
    rows = itertools.product(range(6), range(6), range(2), range(6), range(2), range(2))
    assert space.size == len({space.from_tokens(row) for row in rows}) == 1728


def test_twelve_layers_have_as_many_architectures_as_the_paper_says() -> None:
    assert f"{MacroSpace(12).size:.1e}" == "1.6e+29"


def test_random_architectures_take_every_operation_and_half_of_the_skips() -> None:
    drawn = [MacroSpace(12).random(random.Random(seed)) for seed in range(100)]
    layers = [layer for architecture in drawn for layer in architecture.layers]
    counts = [sum(layer.operation == name for layer in layers) for name in {layer.operation for layer in layers}]
    assert len(counts) == 6
    assert min(counts) > 150
    # 6600 coins: five standard deviations are 203.
    assert sum(len(layer.skips) for layer in layers) == pytest.approx(3300, abs=203)


def test_the_published_network_reads_as_described() -> None:
    architecture = from_published(PUBLISHED)
    assert len(architecture.layers) == 24
    assert architecture.layers[1] == Layer("sep_conv_5x5")
    assert architecture.layers[5] == Layer("sep_conv_5x5", (0, 1, 3))
    assert sum(len(layer.skips) for layer in architecture.layers) == 98
    assert to_published(architecture) == PUBLISHED.strip()


def test_maps_are_halved_where_the_authors_halve_them() -> None:
    assert [reduction_layers(depth) for depth in (3, 5, 12, 24)] == [(1, 2), (1, 2), (4, 8), (8, 16)]


def test_only_tensors_that_a_later_layer_reads_are_kept() -> None:
    layers = (Layer("conv_3x3"), Layer("conv_3x3"), Layer("conv_3x3", (1,)), Layer("conv_3x3", (0,)))
    architecture = MacroArchitecture(layers)
    assert [architecture.read_after(layer) for layer in range(5)] == [(0,), (0, 1), (0, 1, 2), (0, 3), (4,)]


def test_the_stems_anchor_can_be_left_out_as_in_the_authors_code() -> None:
    ours, authors = (MacroSpace(4, stem_anchor=own).steps() for own in (True, False))
    assert ours == (LearnedAnchor(), *authors)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 x", "published encoding: expected whole numbers separated by blanks"),
        ("", "published encoding: 0 numbers; expected k of them for each layer k, e.g. 78 for 12 layers"),
        ("0 0 1 5", "published encoding: 4 numbers; expected k of them for each layer k, e.g. 78 for 12 layers"),
        ("0 6 0 0 0 0", "published encoding: row 2: operation 6; expected 0 to 5"),
        ("0 0 0 0 1 2", "published encoding: row 3: skip 2; expected 0 or 1"),
        ("0 0 0", "architecture: 2 layers; at least 3 are needed, after two of which the maps are halved"),
    ],
)
def test_a_broken_published_encoding_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError) as error:
        from_published(text)
    assert str(error.value) == message


PLAIN = [{"layer": index, "operation": "conv_3x3", "skips": []} for index in (1, 2, 3)]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "architecture must be a list of layers"),
        (PLAIN[:2], "architecture has 2 layers; at least 3 are needed, after two of which the maps are halved"),
        ([*PLAIN, 7], "architecture[3] must be an object with the keys layer, operation and skips"),
        ([*PLAIN, PLAIN[0]], "architecture[3].layer is 1; expected 4: layers stand in order from 1"),
        ([PLAIN[0] | {"layer": True}, *PLAIN[1:]], "architecture[0].layer is True; expected 1: layers stand in order"),
        (
            [*PLAIN[:2], PLAIN[2] | {"skip": 1}],
            "architecture[2]: unknown key 'skip'; expected one of layer, operation, skips; did you mean 'skips'?",
        ),
        ([*PLAIN[:2], {"layer": 3, "operation": "conv_3x3"}], "architecture[2].skips is missing"),
        ([*PLAIN[:2], PLAIN[2] | {"skips": 0}], "architecture[2].skips must be a list"),
        (
            [*PLAIN[:2], PLAIN[2] | {"skips": [0, 2]}],
            "architecture[2].skips[1] is 2, but layer 3 can only skip from tensors 0 to 1",
        ),
        (
            [*PLAIN[:2], PLAIN[2] | {"skips": [False]}],
            "architecture[2].skips[0] is False, but layer 3 can only skip from tensors 0 to 1",
        ),
        (
            [PLAIN[0] | {"skips": [0]}, *PLAIN[1:]],
            "architecture[0].skips[0] is 0, but layer 1 has nothing to skip from",
        ),
        (
            [*PLAIN[:2], PLAIN[2] | {"skips": [1, 0]}],
            "architecture[2].skips is [1, 0]; expected every tensor once, in rising order",
        ),
        (
            [*PLAIN[:2], PLAIN[2] | {"skips": [1, 1]}],
            "architecture[2].skips is [1, 1]; expected every tensor once, in rising order",
        ),
        (
            [*PLAIN[:2], PLAIN[2] | {"operation": "conv3x3"}],
            "architecture[2].operation: unknown operation 'conv3x3'; expected one of conv_3x3, sep_conv_3x3, "
            "conv_5x5, sep_conv_5x5, avg_pool_3x3, max_pool_3x3; did you mean 'conv_3x3'?",
        ),
    ],
)
def test_a_broken_document_names_the_place_and_the_rule(document: object, message: str) -> None:
    problems = Problems("spec.json")
    assert from_document(document, place="architecture", problems=problems) is None
    with pytest.raises(ArchitectureError) as error:
        problems.raise_if_any(ArchitectureError)
    assert str(error.value).startswith(f"spec.json: {message}")
    assert len(error.value.problems) == 1


def test_all_problems_of_a_document_are_reported_together() -> None:
    problems = Problems("spec.json")
    broken = [PLAIN[0] | {"operation": "x"}, PLAIN[1] | {"skips": [3]}, PLAIN[2] | {"layer": 4, "skips": [1, 1]}]
    assert from_document(broken, place="architecture", problems=problems) is None
    assert len(problems) == 4


def test_an_architecture_cannot_be_made_against_the_rules() -> None:
    with pytest.raises(ArchitectureError) as error:
        MacroArchitecture((Layer("conv_3x3"), Layer("conv_3x3"), Layer("pool", (2,))))
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "layers[2].operation",
        "layers[2].skips[0] is 2, but layer 3 can only skip from tensors 0 to 1",
    ]


def test_a_space_of_too_few_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="num_layers is 2; at least 3 are needed"):
        MacroSpace(2)
