"""The server before clients that are not ours; `make test-clients` installs them in an environment of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.serving.conftest import ROOT, Server, serving

CLIENTS = ROOT / ".venv-clients" / "bin"
pytestmark = pytest.mark.skipif(not (CLIENTS / "schemathesis").exists(), reason="needs make test-clients")

# The document tells of 501 and 503, and of no 500: that is what a status outside of it would be.
CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def own_server(repository_path: Path) -> Iterator[Server]:
    """One that these tests may load and unload models of."""
    with serving(repository_path, "--max-batch-size", "8") as server:
        yield server


def run(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = [str(CLIENTS / program), *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=280)


def test_tritonclient_finds_what_our_extensions_promise(own_server: Server, tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("triton_conformance.py"))
    done = run("python", script, f"127.0.0.1:{own_server.port}", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("as promised") == 7


def test_schemathesis_finds_no_answer_that_the_openapi_document_does_not_tell_of(
    own_server: Server, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{own_server.port}/openapi.json"
    options = ["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "100", "--seed", "1"]
    done = run("schemathesis", "run", url, *options, folder=tmp_path)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert own_server.get("/v2/health/live").status == 200
