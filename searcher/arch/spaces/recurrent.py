"""The recurrent space: one cell that turns a token and the state so far into the next state.

Nodes are numbered from 1. The first reads the token and the previous state, which counts as node 0; every further node
reads one earlier node. A node mixes what it reads with an activation of it. The mean of the *loose ends*, the nodes
that no other node reads, is the new state.

Source: Pham et al. 2018, sections 2.1 and 3.1. The order of ACTIVATIONS is that of the published integer encoding.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from foundation.document import ConfigError, Problems, unknown
from searcher.arch.decisions import Anchor, Choice, Inputs, Pointer, Step
from searcher.arch.errors import ArchitectureError
from searcher.arch.limits import MAX_DEPTH, MAX_WIDTH, check_at_most
from searcher.arch.reading import check_number, read_entries, read_list, read_numbers, read_object
from searcher.arch.tasks import LANGUAGE_MODELLING

# Order matters: the controller's and the published encoding's index is the position in this tuple.
ACTIVATIONS = ("tanh", "relu", "identity", "sigmoid")
OUTPUTS = ("loose_ends", "all")
Output = Literal["loose_ends", "all"]
# Source: google-research's enas_lm, `child.py`.
_ENAS_LM_ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
STATE = 0


@dataclass(frozen=True)
class Node:
    """A node reads node `previous` and applies `activation` to it."""

    previous: int
    activation: str


@dataclass(frozen=True)
class RecurrentArchitecture:
    """The cell. Node k of the tuple is node k + 1 of the cell.

    Raises: ArchitectureError: a node reads itself, a later one or the state, or an activation is unknown.
    """

    nodes: tuple[Node, ...]
    output: Output = "loose_ends"
    """The averaged nodes: the loose ends, or all nodes after the first (enas_lm)."""

    def __post_init__(self) -> None:
        problems = Problems("architecture")
        for position, node in enumerate(self.nodes):
            for problem in _node_problems(position, node.previous, node.activation):
                problems.add(f"nodes[{position}].{problem}")
        for problem in _output_problems(self.output, len(self.nodes)):
            problems.add(problem)
        problems.raise_if_any(ArchitectureError)

    @property
    def averaged(self) -> tuple[int, ...]:
        """The nodes whose mean is the new state."""
        if self.output == "all":
            return tuple(range(2, len(self.nodes) + 1))
        read = {node.previous for node in self.nodes}
        return tuple(number for number in range(1, len(self.nodes) + 1) if number not in read)

    def used(self) -> dict[tuple[str, ...], set[Any]]:
        """Returns the candidate chosen at each node of a network of this architecture (see `nn/banks.py`).

        A candidate is (previous,) if activations share weights, and (previous, activation) if each has its own.
        """
        return {
            (str(number),): {(node.previous,), (node.previous, node.activation)}
            for number, node in enumerate(self.nodes, start=1)
        }


@dataclass(frozen=True)
class RecurrentSize:
    """The width of the network: the `network` section of a spec, and of a search's config."""

    hidden_size: int
    """Size of the state, of every node, and of the embedding, which the softmax shares."""

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise ConfigError(f"hidden_size is {self.hidden_size}; at least 1 is needed")
        check_at_most(MAX_WIDTH, hidden_size=self.hidden_size)


@dataclass(frozen=True)
class RecurrentSpace:
    """All cells with `num_nodes` nodes."""

    num_nodes: int = 12
    output: Output = "loose_ends"
    """Paper: loose_ends; enas_lm: all."""
    weights: Literal["per_edge", "per_activation"] = "per_edge"
    """One matrix for each pair of nodes (paper), or one for each pair and activation (enas_lm)."""
    first_activation: str = ""
    """Activation of the first node if it is not searched for, else empty. enas_lm: tanh."""

    def __post_init__(self) -> None:
        if self.first_activation and self.first_activation not in ACTIVATIONS:
            raise ConfigError(unknown("first_activation", self.first_activation, ACTIVATIONS))
        least = 2 if self.output == "all" or self.first_activation else 1
        if self.num_nodes < least:
            raise ConfigError(f"num_nodes is {self.num_nodes}; this space needs at least {least}")
        check_at_most(MAX_DEPTH, num_nodes=self.num_nodes)

    @property
    def size(self) -> int:
        """The number of ways to make all decisions: 4^N · (N - 1)! for the paper's N nodes."""
        count = 1 if self.first_activation else len(ACTIVATIONS)
        for number in range(2, self.num_nodes + 1):
            count *= (number - 1) * len(ACTIVATIONS)
        return count

    def steps(self) -> tuple[Step, ...]:
        """The controller's decisions, in order: the first activation, then a previous node and an activation each."""
        choice = Choice(ACTIVATIONS, scope="cell")
        first: list[Step] = [Inputs(1)] if self.first_activation else [choice, Anchor()]
        rest = [step for number in range(2, self.num_nodes + 1) for step in (Pointer(number - 1), choice, Anchor())]
        return (*first, *rest)

    def from_tokens(self, tokens: Sequence[int]) -> RecurrentArchitecture:
        """The architecture of a row of tokens: [activation,] then (previous - 1, activation) for each further node."""
        expected = 2 * self.num_nodes - (2 if self.first_activation else 1)
        if len(tokens) != expected:
            raise ArchitectureError("tokens", [f"{len(tokens)} numbers; expected {expected}"])
        first = self.first_activation or ACTIVATIONS[tokens[0]]
        rest = tokens if self.first_activation else tokens[1:]
        nodes = [Node(previous + 1, ACTIVATIONS[choice]) for previous, choice in zip(*[iter(rest)] * 2, strict=True)]
        return RecurrentArchitecture((Node(STATE, first), *nodes), self.output)

    def to_tokens(self, architecture: RecurrentArchitecture) -> list[int]:
        """The inverse of `from_tokens`."""
        first, *rest = architecture.nodes
        tokens = [] if self.first_activation else [ACTIVATIONS.index(first.activation)]
        return tokens + [token for node in rest for token in (node.previous - 1, ACTIVATIONS.index(node.activation))]

    def random(self, rng: random.Random) -> RecurrentArchitecture:
        """An architecture with every decision uniform and independent."""
        first = Node(STATE, self.first_activation or rng.choice(ACTIVATIONS))
        rest = (Node(rng.randrange(1, number), rng.choice(ACTIVATIONS)) for number in range(2, self.num_nodes + 1))
        return RecurrentArchitecture((first, *rest), self.output)


def to_document(architecture: RecurrentArchitecture) -> dict[str, Any]:
    """The `architecture` section of a spec."""
    nodes = [
        {"node": number, "previous": node.previous, "activation": node.activation}
        for number, node in enumerate(architecture.nodes, start=1)
    ]
    return {"nodes": nodes, "output": architecture.output}


def from_document(document: object, *, place: str, problems: Problems) -> RecurrentArchitecture | None:
    """Read the `architecture` section of a spec; None, with the reasons noted, if it breaks a rule."""
    before = len(problems)
    found = read_object(document, place=place, keys=("nodes", "output"), problems=problems)
    if found is None:
        return None
    nodes: tuple[Node, ...] = ()
    if "nodes" in found:
        nodes = tuple(_read_nodes(found["nodes"], place=f"{place}.nodes", problems=problems))
    if "output" in found:
        for problem in _output_problems(found["output"], len(nodes)):
            problems.add(f"{place}.{problem}")
    return None if len(problems) > before else RecurrentArchitecture(nodes, found["output"])


def from_published(text: str) -> RecurrentArchitecture:
    """Read a published encoding.

    An odd number of integers is the ENAS repository's: the first activation, then `previous activation` for each
    further node, nodes counted from 0. An even number is enas_lm's: `previous activation` for each node after a first
    one with tanh, which is node 0; activations in enas_lm's own order.

    Raises: ArchitectureError: not whole numbers, or an index out of range.
    Source: `ptb_final.sh` of the authors' code; `lib/fixed.py` of google-research's enas_lm.
    """
    source = "published encoding"
    numbers = read_numbers(text, source=source)
    if not numbers:
        raise ArchitectureError(source, ["no numbers; expected an activation, then two for each further node"])
    is_enas_lm = len(numbers) % 2 == 0
    names = _ENAS_LM_ACTIVATIONS if is_enas_lm else ACTIVATIONS
    chosen = [0, *numbers[1::2]] if is_enas_lm else numbers[::2]
    for position, activation in enumerate(chosen):
        if not 0 <= activation < len(names):
            raise ArchitectureError(
                source, [f"node {position + 1}: activation {activation}; expected 0 to {len(names) - 1}"]
            )
    previous = numbers[::2] if is_enas_lm else numbers[1::2]
    for position, before in enumerate(previous, start=1):
        if not 0 <= before < position:
            raise ArchitectureError(source, [f"node {position + 1}: previous {before}; expected 0 to {position - 1}"])
    nodes = [Node(before + 1, names[choice]) for before, choice in zip(previous, chosen[1:], strict=True)]
    return RecurrentArchitecture((Node(STATE, names[chosen[0]]), *nodes), "all" if is_enas_lm else "loose_ends")


def to_published(architecture: RecurrentArchitecture) -> str:
    """The inverse of `from_published`: enas_lm's encoding if all nodes are averaged.

    Raises: ArchitectureError: all nodes are averaged, but the first node's activation is not tanh, as in enas_lm.
    """
    first, *rest = architecture.nodes
    if architecture.output == "all" and first.activation != "tanh":
        problem = f"nodes[0].activation is {first.activation}; with output all, the published encoding knows tanh only"
        raise ArchitectureError("architecture", [problem])
    names = _ENAS_LM_ACTIVATIONS if architecture.output == "all" else ACTIVATIONS
    numbers = [] if architecture.output == "all" else [names.index(first.activation)]
    for node in rest:
        numbers += [node.previous - 1, names.index(node.activation)]
    return " ".join(map(str, numbers))


def _read_nodes(document: object, *, place: str, problems: Problems) -> Iterator[Node]:
    entries = read_list(document, place=place, entry="node", problems=problems)
    keys = ("node", "previous", "activation")
    for position, node_place, node in read_entries(entries, place=place, keys=keys, problems=problems):
        before = len(problems)
        check_number(node, "node", place=node_place, position=position, first=1, problems=problems)
        for problem in _node_problems(position, node["previous"], node["activation"]):
            problems.add(f"{node_place}.{problem}")
        if len(problems) == before:
            yield Node(node["previous"], node["activation"])


def _node_problems(position: int, previous: object, activation: object) -> Iterator[str]:
    if position == 0:
        if type(previous) is not int or previous != STATE:
            yield f"previous is {previous!r}, but node 1 reads the token and the state, which is 0"
    elif type(previous) is not int or not 1 <= previous <= position:
        allowed = "node 1" if position == 1 else f"nodes 1 to {position}"
        yield f"previous is {previous!r}, but node {position + 1} can only read {allowed}"
    if activation not in ACTIVATIONS:
        yield f"activation: {unknown('activation', activation, ACTIVATIONS)}"


def _output_problems(output: object, num_nodes: int) -> Iterator[str]:
    if output not in OUTPUTS:
        yield f"output: {unknown('output', output, OUTPUTS)}"
    elif output == "all" and num_nodes == 1:
        yield "output is all, which leaves out the first node, but there is no other"


SPACE = RecurrentSpace
SIZE = RecurrentSize
TASK_KIND = LANGUAGE_MODELLING
LACKS: dict[str, str] = {}
