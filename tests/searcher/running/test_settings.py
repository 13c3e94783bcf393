"""A preset changed by a file and by single settings: what comes of it is written whole, and read back the same."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from exporter.retraining.config import config_types as retrain_types
from exporter.retraining.presets import PRESETS as RETRAIN_PRESETS
from exporter.retraining.presets import retrain_preset
from foundation.document import ConfigError, DocumentError, write_dataclass
from searcher.arch.space import SPACES
from searcher.presets.catalog import search_preset
from searcher.running.run_folder import read_config
from searcher.running.settings import Settings
from searcher.spaces import search_space
from searcher.training.search_config import config_types

ELSEWHERE = {"space", "preset", "dataset", "dataset_sha256", "spec_sha256", "model", "latency"}


def presets() -> list[tuple[Any, dict[str, type[Any]]]]:
    """Every preset of search and retraining, with the types of its space."""
    found: list[tuple[Any, dict[str, type[Any]]]] = []
    for space in SPACES:
        size = None if space == "recurrent" else 32
        found += [
            (search_preset(space, name, image_size=size), config_types(space))
            for name in search_space(space).presets.PRESETS
        ]
    for space, of_space in RETRAIN_PRESETS.items():
        found += [(retrain_preset(space, name), retrain_types(space)) for name in of_space]
    return found


ALL = presets()


def leaves(config: Any, types: dict[str, Any], place: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> type and value of each setting."""
    found: dict[str, tuple[Any, Any]] = {}
    hints = typing.get_type_hints(type(config)) | types
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= leaves(value, {}, f"{place}{field.name}.")
        elif place or field.name not in ELSEWHERE:
            found[f"{place}{field.name}"] = hints[field.name], value
    return found


def values(hint: Any) -> st.SearchStrategy[Any]:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return st.sampled_from(typing.get_args(hint))
    if origin is tuple:
        return st.lists(values(typing.get_args(hint)[0]), max_size=4).map(tuple)
    if origin is not None:  # optional
        return st.one_of(*(st.none() if one is type(None) else values(one) for one in typing.get_args(hint)))
    return {
        bool: st.booleans(),
        int: st.integers(0, 64),
        float: st.floats(0, 1, allow_subnormal=False),
        str: st.text("abc -_.\"'", min_size=1).filter(lambda text: text == text.strip()),
    }[hint]


def written(value: Any) -> str:
    """As a person types it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' if isinstance(item, str) else written(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {written(entry)}' for key, entry in value.items()) + "}"
    words = {"None": "none", "True": "true", "False": "false"}
    return words.get(str(value), str(value))


def test_a_table_that_is_one_setting_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    for bias, said in ({"identity": 0.5}, "identity = 0.5"), ({}, ""):
        file.write_text(f"[policy.operation_bias]\n{said}\n")
        preset, types = search_preset("micro", "quick"), config_types("micro")
        assert Settings.read(file, ()).apply(preset, types=types).policy.operation_bias == bias


@given(st.data())
def test_any_setting_of_any_preset_comes_back_from_the_runs_config(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    preset, types = data.draw(st.sampled_from(ALL))
    settings = leaves(preset, types)
    key = data.draw(st.sampled_from(sorted(settings)))
    hint, before = settings[key]
    value = data.draw(st.one_of(st.just(before), values(hint)))
    try:
        config = Settings.read(None, [f"{key}={written(value)}"]).apply(preset, types=types)
    except DocumentError:
        # Some rule of the configuration's own, which the preset does not break.
        if value == before:
            raise
        return
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(tomli_w.dumps(write_dataclass(config)), encoding="utf-8")
    assert leaves(config, types)[key][1] == value
    assert read_config(path, type(config), types=types) == config
    assert {k: v for k, v in leaves(config, types).items() if k != key} == {
        k: v for k, v in settings.items() if k != key
    }


def changed(*assignments: str, file: Path | None = None) -> Any:
    preset = retrain_preset("micro", "quick")
    return Settings.read(file, assignments).apply(preset, types=retrain_types("micro"))


def test_a_file_may_hold_what_differs_and_settings_go_before_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("num_epochs = 3\n[sgd]\nlearning_rate = 0.5\n[training.augmentation]\nflip = false\n")
    config = changed("sgd.learning_rate=0.25", "sgd.momentum = 0.8", file=file)
    preset = retrain_preset("micro", "quick")
    augmentation = dataclasses.replace(preset.training.augmentation, flip=False)
    assert config == dataclasses.replace(
        preset,
        num_epochs=3,
        sgd=dataclasses.replace(preset.sgd, learning_rate=0.25, momentum=0.8),
        training=dataclasses.replace(preset.training, augmentation=augmentation),
    )


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sgd.learning_rat=1", "unknown setting; did you mean 'sgd.learning_rate'?"),
        ("learning_rate=1", "unknown setting; did you mean 'sgd.learning_rate'?"),
        ("lerning_rate=1", "unknown setting; did you mean 'sgd.learning_rate'?"),
        ("epochs=1", "unknown setting; did you mean 'num_epochs'?"),
        ("search.epochs=1", "unknown setting; did you mean 'num_epochs'?"),
        ("zzz=1", "unknown setting; a run's config.toml names them all"),
        ("sgd=1", "this is a table; name one of its settings: sgd.learning_rate, "),
        ("preset=paper", "this is not set so; --preset says it"),
        ("num_epochs=many", "num_epochs is 'many'; expected a whole number"),
        ("num_epochs=1.5", "num_epochs is 1.5; expected a whole number"),
        ("num_epochs=1\nseed=2", "num_epochs is '1\\nseed=2'; expected a whole number"),
        ("num_epochs=0", "num_epochs is 0; at least 1 is needed"),
        ("training.augmentation.flip=yes", "training.augmentation.flip is 'yes'; expected true or false"),
        ("train_on=tran", "train_on: unknown value 'tran'; expected one of train, train+valid; did you mean 'train'?"),
        ("num_epochs", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
    ],
)
def test_a_setting_that_is_none_is_said_in_one_line(assignment: str, message: str) -> None:
    with pytest.raises((ConfigError, DocumentError)) as error:
        changed(assignment)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_value_where_a_table_belongs_is_told_beside_a_setting_of_that_table(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("sgd = 0.1\n")
    with pytest.raises(DocumentError) as refused:
        changed("sgd.learning_rate=0.05", file=file)
    assert refused.value.problems == ("sgd is 0.1; expected a table of keys and values",)


def test_a_latency_target_is_set_by_its_options_but_for_its_weight() -> None:
    preset, types = search_preset("micro", "quick", image_size=32), config_types("micro")
    with pytest.raises(ConfigError, match=r"latency\.batch: this is not set so; --latency-batch says it"):
        Settings.read(None, ["latency.batch=4"]).apply(preset, types=types)
    with pytest.raises(DocumentError, match=r"latency\.target_ms is missing"):
        Settings.read(None, ["latency.weight=-0.2"]).apply(preset, types=types)


def test_a_files_preset_and_another_named_beside_it_are_not_both_taken(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "paper"\n')
    settings = Settings.read(file, ())
    assert settings.name("preset", None) == settings.name("preset", "paper") == "paper"
    assert settings.name("space", "macro") == "macro"
    with pytest.raises(ConfigError, match="is for the preset paper, but --preset is quick"):
        settings.name("preset", "quick")


def test_a_whole_config_gives_the_configuration_it_was_written_from(tmp_path: Path) -> None:
    config = dataclasses.replace(retrain_preset("micro", "quick"), num_epochs=7)
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps(write_dataclass(config)))
    assert changed(file=file) == config
    assert tomllib.loads(file.read_text())["num_epochs"] == 7
