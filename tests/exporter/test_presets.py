"""The retraining presets: whole, valid, and one for each preset of the search."""

from __future__ import annotations

import pytest

from exporter.presets import PRESETS, retrain_preset
from exporter.retrain import RetrainConfig
from searcher import presets as search_presets
from searcher.arch.document import DocumentError, Problems, read_dataclass, write_dataclass
from searcher.training.search_config import SearchConfig, config_types


def test_every_preset_of_a_search_has_one_of_retraining() -> None:
    for space, presets in search_presets.PRESETS.items():
        assert set(presets) == set(PRESETS), space
        assert set(presets) == set(search_presets.DEFAULT_DATASETS)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_configurations_come_back_from_their_tables(name: str) -> None:
    problems = Problems("config.toml")
    retrain = retrain_preset(name)
    assert read_dataclass(RetrainConfig, write_dataclass(retrain), place="", problems=problems) == retrain
    search = search_presets.search_preset("micro", name, image_size=32)
    types = config_types("micro")
    assert read_dataclass(SearchConfig, write_dataclass(search), place="", problems=problems, types=types) == search
    problems.raise_if_any()
    assert search.preset == retrain.preset == name


@pytest.mark.parametrize(
    ("preset", "side", "stride"),
    [("quick", 16, 1), ("quick", 28, 2), ("quick", 224, 16), ("paper", 32, 1), ("paper", 33, 2), ("paper", 224, 8)],
)
def test_the_stem_brings_pictures_to_the_size_cells_start_at(preset: str, side: int, stride: int) -> None:
    assert search_presets.search_preset("micro", preset, image_size=side).network.stem_stride == stride


def test_an_unknown_preset_gets_a_suggestion() -> None:
    with pytest.raises(DocumentError, match=r"unknown preset 'papper'; .*did you mean 'paper'"):
        retrain_preset("papper")


def test_the_reference_preset_is_the_authors_script() -> None:
    search, retrain = search_presets.search_preset("micro", "reference", image_size=32), retrain_preset("reference")
    assert (search.num_epochs, search.batch_size, search.network.cells, search.network.channels) == (150, 160, 8, 20)
    assert (search.policy_steps, search.policy_samples, search.reinforce.learning_rate) == (30, 10, 3.5e-3)
    assert (search.sgd.learning_rate, search.sgd.final_learning_rate, search.sgd.weight_decay) == (0.05, 0.0005, 2e-4)
    assert (retrain.num_epochs, retrain.batch_size, retrain.sgd.weight_decay) == (630, 144, 4e-4)
    assert (search.final_network.cells, search.final_network.channels) == (17, 36)


def test_the_paper_preset_is_the_papers_text() -> None:
    search = search_presets.search_preset("micro", "paper", image_size=32)
    assert (search.num_epochs, search.policy_steps, search.policy_samples) == (310, 2000, 1)
    assert (search.policy.hidden_size, search.policy.temperature, search.policy.tanh_constant) == (100, 5.0, 2.5)
    assert (search.reinforce.learning_rate, search.reinforce.entropy_weight) == (3.5e-4, 0.1)
