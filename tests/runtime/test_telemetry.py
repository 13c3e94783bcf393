"""onnxruntime's telemetry: nothing of it happens unless the user wants it."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import click
import psutil
import pytest
from PIL import Image

import enas
from tests.runtime import language_models
from tests.runtime.commands.test_cli import write_store
from tests.runtime.conftest import CLASSES
from tests.runtime.watched import ROOT, Watch

PACKAGES = ("foundation", "charts", "datasets", "searcher", "exporter", "runtime")


def test_telemetry_is_off_before_onnxruntime_is_imported() -> None:
    """One module sees to it; whatever else imports parts of onnxruntime imports that first."""
    importers = set()
    for path in [ROOT / "enas.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]:
        text = path.read_text(encoding="utf-8")
        # Parsing all of them takes seconds.
        for node in ast.walk(ast.parse(text)) if "onnxruntime" in text else ():
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if modules == ["runtime.models"] and "ort" in [alias.name for alias in node.names]:
                break
            if any(module.partition(".")[0] == "onnxruntime" for module in modules):
                importers.add(str(path.relative_to(ROOT)))
    assert importers == {"runtime/models/ort.py"}


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_the_users_own_setting_stands(before: str | None, after: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if before is None else {"ORT_DISABLE_TELEMETRY": before}
    program = "import os, foundation.telemetry as t; t.switch_off(); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{after}\n"


@pytest.mark.parametrize("name", enas._COMMANDS)
def test_it_is_off_before_a_command_is_even_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = []

    class Group(click.Group):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
            before.append((cmd_name, os.environ.get("ORT_DISABLE_TELEMETRY")))
            return click.Command(cmd_name)

    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setattr(enas, "build_group", lambda package: Group())
    monkeypatch.setattr(sys, "argv", ["enas", name])
    with pytest.raises(SystemExit):
        enas.main(None)
    assert before == [(name, "1")]


@pytest.mark.parametrize("package", ["datasets", "runtime", "searcher", "exporter"])
def test_a_package_run_by_itself_begins_where_enas_does(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(enas, "main", lambda package: begun.append(package))
    runpy.run_module(f"{package}.__main__", run_name="__main__")
    assert begun == [package]


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "{model}", "{picture}"],
        ["evaluate", "{model}", "--dataset", "{store}"],
        ["benchmark", "{model}", "-b", "1", "-t", "0.05", "-r", "1", "--warmup", "0"],
        ["generate", "{text}", "-n", "3"],
    ],
    ids=lambda words: words[0],
)
def test_a_command_writes_nothing_into_the_home_directory_and_talks_to_nobody(
    words: list[str], model_path: Path, tmp_path: Path
) -> None:
    inputs = {
        "model": model_path,
        "picture": tmp_path / "x.png",
        "store": write_store(tmp_path / "x.h5", (0, 255), (0, 2), CLASSES),
        "text": language_models.save_run(tmp_path / "cats"),
    }
    Image.new("L", (8, 6)).save(inputs["picture"])
    watch = Watch(tmp_path)
    watch.run(*(word.format_map(inputs) for word in words))
    watch.check()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_server_writes_nothing_into_the_home_directory_and_talks_to_nobody(
    workers: int, model_path: Path, tmp_path: Path
) -> None:
    watch = Watch(tmp_path)
    words = ["serve", model_path, "--port", "0", "--lame-duck-s", "0", "--workers", workers]
    with subprocess.Popen(
        watch.command(*map(str, words)), cwd=ROOT, env=watch.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        url = re.search(r"at (http://[^ ]+),", process.stderr.readline())
        assert url is not None
        while True:
            with suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{url[1]}/v2/health/ready", timeout=30):
                break
            time.sleep(0.05)
        # The tracer passes no signal on.
        (server,) = psutil.Process(process.pid).children() if shutil.which("strace") else [process]
        server.terminate()
        assert process.wait(30) == 0
    watch.check()
