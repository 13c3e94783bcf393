"""The directions in which the packages may import one another, and what a command must not load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("foundation", "charts", "datasets", "searcher", "exporter", "runtime")

# What every room of exporter may import, beside the rooms below it.
_EXPORTER = {
    "searcher.arch",
    "searcher.latency",
    "searcher.lineage",
    "searcher.nn",
    "searcher.presets.published",
    "searcher.report.drawing",
    "searcher.spaces",
    "searcher.training.averaging",
    "searcher.running",
    "searcher.training.distillation",
    "searcher.training.weights_trainer",
    "searcher.training.image_learner",
    "searcher.training.learner",
    "searcher.training.task_kinds",
    "searcher.training.text_learner",
    "searcher.training.mirroring",
    "searcher.training.optimizers.optimizer",
    "searcher.commands.options",
    "datasets",
    "runtime",
}
# What each room may import of ours, beside itself and the ground floor. A room is the longest prefix that is listed.
_GROUND = ("foundation", "charts")
ALLOWED = {
    "foundation": set(),
    "charts": set(),
    "datasets": set(),
    "runtime.models": {"datasets.tokens"},
    "runtime.scoring": {
        "runtime.models",
        "datasets.store",
        "datasets.streams",
        "datasets.tokens",
    },
    "runtime.benchmarking": {"charts", "runtime.models"},
    "runtime.serving": {"runtime.models"},
    "runtime.serving.batching": {"runtime.serving.errors"},
    "runtime.serving.connections": {
        "runtime.models",
        "runtime.serving.errors",
        "runtime.serving.metrics",
        "runtime.serving.settings",
    },
    "runtime.serving.protocol": {"runtime.models", "runtime.serving.connections", "runtime.serving.errors"},
    "runtime.serving.models": {
        "runtime.models",
        "runtime.serving.batching",
        "runtime.serving.errors",
        "runtime.serving.metrics",
        "runtime.serving.protocol.signature",
        "runtime.serving.settings",
    },
    "runtime.serving.endpoints": {
        "runtime.models",
        "runtime.serving.batching",
        "runtime.serving.connections",
        "runtime.serving.errors",
        "runtime.serving.models",
        "runtime.serving.protocol",
        "runtime.serving.settings",
    },
    "runtime.commands": {
        "charts",
        "runtime",
        "datasets.store",
        "datasets.catalog",
        "datasets.tokens",
    },
    "searcher.arch": set(),
    # Of the spaces only their names are known; what a space is made of knows no space.
    "searcher.arch.space_names": {"searcher.arch.spaces"},
    "searcher.arch.spaces": {
        "searcher.arch.costs",
        "searcher.arch.decisions",
        "searcher.arch.errors",
        "searcher.arch.limits",
        "searcher.arch.operations",
        "searcher.arch.reading",
        "searcher.arch.stages",
        "searcher.arch.stems",
        "searcher.arch.tasks",
    },
    "searcher.arch.stages": {
        "searcher.arch.costs",
        "searcher.arch.errors",
        "searcher.arch.limits",
        "searcher.arch.reading",
        "searcher.arch.stems",
    },
    "searcher.arch.operations": {"searcher.arch.costs"},
    "searcher.arch.reading": {"searcher.arch.errors"},
    "searcher.nn": {"searcher.arch"},
    "searcher.nn.kernels": set(),
    # The registry names what lies above it and loads it when asked; build, complexity and graph ask.
    "searcher.spaces": {"searcher.arch"},
    "searcher.nn.build": {"searcher.arch", "searcher.nn", "searcher.spaces"},
    "searcher.nn.complexity": {"searcher.arch", "searcher.spaces"},
    "searcher.views": {
        "searcher.arch",
        "searcher.latency.blocks",
        "searcher.nn.complexity",
        "searcher.report.graph",
    },
    # Tables and targets are read here; what makes and measures them is in exporter.
    "searcher.latency": {"searcher.arch", "searcher.spaces"},
    "searcher.controller": {"searcher.arch.decisions", "searcher.arch.limits"},
    # Which product of a run is of what: asked by all that read a run, so that it loads nothing.
    "searcher.lineage": {"searcher.arch"},
    "searcher.report": {
        "charts",
        "searcher.arch",
        "searcher.lineage",
        "searcher.nn.complexity",
        "searcher.spaces",
        "searcher.running.metrics",
        "datasets.tokens",
    },
    "searcher.watch": {"searcher.report", "searcher.lineage"},
    "searcher.commands.watch": {"searcher.watch"},
    "searcher.training": {
        "searcher.arch",
        "searcher.nn",
        "searcher.controller",
        "searcher.latency.target",
        "searcher.running",
        "datasets",
    },
    # What retraining shares with the search must not know the controller.
    "searcher.training.weights_trainer": {
        "searcher.running.distributed",
        "searcher.training.optimizers.flat_sgd",
        "searcher.training.learner",
        "searcher.training.optimizers.optimizer",
        "searcher.training.optimizers.sharpness",
    },
    "searcher.training.learner": set(),
    "searcher.training.distillation": {"datasets"},
    "searcher.training.image_learner": {
        "searcher.running.device",
        "searcher.training.distillation",
        "searcher.running.distributed",
        "searcher.training.learner",
        "datasets",
    },
    "searcher.training.text_learner": {
        "searcher.nn.recurrent",
        "searcher.running.device",
        "searcher.running.distributed",
        "searcher.training.learner",
        "datasets",
    },
    "searcher.training.task_kinds": {
        "searcher.arch",
        "searcher.training.image_learner",
        "searcher.training.learner",
        "searcher.training.optimizers.optimizer",
        "searcher.training.text_learner",
        "datasets",
    },
    # Of networks an optimiser knows which parameters a pass uses together.
    "searcher.training.optimizers.optimizer": {
        "searcher.nn.banks",
        "searcher.training.optimizers.light",
        "searcher.training.optimizers.muon",
    },
    "searcher.training.optimizers.muon": {"searcher.training.optimizers.light"},
    "searcher.training.optimizers.light": set(),
    "searcher.training.optimizers.sharpness": set(),
    "searcher.training.optimizers.flat_sgd": {
        "searcher.nn.banks",
        "searcher.nn.flat",
        "searcher.training.optimizers.light",
        "searcher.training.optimizers.optimizer",
    },
    # What any long run stands on must not know what is trained.
    "searcher.running": set(),
    "searcher.training.averaging": {"searcher.running.distributed", "searcher.training.learner"},
    "searcher.training.search_config": {
        "searcher.arch",
        "searcher.controller",
        "searcher.latency.target",
        "searcher.training.derive",
        "searcher.running.device",
        "searcher.training.task_kinds",
        "searcher.training.optimizers.optimizer",
    },
    "searcher.commands.options": {
        "searcher.arch.space_names",
        "searcher.running.executors",
        "searcher.running.interrupt",
        "searcher.running.jobs",
        "searcher.running.pacing",
        "searcher.running.run_folder",
    },
    # What runs jobs must not know what is trained.
    "searcher.presets": {"searcher", "datasets.augmentation"},
    "searcher.presets.published": {
        "searcher.controller",
        "searcher.training.optimizers.optimizer",
        "datasets.augmentation",
    },
    # From what the user says to a configuration; the command itself only runs it.
    "searcher.commands.trainings": {
        "searcher.commands.options",
        "searcher.running.device",
        "searcher.running.executors",
        "searcher.running.jobs",
        "searcher.running.pacing",
    },
    "searcher.commands.advice": {"searcher.arch.errors", "searcher.lineage"},
    "searcher.commands.search_request": {"searcher"},
    "searcher.commands.search": {"searcher"},
    "searcher.commands.spec": {"searcher"},
    "searcher.commands.report": {"searcher.report"},
    "exporter.conversion": _EXPORTER,
    "exporter.latency": _EXPORTER | {"exporter.conversion"},
    "exporter.retraining": _EXPORTER,
    "exporter.delivery": _EXPORTER | {"exporter.conversion", "exporter.latency", "exporter.retraining"},
    # What judges a search, and what chooses by training, alone know both.
    "exporter.selection": {"exporter.latency", "exporter.retraining", "searcher", "datasets"},
    "exporter.judging": {
        "exporter.conversion",
        "exporter.delivery",
        "exporter.latency",
        "exporter.retraining",
        "exporter.selection.searches",
        "exporter.selection.standings",
        "exporter.selection.strata",
        "searcher",
        "datasets",
        "runtime",
    },
    "exporter.commands": {"exporter", "searcher", "datasets", "runtime"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def our_imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from searcher.training import device` imports a module, `from …device import prepare` a name of one.
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                place = ROOT / whole.replace(".", "/")
                is_module = place.with_suffix(".py").exists() or place.is_dir()
                found.add(whole if is_module else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.partition(".")[0] in PACKAGES}


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


@pytest.mark.parametrize(
    ("module", "path"), list(modules()), ids=lambda value: str(value) if "/" not in str(value) else ""
)
def test_imports_run_one_way(module: str, path: Path) -> None:
    if module.endswith("__main__"):
        return
    room = max((room for room in ALLOWED if within(module, room)), key=len, default=None)
    if room is None:  # the package `searcher` itself, which holds nothing
        assert not our_imports(path)
        return
    allowed = {room, *ALLOWED[room], *({"foundation"} if room not in _GROUND else set())}
    wrong = {name for name in our_imports(path) if not any(within(name, other) for other in allowed)}
    assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", [p for _, p in modules() if p.name == "__init__.py"], ids=lambda p: p.parent.name)
def test_package_files_are_empty(path: Path) -> None:
    assert path.read_text() == ""


def test_every_folder_of_modules_is_a_package_and_so_installed() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert found == [f"{package}*" for package in PACKAGES]


def test_the_runtime_alone_is_installed_without_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {re.split(r"[ ;<>=\[]", line)[0] for line in project["dependencies"]}
    models = {"click", "h5py", "numpy", "onnxruntime", "onnxruntime-gpu", "pillow", "tqdm"}
    serving = {"httptools", "orjson", "prometheus-client", "starlette", "uvicorn", "uvloop"}
    assert base == models | serving
    extras = project["optional-dependencies"]
    assert any(line.startswith("torch>=2.9") for line in extras["train"])
    assert any(line.startswith("onnxruntime-gpu[cuda,cudnn]") for line in extras["runtime-cuda"])


def test_every_package_is_pinned_in_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.match(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["train"],
        *project["optional-dependencies"]["cluster"],
        *project["optional-dependencies"]["dev"],
    ]
    assert {re.split(r"[ ;<>=\[]", line)[0].lower() for line in wanted} <= pinned
    assert "torch==2.13.0" in lines


def loaded_by(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import enas; enas.build_group().get_help(enas.click.Context(enas.build_group()))",
            {"torch", "onnx", "numpy"},
        ),
        (
            "import runtime.commands.score, runtime.benchmarking.clients, runtime.scoring.evaluate",
            {"torch", "onnx", "onnxscript"},
        ),
        ("import datasets.cli, datasets.catalog, datasets.sources.own_pictures", {"torch", "onnx", "onnxruntime"}),
        (
            "import searcher.arch.catalog, searcher.report.drawing, searcher.report.text, searcher.report.complexity, "
            "searcher.watch, searcher.commands.watch",
            {"torch", "onnx", "numpy", "h5py"},
        ),
        (
            "import searcher.training.weights_trainer, searcher.running.run_folder, searcher.nn.build",
            {"onnx", "onnxruntime"},
        ),
    ],
)
def test_a_room_loads_nothing_heavy_that_it_does_not_need(statement: str, absent: set[str]) -> None:
    assert not loaded_by(statement) & absent
