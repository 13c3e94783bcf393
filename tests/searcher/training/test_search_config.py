"""The table of a search: what it holds, and how earlier versions wrote it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from foundation.document import DocumentError, write_dataclass
from searcher.arch.spaces.macro import MacroSpace
from searcher.arch.spaces.micro import MicroSpace
from searcher.presets.catalog import search_preset
from searcher.running.run_folder import read_config
from searcher.training.search_config import SearchConfig, config_types


def written(path: Path, table: dict[str, Any]) -> Path:
    path.write_text(tomli_w.dumps(table))
    return path


def test_operations_are_in_the_table(tmp_path: Path) -> None:
    space = MicroSpace(operations=("identity", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3"))
    config = replace(search_preset("micro", "reference"), search_space=space)
    path = written(tmp_path / "config.toml", write_dataclass(config))
    assert 'operations = [\n    "identity",' in path.read_text()
    assert read_config(path, SearchConfig, types=config_types("micro")) == config


@pytest.mark.parametrize(
    ("space", "lists"),
    [
        (
            "micro",
            {"operation_bias": [0.25, 0.25, -0.25, -0.25, -0.25], "operation_logit_start": [10.0, 10.0, 0, 0, 0]},
        ),
        ("macro", {"operation_bias": [], "operation_logit_start": []}),
    ],
)
def test_lists_of_an_earlier_version_are_read_by_the_order_of_the_published_operations(
    space: str, lists: dict[str, list[float]], tmp_path: Path
) -> None:
    config = search_preset(space, "reference")
    table = write_dataclass(config)
    table["policy"] |= lists
    del table["search_space"]["operations"]
    found = read_config(written(tmp_path / "config.toml", table), SearchConfig, types=config_types(space))
    assert replace(found, policy=config.policy) == config
    assert found.policy.operation_bias == config.policy.operation_bias
    zeros = dict.fromkeys(("avg_pool_3x3", "max_pool_3x3", "identity"), 0.0)
    expected = {**config.policy.operation_logit_start, **zeros} if space == "micro" else {}
    assert found.policy.operation_logit_start == expected


def test_values_of_operations_are_a_table(tmp_path: Path) -> None:
    table = write_dataclass(search_preset("micro", "quick"))
    table["policy"]["operation_bias"] = {"identity": "much"}
    with pytest.raises(DocumentError, match=r"policy.operation_bias.identity is 'much'; expected a number"):
        read_config(written(tmp_path / "config.toml", table), SearchConfig, types=config_types("micro"))
    table["policy"]["operation_bias"] = 0.25
    with pytest.raises(DocumentError, match=r"policy.operation_bias is 0.25; expected a table of names and values"):
        read_config(written(tmp_path / "config.toml", table), SearchConfig, types=config_types("micro"))


@pytest.mark.parametrize("space", [MicroSpace, MacroSpace])
def test_operations_are_known_and_different(space: type[Any]) -> None:
    with pytest.raises(ValueError, match="operations: unknown operation 'sepconv'"):
        space(operations=("sepconv",))
    with pytest.raises(ValueError, match=r"operations is \[\]; expected one or more different operations"):
        space(operations=())
    with pytest.raises(ValueError, match="expected one or more different operations"):
        space(operations=("avg_pool_3x3", "avg_pool_3x3"))
