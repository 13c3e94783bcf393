"""The stages space: decisions, encodings, documents and their problems."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

from foundation.document import ConfigError, Problems
from searcher.arch.decisions import Choice
from searcher.arch.errors import ArchitectureError
from searcher.arch.spaces.stages import StagesSpace
from searcher.arch.stages.architecture import Stage, StagesArchitecture, Stem
from searcher.arch.stages.documents import from_document, from_published, to_document, to_published
from searcher.arch.stages.operations import ABSENT, OPERATIONS
from searcher.controller.policy import LstmPolicy, PolicyConfig
from tests.searcher.conftest import STAGES_SPACE, random_stages

SMALL = StagesSpace((8, 16), (1,), ((8,), (8, 16)), (1, 2), operations=("residual_3x3", "fused_3x3_e2"))


def rows(space: StagesSpace) -> list[tuple[int, ...]]:
    """Every row of tokens there is."""
    return list(itertools.product(*(range(len(step.options)) for step in space.steps() if isinstance(step, Choice))))


@pytest.mark.parametrize("seed", range(20))
def test_tokens_come_back(seed: int) -> None:
    architecture = random_stages(seed)
    assert STAGES_SPACE.from_tokens(STAGES_SPACE.to_tokens(architecture)) == architecture


def test_every_row_of_tokens_is_an_architecture_and_equal_networks_are_equal_ones() -> None:
    architectures = {SMALL.from_tokens(row) for row in rows(SMALL)}
    assert len(architectures) == SMALL.size == 2 * 1 * 2 * (2 * (2 + 4))
    for architecture in architectures:
        assert SMALL.from_tokens(SMALL.to_tokens(architecture)) == architecture


def test_layers_behind_an_absent_one_move_up() -> None:
    space = StagesSpace((8,), (1,), ((8,),), (3,), operations=("residual_3x3", "fused_3x3_e2"))
    (width, first, *later) = (step for step in space.steps()[2:] if isinstance(step, Choice))
    assert [ABSENT in step.options for step in (width, first, *later)] == [False, False, True, True]
    absent = 2
    found = [space.from_tokens([0, 0, 0, 1, *rest]) for rest in ([absent, 0], [0, absent])]
    assert [architecture.stages[0].layers for architecture in found] == [("fused_3x3_e2", "residual_3x3")] * 2
    assert space.to_tokens(found[0]) == [0, 0, 0, 1, 0, absent]


def test_a_policys_log_probabilities_are_exact() -> None:
    policy = LstmPolicy(SMALL.steps(), PolicyConfig(hidden_size=8, weight_range=1.0), seed=0)
    scored = policy.score(torch.tensor(rows(SMALL)))
    probs = scored.log_prob.double().exp()
    assert probs.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert -(probs * scored.log_prob).sum().item() == pytest.approx((probs * scored.entropy).sum().item(), rel=1e-5)
    sample = policy.sample(4000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample.log_prob, policy.score(sample.tokens).log_prob, atol=1e-5, rtol=1e-5)
    counts = torch.zeros(len(probs), dtype=torch.float64)
    places = {row: index for index, row in enumerate(rows(SMALL))}
    for row in sample.tokens.tolist():
        counts[places[tuple(row)]] += 1
    # Within five standard deviations of a count.
    assert ((counts - 4000 * probs).abs() < 5 * (4000 * probs).sqrt() + 1).all()


def test_every_width_depth_and_operation_is_drawn_at_random() -> None:
    drawn = [random_stages(seed) for seed in range(300)]
    assert {a.stem for a in drawn} == {Stem(c, s) for c in (3, 4) for s in (1, 2)}
    for index, (widths, most) in enumerate(zip(STAGES_SPACE.stage_channels, STAGES_SPACE.max_layers, strict=True)):
        stages = [a.stages[index] for a in drawn]
        assert {stage.channels for stage in stages} == set(widths)
        assert {len(stage.layers) for stage in stages} == set(range(1, most + 1))
    assert {name for a in drawn for stage in a.stages for name in stage.layers} == set(OPERATIONS)


def test_the_smallest_space_around_an_architecture_holds_it_alone_but_for_its_operations() -> None:
    architecture = random_stages(4)
    space = StagesSpace.around(architecture)
    assert space.from_tokens(space.to_tokens(architecture)) == architecture
    assert math.prod(map(len, (space.stem_channels, space.stem_strides, *space.stage_channels))) == 1


@pytest.mark.parametrize("seed", range(5))
def test_documents_and_the_integer_encoding_come_back(seed: int) -> None:
    architecture = random_stages(seed)
    problems = Problems("spec")
    assert from_document(to_document(architecture), place="architecture", problems=problems) == architecture
    assert from_published(to_published(architecture)) == architecture


def test_any_width_is_an_architecture_but_not_every_one_is_in_a_space() -> None:
    architecture = StagesArchitecture(Stem(13, 1), (Stage(28, ("residual_3x3",)),))
    assert from_published("13 1 28 1 0") == architecture
    with pytest.raises(ArchitectureError, match="architecture: not in this space"):
        STAGES_SPACE.to_tokens(architecture)
    with pytest.raises(ArchitectureError, match="not in this space"):
        STAGES_SPACE.to_tokens(
            StagesArchitecture(Stem(3, 1), (Stage(4, ("residual_3x3",) * 3), *random_stages(0).stages[1:]))
        )


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], ["architecture must be an object with the keys stem and stages"]),
        (
            {"stem": {"channels": 0, "stride": 3}, "stages": [{"channels": True, "layers": ["absent", "residual_3"]}]},
            [
                "architecture.stem.channels is 0; expected a whole number above 0",
                "architecture.stem.stride is 3; expected one of 1, 2, 4, 8, 16",
                "architecture.stages[0].channels is True; expected a whole number above 0",
                "architecture.stages[0].layers[0]: a layer that is absent is left out",
                "architecture.stages[0].layers[1]: unknown operation 'residual_3'; expected one of "
                + ", ".join(OPERATIONS)
                + "; did you mean 'residual_3x3'?",
            ],
        ),
        (
            {"stem": {"channels": 2**62, "stride": 1}, "stages": [{"channels": 65_537, "layers": ["residual_3x3"]}]},
            [
                "architecture.stem.channels is 4,611,686,018,427,387,904; at most 65,536 is allowed",
                "architecture.stages[0].channels is 65,537; at most 65,536 is allowed",
            ],
        ),
        (
            {"stem": {"channels": 8, "stride": 1}, "stages": [{"channels": 8, "layers": ["residual_3x3"] * 1_001}]},
            ["architecture.stages[0].layers has 1,001 entries; at most 1,000 are allowed"],
        ),
        (
            {"stem": 3, "stages": [{"channels": 8, "layers": []}, {"width": 8}, 5, {"channels": 8, "layers": "x"}]},
            [
                "architecture.stem must be an object with the keys channels and stride",
                "architecture.stages[0].layers is empty; at least one layer is needed",
                "architecture.stages[1]: unknown key 'width'; expected one of channels, layers",
                "architecture.stages[1].channels is missing",
                "architecture.stages[1].layers is missing",
                "architecture.stages[2] must be an object with the keys channels and layers",
                "architecture.stages[3].layers must be a list of operations",
            ],
        ),
        (
            {"stem": {"channels": 8, "stride": 1}, "stages": []},
            ["architecture.stages must be a list with at least one stage"],
        ),
    ],
)
def test_every_problem_of_a_document_is_named_with_its_place(document: object, expected: list[str]) -> None:
    problems = Problems("spec.json")
    assert from_document(document, place="architecture", problems=problems) is None
    with pytest.raises(ArchitectureError) as caught:
        problems.raise_if_any(ArchitectureError)
    assert list(caught.value.problems) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16 one 16", "expected whole numbers separated by blanks"),
        ("16 1", "2 numbers; expected 2 for the stem and 3 or more a stage"),
        ("16 1 16 2 0", "stage 1: expected its width, its number of layers, and that many operations"),
        ("16 1 16 1 0 32", "stage 2: expected its width, its number of layers, and that many operations"),
        (f"16 1 16 1 {len(OPERATIONS)}", f"stage 1: operation {len(OPERATIONS)}; expected 0 to {len(OPERATIONS) - 1}"),
        ("16 3 16 1 0", "stem.stride is 3; expected one of 1, 2, 4, 8, 16"),
    ],
)
def test_a_broken_encoding_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ArchitectureError, match=expected):
        from_published(text)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stem_channels": ()}, r"stem_channels is \[\]; expected one or more different values"),
        ({"operations": ("residual_3x3",) * 2}, "operations is .*; expected one or more different operations"),
        ({"operations": ("residual",)}, "operations: unknown operation 'residual'"),
        ({"stem_strides": (3,)}, "stem_strides has 3; expected some of 1, 2, 4, 8, 16"),
        ({"stage_channels": ((0,),)}, r"stage_channels\[0\] is \[0\]; widths are at least 1"),
        ({"stage_channels": ((65_537,),)}, r"stage_channels\[0\] is 65,537; at most 65,536 is allowed"),
        ({"max_layers": (1_001,)}, "max_layers is 1,001; at most 1,000 is allowed"),
        ({"max_layers": (1, 1)}, "max_layers has 2 values for 1 stages; expected one each"),
        ({"max_layers": (0,)}, r"max_layers is \[0\]; at least 1 is needed in every stage"),
    ],
)
def test_a_space_checks_its_fields(fields: dict[str, tuple[int, ...]], expected: str) -> None:
    plain = {"stem_channels": (8,), "stem_strides": (1,), "stage_channels": ((8,),), "max_layers": (1,)}
    with pytest.raises(ConfigError, match=expected):
        StagesSpace(**{**plain, **fields})  # type: ignore[arg-type]


def test_tokens_of_another_length_are_refused() -> None:
    with pytest.raises(ArchitectureError, match="tokens: 3 numbers; expected 12"):
        STAGES_SPACE.from_tokens([0, 0, 0])


def test_random_architectures_are_fixed_by_the_seed() -> None:
    assert STAGES_SPACE.random(random.Random(3)) == STAGES_SPACE.random(random.Random(3))
