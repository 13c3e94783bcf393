"""Commands under watch: what they put into the home directory, whom they talk to, how onnxruntime is imported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CALLS = re.compile(r"(?:connect|sendto|sendmsg|sendmmsg)\(\d+, .*AF_INET6?\b")
_THIS_MACHINE = re.compile(r'"(?:127\.[\d.]+|::1)"')
_NAME_SERVICE = re.compile(r"port=htons\(53\)")
# Python runs a file of this name first, whatever it is to run.
_FIRST = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            with open(os.environ["IMPORTS"], "a") as file:
                print(os.environ.get("ORT_DISABLE_TELEMETRY"), file=file)

sys.meta_path.insert(0, Finder())
"""


class Watch:
    """A command line's surroundings: a home directory of its own and, where there is strace, a record of its calls."""

    def __init__(self, folder: Path) -> None:
        self._home, self._trace, self._imports = folder / "home", folder / "trace", folder / "imports"
        (folder / "first").mkdir()
        (folder / "first" / "sitecustomize.py").write_text(_FIRST)
        self._home.mkdir()
        self._imports.touch()
        hidden = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
        self.environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
            "HOME": str(self._home),
            "IMPORTS": str(self._imports),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(folder / "first"),
        }

    def command(self, *words: str | Path) -> list[str]:
        """`enas` with these words, traced with all that it starts."""
        tracer = ["strace", "-f", "--seccomp-bpf", "-e", "trace=network", "-o", str(self._trace)]
        return [*(tracer if shutil.which("strace") else []), sys.executable, "-m", "enas", *map(str, words)]

    def run(self, *words: str | Path) -> None:
        """Run `enas` with these words to its end. Raises: AssertionError: it fails."""
        done = subprocess.run(
            self.command(*words), cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    @property
    def imports(self) -> set[str]:
        """What ORT_DISABLE_TELEMETRY was whenever a process was about to import onnxruntime."""
        return set(self._imports.read_text().split())

    @property
    def home(self) -> list[str]:
        """What lies in the home directory but in our own folder, where data sets and latency tables are kept."""
        own = self._home / ".local" / "share" / "enas"
        found = {str(path) for path in self._home.rglob("*") if not own.is_relative_to(path)}
        return sorted(path for path in found if not Path(path).is_relative_to(own))

    @property
    def calls(self) -> list[str]:
        """Attempts to reach another machine, or a name service anywhere; none where there is no strace."""
        lines = self._trace.read_text().splitlines() if self._trace.exists() else []
        return [
            line
            for line in lines
            if _CALLS.search(line) and (_NAME_SERVICE.search(line) or not _THIS_MACHINE.search(line))
        ]

    def check(self) -> None:
        """The command imported onnxruntime, with telemetry off, and left and told nothing."""
        assert (self.imports, self.home, self.calls) == ({"1"}, [], [])
