"""The micro space: its decisions, its encodings, its size."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searcher.arch.decisions import num_tokens
from searcher.arch.errors import ArchitectureError
from searcher.arch.operations import CELL_COSTS
from searcher.arch.spaces.micro import (
    MicroArchitecture,
    MicroSpace,
    Node,
    from_published,
    loose_ends,
    to_published,
)

seeds = st.integers(min_value=0, max_value=2**32)
node_counts = st.integers(min_value=1, max_value=8)


@given(seeds, node_counts)
def test_tokens_and_published_encoding_come_back_as_they_were(seed: int, num_nodes: int) -> None:
    space = MicroSpace(num_nodes)
    architecture = space.random(random.Random(seed))
    tokens = space.to_tokens(architecture)
    assert len(tokens) == num_tokens(space.steps())
    assert space.from_tokens(tokens) == architecture
    assert from_published(to_published(architecture)) == architecture


def test_the_size_is_the_number_of_different_token_rows() -> None:
    space = MicroSpace(1)
    rows = itertools.product(*([range(2), range(2), range(5), range(5)] * 2))
    architectures = {space.from_tokens(row) for row in rows}
    assert space.size == len(architectures) == 10_000


def test_loose_ends_are_the_nodes_nobody_reads() -> None:
    cell = (Node((0, 0), ("identity", "identity")), Node((2, 2), ("identity", "identity")))
    assert loose_ends(cell) == (1, 3)


def test_the_published_cells_read_as_described() -> None:
    text = "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1, 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"
    architecture = from_published(text)
    assert architecture.normal[0] == Node((0, 0), ("avg_pool_3x3", "sep_conv_3x3"))
    assert architecture.normal[4] == Node((0, 1), ("avg_pool_3x3", "sep_conv_5x5"))
    assert loose_ends(architecture.normal) == (2, 3, 4, 5, 6)
    assert architecture.reduction[2] == Node((1, 3), ("sep_conv_5x5", "sep_conv_5x5"))
    assert loose_ends(architecture.reduction) == (2, 4, 5, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 x", "published encoding: expected whole numbers separated by blanks"),
        ("0 0 1", "published encoding: 3 numbers; expected 4 for each node of both cells, e.g. 40 for 5 nodes a cell"),
        ("0 0 1 99 0 0 0 0", f"published encoding: row 1: operation 99; expected 0 to {len(CELL_COSTS) - 1}"),
        (
            "0 0 2 0 0 0 0 0",
            "architecture: normal[0].inputs[1] is 2, but node 2 can only read nodes 0 to 1",
        ),
    ],
)
def test_a_broken_published_encoding_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError) as error:
        from_published(text)
    assert str(error.value) == message


def test_a_node_cannot_read_itself() -> None:
    good, bad = ((Node((source, 1), ("identity", "identity")),) for source in (0, 2))
    with pytest.raises(ArchitectureError, match=r"reduction\[0\].inputs\[0\] is 2, but node 2 can only read"):
        MicroArchitecture(good, bad)
