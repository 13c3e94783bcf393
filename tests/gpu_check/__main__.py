"""`make gpu-check`: whether the GPU path works and how fast it is, stage by stage, within ten minutes.

Writes results.json, after every stage, and results.md, with the stages' logs and tables of kernels beside them. Exits
with 1 if a check failed, and with 2 without CUDA. It installs nothing: wheels that lie in `.whl/` are used from there.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from tests.gpu_check import results as documents
from tests.gpu_check.render import results_page, with_section
from tests.gpu_check.stages import (
    STAGES,
    USERS_MISTAKE,
    Stage,
    command,
    limit_of,
    missing_packages,
    not_run,
    run_stage,
)

_PAGE = documents.ROOT / "docs" / "gpu.md"
_WHEELS = documents.ROOT / ".whl"


def main(words: Sequence[str]) -> int:
    given = options().parse_args(words)
    if given.render is not None:
        return render(given.render)
    folder = given.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    unpack_wheels(folder)
    typed = shlex.join(["python", "-m", "tests.gpu_check", *words])
    results = check(
        folder, typed, device=given.device, seconds=given.seconds, tiny=given.tiny, full=given.full, stages=STAGES
    )
    print(f"\n{results_page(results)}\n{folder / 'results.md'}")
    if given.device == "cuda" and not given.tiny:
        print(f"keep them: python -m tests.gpu_check --render {folder / 'results.json'}")
    return 1 if documents.counts(results)[1] else 0


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=documents.ROOT / "runs" / "gpu-check", help="folder of all results")
    parser.add_argument("--seconds", type=float, default=520, help="for all stages together (520)")
    parser.add_argument("--full", action="store_true", help="macro, text and torch.compile too; needs more --seconds")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="every stage at sizes for a CPU, to try the check itself")
    parser.add_argument(
        "--render", type=Path, metavar="FILE", help="keep a results.json and write the section of docs/gpu.md"
    )
    return parser


def check(
    folder: Path, typed: str, *, device: str, seconds: float, tiny: bool, full: bool, stages: Sequence[Stage]
) -> dict[str, Any]:
    """Run the stages one after the other; results.json is rewritten after each. Leaves the program without CUDA."""
    deadline = time.monotonic() + seconds
    date = datetime.now(UTC).isoformat(timespec="seconds")
    done: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    for number, stage in enumerate(stages):
        limit_s = deadline - time.monotonic()
        if not tiny:  # whose time depends on what else a CPU does
            limit_s = limit_of(stages[number:], limit_s, full=full)
        missing = missing_packages(stage)
        print(f"{stage.name} …", end=" ", flush=True)
        if missing:
            done.append(not_run(stage, f"needs {', '.join(missing)}"))
        elif limit_s < 1:
            done.append(not_run(stage, f"no time left of the {seconds:.0f} s"))
        else:
            call = command(stage, device=device, folder=folder, limit_s=limit_s, tiny=tiny, full=full)
            done.append(run_stage(stage.name, call, folder=folder, limit_s=limit_s))
        print(f"{done[-1]['status']} in {done[-1]['seconds']:.0f} s {done[-1]['reason']}".rstrip(), flush=True)
        if done[-1]["exit_status"] == USERS_MISTAKE:
            fail(done[-1]["reason"].rpartition("error: ")[2])
        results = documents.make(done, date=date, command=typed, device=device, tiny=tiny, full=full)
        write(folder / "results.json", documents.to_json(results))
        write(folder / "results.md", results_page(results))
    return results


def render(path: Path) -> int:
    """Keep results and write the section of docs/gpu.md from the newest that are kept."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        text = documents.to_json(results)
        kept = documents.KEPT / documents.kept_name(results)
        page = with_section(_PAGE.read_text(encoding="utf-8"), results)
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"{path}: {error if isinstance(error, OSError | ValueError) else 'not the results of a check'}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    write(kept, text)
    write(_PAGE, page)
    print(f"{kept.relative_to(documents.ROOT)} and {_PAGE.name} are written")
    return 0


def unpack_wheels(folder: Path) -> None:
    """Let this process and the stages import what lies in `.whl/`."""
    wheels = sorted(_WHEELS.glob("*.whl"))
    if not wheels:
        return
    packages = folder / "packages"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    sys.path.insert(0, str(packages))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH", "")]))


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(USERS_MISTAKE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
