from __future__ import annotations

from pathlib import Path

import pytest

from datasets import catalog
from datasets.catalog import Entry, Remote
from datasets.sources.download import RemoteFile
from datasets.store import StoreError
from tests.datasets.conftest import write_small_store


def test_the_data_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("ENAS_DATA", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert catalog.data_folder() == Path("/home/ann/.local/share/enas")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert catalog.data_folder() == Path("/data/enas")
    monkeypatch.setenv("ENAS_DATA", "/mine")
    assert catalog.data_folder() == Path("/mine")


def test_a_store_is_found_by_path_and_by_the_name_it_was_imported_under(data_folder: Path, tmp_path: Path) -> None:
    imported = write_small_store(data_folder / "pets.h5")
    elsewhere = write_small_store(tmp_path / "elsewhere.h5")
    assert catalog.load("pets") == imported
    assert catalog.load(str(elsewhere.path)) == elsewhere
    assert catalog.imported() == ("pets",)


def test_an_unknown_name_is_refused_with_a_suggestion_and_the_list(data_folder: Path) -> None:
    write_small_store(data_folder / "pets.h5")
    with pytest.raises(StoreError) as caught:
        catalog.locate("CIFAR-10")
    assert str(caught.value) == (
        "unknown data set 'CIFAR-10'; expected one of fashion-mnist-mini, shakespeare, fashion-mnist, cifar10, "
        "cifar100, ptb, wikitext-2, pets, or a path to an .h5 file; did you mean 'cifar10'?"
    )


def test_a_set_that_has_gone_is_not_told_as_a_mistyped_name(data_folder: Path) -> None:
    for name, reason in (
        ("pets", f"pets, which is not in {data_folder}; import it again, or set ENAS_DATA to the folder that holds it"),
        ("some/where.h5", "some/where.h5, which does not exist"),
    ):
        with pytest.raises(StoreError) as caught:
            catalog.check_is_here(name, named_by="runs/a was trained on")
        assert str(caught.value) == f"runs/a was trained on {reason}"
    write_small_store(data_folder / "pets.h5")
    catalog.check_is_here("pets", named_by="")
    catalog.check_is_here("cifar10", named_by="")  # which is fetched, as `locate` says


def test_a_set_that_is_not_fetched_says_how(data_folder: Path) -> None:
    with pytest.raises(StoreError, match="data set 'cifar10' is not here yet: enas data fetch cifar10"):
        catalog.locate("cifar10")


def test_a_path_that_does_not_exist_is_named(data_folder: Path) -> None:
    with pytest.raises(StoreError, match=r"some/where\.h5: no such file"):
        catalog.locate("some/where.h5")


def test_an_embedded_set_has_nothing_to_fetch(data_folder: Path) -> None:
    with pytest.raises(StoreError, match="'shakespeare' ships with the package: there is nothing to fetch"):
        catalog.fetch("shakespeare")


def test_a_strange_file_among_the_downloads_stays(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = data_folder / "downloads" / "pets"

    def download(file: RemoteFile, folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / "strange").touch()
        (folder / "pets.gz").touch()
        return folder / "pets.gz"

    files = (RemoteFile("https://example.org/pets.gz", sha256="", num_bytes=0),)
    remote = Remote(files, lambda _, path: write_small_store(path))
    monkeypatch.setattr(catalog, "download", download)
    monkeypatch.setitem(catalog._ENTRIES, "pets", Entry("pets", "pictures of pets", remote))
    assert catalog.load_images(str(catalog.fetch("pets"))).name == "small"
    assert [path.name for path in downloads.iterdir()] == ["strange"]


def test_a_store_of_the_wrong_kind_is_refused_by_name() -> None:
    assert catalog.load_text("shakespeare").tokens == "word"
    with pytest.raises(StoreError, match="fashion-mnist-mini holds images, but text is needed"):
        catalog.load_text("fashion-mnist-mini")
    with pytest.raises(StoreError, match="shakespeare holds text, but images are needed"):
        catalog.load_images("shakespeare")
