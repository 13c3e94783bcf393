"""The retraining presets: whole, valid, and one for each preset of the search."""

from __future__ import annotations

import pytest

from exporter.retraining.config import RetrainConfig
from exporter.retraining.config import config_types as retrain_types
from exporter.retraining.presets import PRESETS, presets_of, retrain_preset
from foundation.document import DocumentError, Problems, read_dataclass, write_dataclass
from searcher.arch.catalog import published_names, published_spec
from searcher.arch.space import SPACES
from searcher.presets import catalog
from searcher.spaces import search_space
from searcher.training.search_config import SearchConfig, config_types

NAMES = [(space, name) for space, presets in PRESETS.items() for name in presets]


def test_every_preset_of_a_search_has_one_of_retraining() -> None:
    for space in SPACES:
        presets = search_space(space).presets
        assert set(presets.PRESETS) == set(presets_of(space)), space


@pytest.mark.parametrize(("space", "name"), NAMES)
def test_configurations_come_back_from_their_tables(space: str, name: str) -> None:
    problems = Problems("config.toml")
    retrain = retrain_preset(space, name)
    types = retrain_types(space)
    assert read_dataclass(RetrainConfig, write_dataclass(retrain), place="", problems=problems, types=types) == retrain
    search = catalog.search_preset(space, name)
    types = config_types(space)
    assert read_dataclass(SearchConfig, write_dataclass(search), place="", problems=problems, types=types) == search
    problems.raise_if_any()
    assert search.preset == retrain.preset == name


@pytest.mark.parametrize(
    ("preset", "side", "stride"),
    [("quick", 16, 1), ("quick", 28, 2), ("quick", 224, 16), ("paper", 32, 1), ("paper", 33, 2), ("paper", 224, 8)],
)
def test_the_stem_brings_pictures_to_the_size_cells_start_at(preset: str, side: int, stride: int) -> None:
    assert catalog.search_preset("micro", preset, image_size=side).network.stem_stride == stride


@pytest.mark.parametrize("name", PRESETS["macro"])
def test_macro_networks_are_searched_with_summed_skips_unless_the_paper_says_otherwise(name: str) -> None:
    search, retrain = catalog.search_preset("macro", name, image_size=32), retrain_preset("macro", name)
    assert search.network.skip_merge == ("concat" if name == "paper" else "sum")
    assert search.final_network.skip_merge == "concat"
    assert (search.reinforce.skip_weight, search.reinforce.skip_target) == (0.8, 0.4)
    for training in (search.training, retrain.training):
        assert (training.auxiliary_weight, training.drop_path_prob) == (0.0, 0.0)


def test_the_reference_for_text_drops_and_decays_what_enas_lm_does() -> None:
    """enas_lm has two masks on a cell's input, drop_i and drop_x; and adds its decay times the squared norm."""
    search, retrain = catalog.search_preset("recurrent", "reference"), retrain_preset("recurrent", "reference")
    kept = [1 - config.training.dropout.input for config in (search, retrain)]
    assert kept == pytest.approx([(1 - 0.2) * (1 - 0.75), (1 - 0.175) * (1 - 0.725)])
    assert retrain.sgd.weight_decay == pytest.approx(2 * 8e-7)


def test_the_stages_space_says_that_nobody_has_published_a_search_of_it() -> None:
    message = r"unknown preset 'paper'; .*standard, deploy; nobody has published a search of the space stages"
    with pytest.raises(DocumentError, match=message):
        catalog.search_preset("stages", "paper")


def test_an_unknown_preset_gets_a_suggestion() -> None:
    with pytest.raises(DocumentError, match=r"unknown preset 'papper'; .*did you mean 'paper'"):
        retrain_preset("micro", "papper")


@pytest.mark.parametrize("name", published_names())
def test_a_published_architecture_is_retrained_with_a_preset_of_its_space(name: str) -> None:
    spec = published_spec(name)
    assert spec.provenance["preset"] in PRESETS[spec.space]


def test_the_reference_preset_is_the_authors_script() -> None:
    search, retrain = catalog.search_preset("micro", "reference", image_size=32), retrain_preset("micro", "reference")
    assert (search.num_epochs, search.batch_size, search.network.cells, search.network.channels) == (150, 160, 8, 20)
    assert (search.policy_steps, search.policy_samples, search.reinforce.learning_rate) == (30, 10, 3.5e-3)
    assert (search.sgd.learning_rate, search.sgd.final_learning_rate, search.sgd.weight_decay) == (0.05, 0.0005, 2e-4)
    assert (retrain.num_epochs, retrain.batch_size, retrain.sgd.weight_decay) == (630, 144, 4e-4)
    assert (search.final_network.cells, search.final_network.channels) == (17, 36)


def test_the_macro_reference_preset_is_the_authors_script() -> None:
    search, retrain = catalog.search_preset("macro", "reference", image_size=32), retrain_preset("macro", "reference")
    assert (search.num_epochs, search.batch_size, search.network.channels) == (310, 128, 36)
    assert (search.search_space.num_layers, search.search_space.stem_anchor) == (12, False)
    assert (search.policy_steps, search.policy_samples, search.reinforce.learning_rate) == (50, 20, 1e-3)
    assert (search.policy.hidden_size, search.policy.temperature, search.policy.tanh_constant) == (64, 1.0, 1.5)
    assert (search.sgd.learning_rate, search.sgd.final_learning_rate, search.sgd.weight_decay) == (0.05, 0.0005, 5e-4)
    assert (retrain.num_epochs, retrain.batch_size, retrain.sgd.weight_decay) == (310, 100, 4e-4)
    assert (retrain.sgd.final_learning_rate, retrain.training.dropout_prob) == (0.001, 0.5)
    assert search.final_network.channels == 96
    assert search.final_network.double_channels


def test_the_paper_preset_is_the_papers_text() -> None:
    search = catalog.search_preset("micro", "paper", image_size=32)
    assert (search.num_epochs, search.policy_steps, search.policy_samples) == (310, 2000, 1)
    assert (search.policy.hidden_size, search.policy.temperature, search.policy.tanh_constant) == (100, 5.0, 2.5)
    assert (search.reinforce.learning_rate, search.reinforce.entropy_weight) == (3.5e-4, 0.1)
