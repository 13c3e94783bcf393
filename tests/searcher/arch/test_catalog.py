"""The published architectures, and how a user names a spec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets.catalog import is_known
from searcher.arch.catalog import find_spec, published_names, published_spec
from searcher.arch.errors import ArchitectureError
from searcher.arch.space import SPACES
from searcher.arch.spaces.macro import MacroArchitecture
from searcher.arch.spaces.micro import MicroSize
from searcher.arch.spec import Spec, write_spec
from searcher.nn.build import build_network
from searcher.nn.complexity import complexity_of
from tests.searcher.conftest import make_spec, random_architecture

PUBLISHED = Path(__file__).parents[3] / "searcher" / "arch" / "published"
GOLDEN = Path(__file__).parents[2] / "golden"

# As the authors' scripts and enas_lm's README have them.
ENCODINGS = {
    "enas-micro-published": """
        0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1
        1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1
    """,
    "enas-macro-published": (GOLDEN / "published_macro_encoding.txt").read_text(encoding="utf-8"),
    "enas-recurrent-published": "0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1",
    "enas-lm-published": "0 2 1 0 2 1 2 2 4 0 5 0 3 2 6 2",
    "darts-lm-published": "0 2 1 1 1 1 1 3 2 0 5 2 3 0 5 1",
    "resnet-20": "16 1  16 3 0 0 0  32 3 0 0 0  64 3 0 0 0",
    "mobilenet-v2-small": "32 1  24 2 6 6  32 3 6 6 6  64 4 6 6 6 6",
    "inverted-small": "32 2  32 1 4  64 2 4 4  128 2 4 4",
    "narrow-small": "8 1  8 1 3  16 2 8 8  48 3 9 9 9",
}

# Of the rebuilt networks, without auxiliary head.
PARAMETERS = {
    # The paper's table says 4.6 M; the authors' code gives this, and 4.389 M with the auxiliary head.
    "enas-micro-published": 3_894_372,
    # The paper's table says 38.0 M; the authors' code gives 42.559 M, because its final network computes separable
    # convolutions as full ones.
    "enas-macro-published": 30_947_424,
    # The paper's table says 24 M. 748 is the authors' script's width: 10,000 words of 748, and 13 matrices 748×1496.
    "enas-recurrent-published": 10_000 * 748 + 13 * 748 * 2 * 748,
    # enas_lm states no size. The first node's two matrices and eight further ones, of 800×1600 each.
    "enas-lm-published": 10_000 * 800 + 10 * 800 * 2 * 800,
    "darts-lm-published": 10_000 * 800 + 10 * 800 * 2 * 800,
    # 0.27 M in the paper; without the classifier's bias, with shortcuts of 1×1 convolutions.
    "resnet-20": 272_464,
    "mobilenet-v2-small": 247_264,
    "inverted-small": 190_624,
    "narrow-small": 88_072,
}


@pytest.fixture
def own_spec() -> Spec:
    return make_spec(random_architecture(0), MicroSize(5, 4))


def num_parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", published_names())
def test_a_published_file_reads_and_writes_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    write_spec(tmp_path / "spec.json", published_spec(name))
    assert (tmp_path / "spec.json").read_bytes() == (PUBLISHED / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", published_names())
def test_a_published_architecture_is_the_one_that_was_published(name: str) -> None:
    spec = published_spec(name)
    assert SPACES[spec.space].to_published(spec.architecture).split() == ENCODINGS[name].split()


@pytest.mark.parametrize("name", published_names())
def test_a_published_network_has_its_known_size(name: str) -> None:
    spec = published_spec(name)
    assert complexity_of(spec).total.parameters == num_parameters(build_network(spec)) == PARAMETERS[name]


def test_the_auxiliary_head_of_the_published_micro_network_has_the_size_of_the_authors_code() -> None:
    assert num_parameters(build_network(published_spec("enas-micro-published"), auxiliary=True)) == 4_389_220


def test_full_convolutions_make_the_published_macro_network_as_large_as_the_authors_code() -> None:
    spec = published_spec("enas-macro-published")
    layers = [replace(layer, operation=layer.operation.removeprefix("sep_")) for layer in spec.architecture.layers]
    assert num_parameters(build_network(replace(spec, architecture=MacroArchitecture(tuple(layers))))) == 42_559_392


@pytest.mark.parametrize("name", published_names())
def test_a_published_architecture_says_where_it_was_published_and_names_a_known_data_set(name: str) -> None:
    spec = published_spec(name)
    assert {"source", "published"} <= spec.provenance.keys()
    assert is_known(spec.task.dataset)


def test_a_spec_is_found_in_a_file_a_run_and_by_its_published_name(own_spec: Spec, tmp_path: Path) -> None:
    write_spec(tmp_path / "spec.json", own_spec)
    assert find_spec(tmp_path / "spec.json") == find_spec(tmp_path) == own_spec
    assert find_spec(Path("enas-micro-published")) == published_spec("enas-micro-published")


def test_a_run_without_a_search_is_known_by_what_it_has_retrained(own_spec: Spec, tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="no such file"):
        find_spec(tmp_path)
    (tmp_path / "retrain").mkdir()
    write_spec(tmp_path / "retrain" / "spec.json", own_spec)
    assert find_spec(tmp_path) == own_spec
    other = replace(own_spec, provenance={"source": "a search"})
    write_spec(tmp_path / "spec.json", other)
    assert find_spec(tmp_path) == other


def test_a_path_that_exists_comes_before_a_published_name(
    own_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spec(tmp_path / "enas-micro-published", own_spec)
    monkeypatch.chdir(tmp_path)
    assert find_spec(Path("enas-micro-published")) == own_spec


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "enas-micro-publshed",
            f"spec: unknown spec 'enas-micro-publshed'; expected one of {', '.join(published_names())}, "
            "or a path to a spec.json or a run; did you mean 'enas-micro-published'?",
        ),
        ("absent.json", "absent.json: no such file"),
        ("runs/absent", "runs/absent: no such run directory; `enas search --run runs/absent` makes it"),
    ],
)
def test_a_spec_that_is_not_there_is_told_in_one_line(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArchitectureError) as error:
        find_spec(Path(source))
    assert str(error.value) == message
