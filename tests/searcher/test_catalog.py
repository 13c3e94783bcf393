"""The published architectures, and how a user names a spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from searcher.arch.catalog import find_spec, published_names, published_spec
from searcher.arch.document import ArchitectureError
from searcher.arch.micro import MicroSize
from searcher.arch.spaces import SPACES
from searcher.arch.spec import Spec, write_spec
from searcher.nn.complexity import complexity_of
from tests.searcher.conftest import make_spec, random_architecture

PUBLISHED = Path(__file__).parents[2] / "searcher" / "arch" / "published"

# As the authors' scripts and code have them.
ENCODINGS = {
    "enas-micro-published": """
        0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1
        1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1
    """,
}

# Of the rebuilt networks, without auxiliary head.
PARAMETERS = {
    # The paper's table says 4.6 M. The authors' code gives 3.894 M, and 4.39 M with the auxiliary head.
    "enas-micro-published": 3_894_372,
}


@pytest.fixture
def own_spec() -> Spec:
    return make_spec(random_architecture(0), MicroSize(5, 4))


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
    assert complexity_of(published_spec(name)).total.parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", published_names())
def test_a_published_architecture_says_where_it_was_published(name: str) -> None:
    assert {"source", "published"} <= published_spec(name).provenance.keys()


def test_a_spec_is_found_in_a_file_a_run_and_by_its_published_name(own_spec: Spec, tmp_path: Path) -> None:
    write_spec(tmp_path / "spec.json", own_spec)
    assert find_spec(tmp_path / "spec.json") == find_spec(tmp_path) == own_spec
    assert find_spec(Path("enas-micro-published")) == published_spec("enas-micro-published")


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
        ("runs/absent", "runs/absent: no such file"),
    ],
)
def test_a_spec_that_is_not_there_is_told_in_one_line(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArchitectureError) as error:
        find_spec(Path(source))
    assert str(error.value) == message
