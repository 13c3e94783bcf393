"""The recurrent space: its decisions, its encodings, its size."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.document import ConfigError, Problems
from searcher.arch.decisions import Choice, Inputs, Pointer, num_tokens
from searcher.arch.errors import ArchitectureError
from searcher.arch.spaces.recurrent import (
    ACTIVATIONS,
    Node,
    RecurrentArchitecture,
    RecurrentSize,
    RecurrentSpace,
    from_document,
    from_published,
    to_document,
    to_published,
)

# The authors' `ptb_final.sh`, and the cell of enas_lm's README.
PTB_FINAL = "0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1"
ENAS_LM = "0 2 1 0 2 1 2 2 4 0 5 0 3 2 6 2"
SPACES = (
    RecurrentSpace(1),
    RecurrentSpace(6),
    RecurrentSpace(5, output="all"),
    RecurrentSpace(5, output="all", first_activation="tanh", weights="per_activation"),
)

seeds = st.integers(min_value=0, max_value=2**32)


@given(seeds, st.sampled_from(SPACES))
def test_tokens_and_documents_come_back_as_they_were(seed: int, space: RecurrentSpace) -> None:
    architecture = space.random(random.Random(seed))
    tokens = space.to_tokens(architecture)
    assert len(tokens) == num_tokens(space.steps())
    assert space.from_tokens(tokens) == architecture
    problems = Problems("spec")
    assert from_document(to_document(architecture), place="architecture", problems=problems) == architecture
    problems.raise_if_any()


@given(seeds, st.integers(1, 12))
def test_the_authors_encoding_comes_back_as_it_was(seed: int, num_nodes: int) -> None:
    architecture = RecurrentSpace(num_nodes).random(random.Random(seed))
    encoding = to_published(architecture)
    assert len(encoding.split()) == 2 * num_nodes - 1
    assert from_published(encoding) == architecture


@given(seeds, st.integers(2, 12))
def test_enas_lms_encoding_comes_back_as_it_was(seed: int, num_nodes: int) -> None:
    architecture = RecurrentSpace(num_nodes, output="all", first_activation="tanh").random(random.Random(seed))
    encoding = to_published(architecture)
    assert len(encoding.split()) == 2 * (num_nodes - 1)
    assert from_published(encoding) == architecture


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (RecurrentSpace(1), 4),
        (RecurrentSpace(3), 4 * 4 * (2 * 4)),
        (RecurrentSpace(3, first_activation="relu"), 4 * (2 * 4)),
    ],
)
def test_the_size_is_the_number_of_different_token_rows(space: RecurrentSpace, size: int) -> None:
    options = [
        range(len(step.options) if isinstance(step, Choice) else step.num_candidates)
        for step in space.steps()
        if isinstance(step, Choice | Pointer)
    ]
    assert space.size == len({space.from_tokens(row) for row in itertools.product(*options)}) == size


def test_twelve_nodes_have_as_many_cells_as_the_papers_formula_says() -> None:
    # The paper writes N!; its first node has no choice of what to read, which makes it (N - 1)!.
    factorial = 11 * 10 * 9 * 8 * 7 * 6 * 5 * 4 * 3 * 2
    assert RecurrentSpace(12).size == 4**12 * factorial


def test_random_cells_take_every_activation_and_every_earlier_node_alike() -> None:
    drawn = [RecurrentSpace(4).random(random.Random(seed)) for seed in range(3000)]
    activations = Counter(node.activation for architecture in drawn for node in architecture.nodes)
    # 12,000 draws of one in four: five standard deviations are 237.
    assert sorted(activations) == sorted(ACTIVATIONS)
    assert all(abs(count - 3000) < 237 for count in activations.values())
    previous = Counter(architecture.nodes[3].previous for architecture in drawn)
    # 3000 draws of one in three: five standard deviations are 129.
    assert sorted(previous) == [1, 2, 3]
    assert all(abs(count - 1000) < 129 for count in previous.values())


def test_the_authors_cell_reads_as_described() -> None:
    cell = from_published(PTB_FINAL)
    assert len(cell.nodes) == 12
    assert cell.nodes[:4] == (Node(0, "tanh"), Node(1, "tanh"), Node(2, "relu"), Node(3, "relu"))
    assert cell.nodes[4] == Node(3, "tanh")
    assert cell.averaged == (4, 5, 8, 10, 11, 12)
    assert to_published(cell) == PTB_FINAL


def test_enas_lms_cell_reads_as_described() -> None:
    cell = from_published(ENAS_LM)
    assert len(cell.nodes) == 9
    assert cell.nodes[:4] == (Node(0, "tanh"), Node(1, "sigmoid"), Node(2, "tanh"), Node(3, "relu"))
    assert cell.output == "all"
    assert cell.averaged == tuple(range(2, 10))
    assert to_published(cell) == ENAS_LM


def test_both_encodings_number_sigmoid_and_identity_the_other_way_round() -> None:
    assert [from_published(f"0 0 {number}").nodes[1].activation for number in range(4)] == list(ACTIVATIONS)
    names = [from_published(f"0 {number}").nodes[1].activation for number in range(4)]
    assert names == ["tanh", "relu", "sigmoid", "identity"]


def test_a_cell_that_averages_all_without_tanh_first_has_no_published_encoding() -> None:
    cell = RecurrentArchitecture((Node(0, "relu"), Node(1, "tanh")), output="all")
    message = "nodes\\[0\\].activation is relu; with output all, the published encoding knows tanh only"
    with pytest.raises(ArchitectureError, match=f"architecture: {message}"):
        to_published(cell)


def test_loose_ends_are_the_nodes_nobody_reads() -> None:
    nodes = (Node(0, "tanh"), Node(1, "tanh"), Node(1, "tanh"), Node(3, "tanh"))
    assert RecurrentArchitecture(nodes).averaged == (2, 4)
    assert RecurrentArchitecture(nodes, output="all").averaged == (2, 3, 4)
    assert RecurrentArchitecture(nodes[:1]).averaged == (1,)


def test_a_first_activation_that_is_given_is_not_decided() -> None:
    searched, given_ = (RecurrentSpace(3, first_activation=name).steps() for name in ("", "tanh"))
    assert given_ == (Inputs(1), *searched[2:])
    assert isinstance(searched[0], Choice)
    assert RecurrentSpace(3, first_activation="tanh").from_tokens([0, 1, 1, 2]).nodes == (
        Node(0, "tanh"),
        Node(1, "relu"),
        Node(2, "identity"),
    )


@pytest.mark.parametrize(
    ("space", "expected"), [(RecurrentSpace(3), 5), (RecurrentSpace(3, first_activation="relu"), 4)]
)
def test_a_row_of_tokens_of_another_space_is_refused(space: RecurrentSpace, expected: int) -> None:
    with pytest.raises(ArchitectureError, match=f"^tokens: 3 numbers; expected {expected}$"):
        space.from_tokens([0, 0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 x", "expected whole numbers separated by blanks"),
        ("", "no numbers; expected an activation, then two for each further node"),
        ("4", "node 1: activation 4; expected 0 to 3"),
        ("0 0 -1", "node 2: activation -1; expected 0 to 3"),
        ("0 0 0 1 9", "node 3: activation 9; expected 0 to 3"),
        ("0 4", "node 2: activation 4; expected 0 to 3"),
        ("0 1 0", "node 2: previous 1; expected 0 to 0"),
        ("0 0 0 -1 0", "node 3: previous -1; expected 0 to 1"),
        ("0 0 2 0", "node 3: previous 2; expected 0 to 1"),
    ],
)
def test_a_broken_published_encoding_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError) as error:
        from_published(text)
    assert str(error.value) == f"published encoding: {message}"


PLAIN = [
    {"node": 1, "previous": 0, "activation": "tanh"},
    {"node": 2, "previous": 1, "activation": "relu"},
    {"node": 3, "previous": 1, "activation": "sigmoid"},
]


def document(*changed: object, output: object = "loose_ends") -> dict[str, Any]:
    """The plain cell with its last nodes replaced."""
    return {"nodes": [*PLAIN[: 3 - len(changed)], *changed], "output": output}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ([], "architecture must be an object with the keys nodes and output"),
        ({"output": "all"}, "architecture.nodes is missing"),
        ({"nodes": PLAIN}, "architecture.output is missing"),
        ({"nodes": [], "output": "loose_ends"}, "architecture.nodes must be a list with at least one node"),
        ({"nodes": {}, "output": "loose_ends"}, "architecture.nodes must be a list with at least one node"),
        (
            document() | {"outputs": 1},
            "architecture: unknown key 'outputs'; expected one of nodes, output; did you mean 'output'?",
        ),
        (
            document(output="loose_end"),
            "architecture.output: unknown output 'loose_end'; expected one of loose_ends, all; "
            "did you mean 'loose_ends'?",
        ),
        (
            {"nodes": PLAIN[:1], "output": "all"},
            "architecture.output is all, which leaves out the first node, but there is no other",
        ),
        (document(7), "architecture.nodes[2] must be an object with the keys node, previous and activation"),
        (document({"node": 3, "previous": 1}), "architecture.nodes[2].activation is missing"),
        (
            document(PLAIN[2] | {"op": 1}),
            "architecture.nodes[2]: unknown key 'op'; expected one of node, previous, activation",
        ),
        (
            document(PLAIN[2] | {"node": 2}),
            "architecture.nodes[2].node is 2; expected 3: nodes stand in order from 1",
        ),
        (
            document(PLAIN[0] | {"node": True}, *PLAIN[1:]),
            "architecture.nodes[0].node is True; expected 1: nodes stand in order from 1",
        ),
        (
            document(PLAIN[0] | {"previous": 1}, *PLAIN[1:]),
            "architecture.nodes[0].previous is 1, but node 1 reads the token and the state, which is 0",
        ),
        (
            document(PLAIN[1] | {"previous": 0}, PLAIN[2]),
            "architecture.nodes[1].previous is 0, but node 2 can only read node 1",
        ),
        (
            document(PLAIN[2] | {"previous": 3}),
            "architecture.nodes[2].previous is 3, but node 3 can only read nodes 1 to 2",
        ),
        (
            document(PLAIN[2] | {"previous": "1"}),
            "architecture.nodes[2].previous is '1', but node 3 can only read nodes 1 to 2",
        ),
        (
            document(PLAIN[2] | {"activation": "sigmiod"}),
            "architecture.nodes[2].activation: unknown activation 'sigmiod'; expected one of tanh, relu, identity, "
            "sigmoid; did you mean 'sigmoid'?",
        ),
        (
            document(PLAIN[2] | {"activation": ["tanh"]}),
            "architecture.nodes[2].activation: unknown activation ['tanh']; expected one of tanh, relu, identity, "
            "sigmoid; did you mean 'tanh'?",
        ),
    ],
)
def test_a_broken_document_names_the_place_and_the_rule(broken: object, message: str) -> None:
    problems = Problems("spec.json")
    assert from_document(broken, place="architecture", problems=problems) is None
    with pytest.raises(ArchitectureError) as error:
        problems.raise_if_any(ArchitectureError)
    assert str(error.value) == f"spec.json: {message}"


def test_all_problems_of_a_document_are_reported_together() -> None:
    problems = Problems("spec.json")
    broken = document(PLAIN[0] | {"previous": 2}, PLAIN[1] | {"activation": "x"}, PLAIN[2] | {"node": 4}, output="none")
    assert from_document(broken, place="architecture", problems=problems) is None
    assert len(problems) == 4


def test_an_architecture_cannot_be_made_against_the_rules() -> None:
    with pytest.raises(ArchitectureError) as error:
        RecurrentArchitecture((Node(0, "tanh"), Node(2, "step")), output="some")  # type: ignore[arg-type]
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "nodes[1].previous is 2, but node 2 can only read node 1",
        "nodes[1].activation",
        "output",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_nodes": 0}, "num_nodes is 0; this space needs at least 1"),
        ({"num_nodes": 1, "output": "all"}, "num_nodes is 1; this space needs at least 2"),
        ({"num_nodes": 1, "first_activation": "tanh"}, "num_nodes is 1; this space needs at least 2"),
        ({"first_activation": "sin"}, "unknown first_activation 'sin'; expected one of tanh, relu, identity, sigmoid"),
    ],
)
def test_a_space_without_a_decision_or_of_unknown_activation_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        RecurrentSpace(**options)
    assert str(error.value) == message


def test_a_network_without_width_or_of_a_width_beyond_all_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden_size is 65,537; at most 65,536 is allowed"):
        RecurrentSize(65_537)
    with pytest.raises(ConfigError, match="hidden_size is 0; at least 1 is needed"):
        RecurrentSize(0)
