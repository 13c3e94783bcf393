"""The kinds of step with which a search space describes its decisions to the controller.

A space is a fixed sequence of steps. Every step but `Inputs` and `LearnedAnchor` is one step of the controller's LSTM,
whose hidden state h makes the decision; each kind of step defines what the LSTM reads next (its next-input rule). An
*anchor* is the vector, usually a hidden state, that represents a node, so that later steps can point at it.

An architecture as the controller sees it is a row of integer *tokens*: one for a `Choice` or a `Pointer`, one 0 or 1
per candidate for a `Subset`. Each space converts tokens to architectures and back.

Source: the samplers of Pham et al. 2018, sections 2.1 to 2.4, and of the authors' published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Inputs:
    """A cell begins with `count` input tensors: earlier anchors are forgotten, and the LSTM takes one step per input.

    Each input gets a blank anchor (zeros). The LSTM reads the start embedding in these steps and in the next.
    """

    count: int


@dataclass(frozen=True)
class LearnedAnchor:
    """A tensor that exists before any decision; its anchor is a learned vector. The LSTM takes no step."""


@dataclass(frozen=True)
class Choice:
    """One of `options`. The LSTM next reads the option's embedding.

    Steps with equal options share embedding and softmax weights. `scope` names the cell, so that a policy can bias it.
    """

    options: tuple[str, ...]
    scope: str


@dataclass(frozen=True)
class Pointer:
    """One of the first `num_candidates` anchors, chosen by attention. The LSTM next reads that anchor."""

    num_candidates: int


@dataclass(frozen=True)
class Subset:
    """Any of the first `num_candidates` anchors, each chosen independently; h then becomes the next anchor.

    The LSTM next reads the sum of the chosen anchors over one plus their number; the start embedding if there are no
    candidates.
    """

    num_candidates: int


@dataclass(frozen=True)
class Anchor:
    """No decision: h becomes the anchor of the node just decided. The LSTM next reads the start embedding."""


Step = Inputs | LearnedAnchor | Choice | Pointer | Subset | Anchor


def num_tokens(steps: Sequence[Step]) -> int:
    """The length of an architecture's row of tokens."""
    return sum(_tokens_of(step) for step in steps)


def _tokens_of(step: Step) -> int:
    if isinstance(step, Subset):
        return step.num_candidates
    return 1 if isinstance(step, Choice | Pointer) else 0


def option_counts(steps: Sequence[Step]) -> list[int]:
    """The number of values that each token of a row may have."""
    counts: list[int] = []
    for step in steps:
        if isinstance(step, Choice):
            counts.append(len(step.options))
        elif isinstance(step, Pointer):
            counts.append(step.num_candidates)
        elif isinstance(step, Subset):
            counts += [2] * step.num_candidates
    return counts
