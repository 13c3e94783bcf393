"""A page for browsers is a folder written whole, of files that are what they are called."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.delivery import onnxruntime_web
from exporter.delivery.onnxruntime_web import PACKAGE, RuntimeFilesError, runtime_files
from exporter.delivery.web import write_web
from runtime.models.artifact import ArtifactError
from tests.killed import kill_at_every_change
from tests.runtime.conftest import CLASSES, metadata, save, tiny_graph

CONTENTS = {"ort.js": b"// a library", "ort.wasm": b"\0asm"}
NAMES = {
    *("index.html", "page.css", "page.js", "pictures.js", "preprocess.js"),
    *("model.json", "model.onnx", "drawing.svg", "ort.js", "ort.wasm"),
}


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of two small files in place of the real one."""
    files = [replace(f, sha256=hashlib.sha256(CONTENTS[f.name]).hexdigest()) for f in onnxruntime_web.FILES]
    monkeypatch.setattr(onnxruntime_web, "FILES", tuple(files))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for file in onnxruntime_web.FILES:
        path = tmp_path / "package" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENTS[file.name])
    return tmp_path / "package"


@pytest.fixture
def archive(package: Path) -> Path:
    path = package.with_name("onnxruntime-web.tgz")
    with tarfile.open(path, "w:gz") as file:
        file.add(package, "package")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save(tmp_path / "bright" / "model.onnx", tiny_graph(), metadata(drawing="<svg/>"))
    return tmp_path / "bright"


def test_the_folder_holds_all_that_the_page_asks_for(run: Path, package: Path, tmp_path: Path) -> None:
    folder = write_web(run, tmp_path / "web", runtime=package)
    assert {path.name for path in folder.iterdir()} == NAMES
    text = "".join((folder / name).read_text() for name in ("index.html", "page.js", "pictures.js", "preprocess.js"))
    asked = set(re.findall(r'(?:src|href|from|fetch\(|create\()[= ]?"(?:\./)?([\w.]+)"', text))
    assert asked == NAMES - {"index.html", "drawing.svg"}
    assert "//" not in re.sub(r"(^|\s)// .*", "", text, flags=re.MULTILINE)
    about = json.loads((folder / "model.json").read_text())
    assert (about["name"], about["labels"], about["drawing"]) == ("bright", list(CLASSES), "drawing.svg")
    assert about["sha256"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()


def test_the_package_is_a_folder_an_archive_or_what_npm_packs(
    package: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1 $2" = "pack {PACKAGE}" ] && cp {archive} .\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert runtime_files(package) == runtime_files(archive) == runtime_files(None) == CONTENTS


def test_a_changed_or_missing_file_is_refused(package: Path, run: Path, tmp_path: Path) -> None:
    changed = package / onnxruntime_web.FILES[0].path
    changed.write_bytes(b"// another library")
    with pytest.raises(RuntimeFilesError, match=r"dist/ort\.wasm\.bundle\.min\.mjs is not that of onnxruntime-web@"):
        write_web(run, tmp_path / "web", runtime=package)
    changed.unlink()
    with pytest.raises(RuntimeFilesError, match=r"package: no dist/ort\.wasm\.bundle\.min\.mjs; expected the package"):
        write_web(run, tmp_path / "web", runtime=package)
    with pytest.raises(RuntimeFilesError, match="neither a folder nor an archive"):
        runtime_files(run / "model.onnx")
    assert not (tmp_path / "web").exists()


def test_an_archive_that_is_cut_short_or_damaged_is_refused(package: Path, archive: Path) -> None:
    (package / "dist" / "large").write_bytes(bytes(50_000))
    with tarfile.open(archive, "w") as file:
        file.add(package, "package")
    whole = archive.read_bytes()
    first, second = gzip.compress(whole[:20_000]), gzip.compress(whole[20_000:])
    not_deflate, wrong_checksum = first + second[:10] + bytes([7] * 20), first[:-8] + bytes(8) + second
    for data in (first, first[:-20], not_deflate, wrong_checksum):
        archive.write_bytes(data)
        with pytest.raises(RuntimeFilesError, match=r"web\.tgz: cut short or damaged; expected the package"):
            runtime_files(archive)


def test_without_npm_the_way_round_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeFilesError, match=f"not installed; `npm pack {PACKAGE}` on another machine"):
        runtime_files(None)


def test_what_npm_complains_of_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "npm").write_text("#!/bin/sh\necho 'npm error network is down' >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RuntimeFilesError, match=f"npm cannot fetch {PACKAGE}: npm error network is down"):
        runtime_files(None)


def test_a_folder_of_something_else_is_left_alone(run: Path, package: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    for folder in (tmp_path / "site", run, run / "model.onnx"):
        with pytest.raises(ArtifactError, match="there is something else"):
            write_web(run, folder, runtime=package)
    assert (tmp_path / "site" / "index.html").read_text() == "mine"


@pytest.mark.parametrize("is_there_before", [False, True])
def test_a_kill_at_any_moment_leaves_a_whole_folder_or_none(
    run: Path, package: Path, tmp_path: Path, is_there_before: bool
) -> None:
    folder = tmp_path / "web" / "page"
    if is_there_before:
        write_web(run, folder, runtime=package)
        save(run / "model.onnx", tiny_graph(), metadata(drawing="<svg/>", precision="fp16"))

    def look() -> None:
        if folder.exists():
            assert {path.name for path in folder.iterdir()} == NAMES
            sha256 = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
            assert json.loads((folder / "model.json").read_text())["sha256"] == sha256

    killed = kill_at_every_change(lambda: write_web(run, folder, runtime=package), tmp_path / "web", look)
    assert killed > len(NAMES)
    assert not list(folder.parent.glob(".*"))
    assert json.loads((folder / "model.json").read_text())["precision"] == ("fp16" if is_there_before else "fp32")
