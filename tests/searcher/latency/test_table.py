"""Latency tables: blocks of networks, sums of rows, files."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from foundation.document import ConfigError
from searcher.arch.spaces.macro import MacroSize, MacroSpace, SkipMerge
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.arch.spaces.stages import StagesSize, StagesSpace
from searcher.arch.spec import Spec
from searcher.arch.stages.architecture import StagesArchitecture
from searcher.arch.tasks import ImageClassification
from searcher.latency.blocks import CONCAT, HALVE, HEAD, PROJECT, STEM, SUM, Block, blocks_of, blocks_of_space
from searcher.latency.extremes import latency_range
from searcher.latency.kept import KEPT, KeptTables
from searcher.latency.table import (
    LatencyTable,
    Row,
    Setting,
    TableError,
    check_setting,
    fit_networks,
    read_table,
)
from searcher.nn.blocks import ReluConvNorm
from searcher.nn.build import build_network

TASK = ImageClassification(dataset="pictures", input_shape=(27, 30, 3), classes=("a", "b"))
STAGES = StagesSpace((8, 16), (1, 2), ((8, 16), (16, 24, 32), (32,)), (1, 2, 3), ("residual_3x3", "inverted_5x5_e2"))
SPACES: dict[str, tuple[Any, Any]] = {
    "stages": (STAGES, StagesSize()),
    "micro": (MicroSpace(num_nodes=3), MicroSize(cells=5, channels=8, stem_stride=2)),
    "macro": (MacroSpace(num_layers=6), MacroSize(channels=8, double_channels=True)),
}
SETTING = Setting(cpu="a CPU", provider="cpu", onnxruntime="1.31.1", threads=1, batch=1)


def random_specs(name: str, count: int) -> list[Spec]:
    space, size = SPACES[name]
    rng = random.Random(0)
    return [Spec(name, space.random(rng), size, TASK) for _ in range(count)]


def made_up_rows(name: str) -> dict[Block, Row]:
    rng = random.Random(1)
    rows = {}
    for block in blocks_of_space(name, *SPACES[name], TASK):
        ms = rng.uniform(0.01, 0.1)
        rows[block] = Row(ms, 0.9 * ms, 1.1 * ms)
    return rows


def made_up_table(name: str) -> LatencyTable:
    rows = made_up_rows(name)
    specs = random_specs(name, 20)
    measured = [0.05 + 0.002 * len(blocks_of(spec)) + sum(rows[b].ms for b in blocks_of(spec)) for spec in specs]
    return LatencyTable(name, SETTING, rows, fit_networks(rows, specs, measured, held_out=8), {"resnet-20": 0.3})


@pytest.mark.parametrize("name", SPACES)
def test_every_block_of_random_networks_is_among_those_of_the_space(name: str) -> None:
    known = set(blocks_of_space(name, *SPACES[name], TASK))
    for spec in random_specs(name, 300):
        assert set(blocks_of(spec)) <= known


@pytest.mark.parametrize("numbers", [(1, 2, 3, 1), (2, 1, 1, 3), (3, 2, 1, 2)], ids=str)
def test_every_pair_of_widths_has_its_blocks_however_many_there_are_of_each(numbers: tuple[int, ...]) -> None:
    stem, *stages = ((8, 16, 24)[:number] for number in numbers)
    space = StagesSpace(stem_channels=stem, stem_strides=(1, 2), stage_channels=tuple(stages), max_layers=(2, 1, 2))
    known = set(blocks_of_space("stages", space, StagesSize(), TASK))
    rng = random.Random(0)
    for _ in range(300):
        assert set(blocks_of(Spec("stages", space.random(rng), StagesSize(), TASK))) <= known


@pytest.mark.parametrize("name", SPACES)
def test_no_block_of_the_space_is_without_a_network_that_has_it(name: str) -> None:
    """A space's blocks are not padded with what it cannot have: random networks come to most of them."""
    found = {block for spec in random_specs(name, 2000) for block in blocks_of(spec)}
    known = set(blocks_of_space(name, *SPACES[name], TASK))
    assert len(found) > 0.8 * len(known)


def test_the_blocks_of_a_stages_network_follow_its_maps_and_widths() -> None:
    architecture = STAGES.from_tokens([1, 1, 0, 0, 1, 1, 2, 0, 0, 2, 2])
    assert blocks_of(Spec("stages", architecture, StagesSize(), TASK)) == [
        Block(STEM, 3, 16, 27, 30, 2),
        Block("residual_3x3", 16, 8, 14, 15, 1),
        Block("inverted_5x5_e2", 8, 24, 14, 15, 2),
        Block("residual_3x3", 24, 32, 7, 8, 2),
        Block(HEAD, 32, 2, 4, 4),
    ]


def test_what_lags_behind_a_reduction_cell_is_halved_from_its_own_map() -> None:
    spec = random_specs("micro", 1)[0]
    halved = Counter((block.height, block.width) for block in blocks_of(spec) if block.operation == HALVE)
    assert (14, 15) in halved
    assert (28, 30) not in halved


@pytest.mark.parametrize("merge", get_args(SkipMerge))
def test_the_blocks_of_macro_joins_are_those_of_the_wiring(merge: SkipMerge) -> None:
    size = MacroSize(channels=8, skip_merge=merge)
    spec = Spec("macro", MacroSpace(num_layers=6).random(random.Random(0)), size, TASK)
    network = build_network(spec, seed=0)
    projections = Counter((PROJECT, x.conv.in_channels) for x in network.modules() if isinstance(x, ReluConvNorm))
    num_skips = [len(layer.skips) for layer in spec.architecture.layers]
    joins = Counter((block.operation, block.in_channels) for block in blocks_of(spec))
    assert sum(num_skips) > 1
    assert {block: count for block, count in joins.items() if block[0] == PROJECT} == projections
    assert joins[SUM, 8] == (0 if merge == "concat" else sum(num_skips))
    assert joins[CONCAT, 8] == (sum(count > 0 for count in num_skips) if merge == "concat" else 0)


def test_a_fit_finds_the_terms_it_was_made_with() -> None:
    table = made_up_table("stages")
    assert table.fit.intercept_ms == pytest.approx(0.05)
    assert table.fit.per_block_ms == pytest.approx(0.002)
    assert table.fit.median_error < 1e-9
    assert table.fit.rank_correlation == pytest.approx(1)
    assert (table.fit.networks, table.fit.held_out) == (12, 8)


def test_the_error_is_that_of_networks_which_were_not_fitted() -> None:
    rows = made_up_rows("stages")
    specs = random_specs("stages", 20)
    measured = [1.0] * 12 + [2.0] * 8
    fit = fit_networks(rows, specs, measured, held_out=8)
    assert fit.median_error == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", SPACES)
def test_a_table_is_read_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    table = made_up_table(name)
    table.write(tmp_path / "table.json")
    read = read_table(tmp_path / "table.json")
    assert read == table
    assert len(read.digest) == 64
    for spec in random_specs(name, 5):
        assert read.predict(spec) == table.predict(spec)


def test_a_network_with_a_block_that_the_table_lacks_is_refused() -> None:
    table = made_up_table("stages")
    wide = StagesSpace((64,), (2,), ((64,),), (1,), ("residual_3x3",)).from_tokens([0, 0, 0, 0])
    with pytest.raises(TableError, match="no row for"):
        table.predict(Spec("stages", wide, StagesSize(), TASK))


def test_a_network_of_text_has_no_blocks() -> None:
    from searcher.arch.catalog import published_spec

    with pytest.raises(ConfigError, match="recurrent have no latency"):
        blocks_of(published_spec("enas-lm-published"))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ('{"schema": 1', "not valid JSON"),
        ("[]", "expected an object"),
        ('{"schema": 2, "space": "stages"}', "setting is missing"),
    ],
)
def test_a_damaged_table_is_refused_by_name(damage: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(damage)
    with pytest.raises(TableError, match=complaint) as refused:
        read_table(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("section", "value", "complaint"),
    [
        ("rows", [["x", 1]], r"rows\[0\] must have a block"),
        ("rows", [{"block": ["stem", "x", 8, 8, 8, 1], "ms": 1.0, "low_ms": 1.0, "high_ms": 1.0}], "must have a block"),
        ("references", "abc", "references must be an object of numbers"),
    ],
)
def test_a_table_with_a_damaged_part_is_refused(section: str, value: object, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    made_up_table("stages").write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {section: value}))
    with pytest.raises(TableError, match=complaint):
        read_table(path)


def test_a_table_of_another_machine_is_refused_with_the_cure() -> None:
    table = made_up_table("stages")
    check_setting(table, SETTING, source="table.json")
    with pytest.raises(TableError, match=r"(?s)made for cpu 'a CPU', but here it is 'another'.*enas latency profile"):
        check_setting(table, replace(SETTING, cpu="another", batch=32), source="table.json")


@dataclass
class _Machine:
    """Has one table, and counts how often it is asked."""

    table: LatencyTable
    asked: int = 0

    def latency_table(self, *_: object, **__: object) -> LatencyTable:
        self.asked += 1
        return self.table


def test_a_kept_table_goes_on_being_the_searchs(tmp_path: Path) -> None:
    table, machine = made_up_table("stages"), _Machine(made_up_table("micro"))
    space, size = SPACES["stages"]
    kept = KeptTables(tmp_path, machine)

    def asked_for(space: Any, **setting: int) -> LatencyTable:
        return kept.latency_table("stages", space, size, TASK, **{"batch": 1, "threads": 1, **setting})

    assert asked_for(space) is machine.table
    table.write(tmp_path / KEPT)
    assert asked_for(space) == table
    assert asked_for(space).digest == hashlib.sha256((tmp_path / KEPT).read_bytes()).hexdigest()
    assert machine.asked == 1
    # For anything else the machine is asked.
    assert asked_for(space, batch=32) is machine.table
    assert asked_for(replace(space, operations=("fused_3x3_e2",))) is machine.table


def test_a_tables_digest_is_of_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    made_up_table("stages").write(path)
    digest = read_table(path).digest
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert read_table(path).digest == digest


def test_the_fastest_and_the_slowest_network_of_a_space_are_found() -> None:
    def latency(architecture: StagesArchitecture) -> float:
        wide = sum(stage.channels * len(stage.layers) for stage in architecture.stages)
        return architecture.stem.channels / architecture.stem.stride + wide

    assert latency_range(STAGES, latency) == (8 / 2 + 8 + 16 + 32, 16 + 16 + 2 * 32 + 3 * 32)
