"""onnxruntime's telemetry: nothing of it happens unless the user wants it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PACKAGES = ("foundation", "charts", "datasets", "searcher", "exporter", "runtime")
OUTSIDE = re.compile(r"(connect|sendto)\(\d+, .*(AF_INET6?\b).*")


def test_onnxruntime_is_imported_in_one_place() -> None:
    importers = set()
    for path in [ROOT / "enas.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if any(module.partition(".")[0] == "onnxruntime" for module in modules):
                importers.add(str(path.relative_to(ROOT)))
    assert importers == {"runtime/ort.py"}


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_the_users_own_setting_stands(before: str | None, after: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if before is None else {"ORT_DISABLE_TELEMETRY": before}
    program = "import os, foundation.telemetry as t; t.switch_off(); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{after}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "{model}", "{picture}"],
        ["benchmark", "{model}", "-b", "1", "-t", "0.05", "-r", "1", "--warmup", "0"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_writes_nothing_into_the_home_directory_and_talks_to_nobody(
    arguments: list[str], model_path: Path, tmp_path: Path
) -> None:
    home, trace, picture = tmp_path / "home", tmp_path / "trace", tmp_path / "x.png"
    home.mkdir()
    Image.new("L", (8, 6)).save(picture)
    words = [word.format(model=model_path, picture=picture) for word in arguments]
    tracer = ["strace", "-f", "-e", "trace=network", "-o", str(trace)] if shutil.which("strace") else []
    hidden = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    subprocess.run(
        [*tracer, sys.executable, "-m", "enas", *words],
        cwd=ROOT,
        env=environment | {"HOME": str(home)},
        capture_output=True,
        check=True,
    )
    assert [str(path) for path in home.rglob("*")] == []
    if tracer:
        assert [line for line in trace.read_text().splitlines() if OUTSIDE.search(line)] == []
