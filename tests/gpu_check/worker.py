"""A stage's process: `python -m tests.gpu_check.worker NAME …`, as `stages.command` writes it."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

from tests.gpu_check.job import Job, Record
from tests.gpu_check.stages import USERS_MISTAKE


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--device", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args(words)
    job = Job(given.device, given.folder, time.monotonic() + given.seconds, tiny=given.tiny, full=given.full)
    record = Record(given.folder / f"{given.name}.json")

    # Behind the clock's start: importing torch takes seconds of the stage's time.
    from searcher.running.device import DeviceError, prepare, resolve_device

    try:
        device = resolve_device(given.device)
    except DeviceError as error:
        print(f"error: {error}", flush=True)
        sys.exit(USERS_MISTAKE)
    prepare(device)
    import_module(f"tests.gpu_check.work.{given.name}").main(job, record, device)
    record.save()


if __name__ == "__main__":
    main(sys.argv[1:])
