"""What CONTRIBUTING.md promises: its recipes work, and each touches few files."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.datasets.conftest import idx
from tests.documents import PACKAGES, ROOT, code_blocks
from tests.runtime.conftest import SHAPE, expected_logits, tiny_graph


def apply(change: str, folder: Path) -> None:
    """Apply a `diff` block: `--- file`, then `@@` before each place, whose old lines must occur exactly once."""
    for part in re.split(r"^--- ", change, flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition("\n")
        path = folder / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for place in re.split(r"^@@\n", rest, flags=re.MULTILINE)[1:]:
            lines = place.splitlines(keepends=True)
            old = "".join(line[1:] or "\n" for line in lines if not line.startswith("+"))
            new = "".join(line[1:] or "\n" for line in lines if not line.startswith("-"))
            assert text.count(old) == 1 if old else not text, f"{name}: not once in it:\n{old}"
            text = text.replace(old, new) if old else new
        path.write_text(text, encoding="utf-8")


def recipes() -> dict[str, str]:
    """The text of each recipe by its heading."""
    headings = re.split(r"^### (.*)\n", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(headings[::2], headings[1::2], strict=True))


def sources(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.py")}


@dataclass(frozen=True)
class Changed:
    """A copy of the code after all recipes."""

    folder: Path
    files: dict[str, set[str]]
    """Which files each recipe added or changed."""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Changed:
    folder = tmp_path_factory.mktemp("changed")
    # With the compiled files, so that what is unchanged is not compiled again.
    leave_out = shutil.ignore_patterns("*.h5")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=leave_out)
    shutil.copy(ROOT / "enas.py", folder)
    files = {}
    before = sources(folder)
    for recipe, text in recipes().items():
        for language, block in code_blocks(text):
            if language == "diff":
                apply(block, folder)
            elif block.startswith("for room"):
                subprocess.run(["sh", "-ec", block], cwd=folder, check=True)
        after = sources(folder)
        files[recipe] = {name for name in after if after[name] != before.get(name)}
        before = after
    return Changed(folder, files)


@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        ("Add an operation", 2),
        ("Add a space", 4),
        ("Add a data source", 2),
        ("Add a pass over the exported graph", 2),
        ("Add an export variant", 2),
        ("Add a metric", 2),
    ],
)
def test_a_recipe_touches_few_files(changed: Changed, recipe: str, count: int) -> None:
    assert len(changed.files[recipe]) == count


def python(script: str, folder: Path, *arguments: str | Path) -> dict[str, Any]:
    """What a script says of the code in a folder, as JSON."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    words = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def said(changed: Changed) -> dict[str, Any]:
    """What the changed code does, asked in one process, for importing torch takes seconds."""
    return python(
        """
import json, random
from dataclasses import replace
import numpy as np, onnx.helper as h, torch
from onnx import TensorProto
from exporter.retraining.presets import retrain_preset
from exporter.conversion.transforms.passes import transform
from exporter.latency.probes import probe
from runtime.commands import score as cli
from runtime.scoring.calibration import Calibration
from runtime.scoring.evaluate import Evaluation
from searcher.arch.spec import Spec
from searcher.arch.tasks import ImageClassification
from searcher.latency.blocks import blocks_of_space
from searcher.nn.build import build_network
from searcher.nn.complexity import complexity_of
from searcher.presets.catalog import search_preset

def build(name, operations):
    config = search_preset(name, retrain_preset(name, "quick").preset)
    space = replace(config.search_space, operations=operations)
    task = ImageClassification(dataset="x", input_shape=(12, 12, 1), classes=("a", "b"))
    spec = Spec(name, space.random(random.Random(0)), replace(config.final_network, channels=4), task)
    network = build_network(spec)
    logits, _ = network(torch.zeros(2, 1, 12, 12))
    weights = sum(parameter.numel() for parameter in network.parameters())
    return [list(logits.shape), weights, complexity_of(spec).total.parameters]

def probed(name):
    # The shape that a probe of each of the space's own operations gives, and the block's width.
    config = search_preset(name, "quick", image_size=12)
    task = ImageClassification(dataset="x", input_shape=(12, 12, 1), classes=("a", "b"))
    blocks = blocks_of_space(name, replace(config.search_space, num_nodes=1), config.final_network, task)
    return [
        [list(probe(name, block).network(torch.zeros(2, 1, block.height, block.width))[0].shape), block.out_channels]
        for block in blocks
        if block.operation in config.search_space.operations
    ]

def value(name):
    return h.make_tensor_value_info(name, TensorProto.FLOAT, [1])

nodes = [h.make_node("Relu", ["x"], ["between"]), h.make_node("Relu", ["between"], ["y"])]
graph = h.make_graph(nodes, "g", [value("x")], [value("y")])
left = transform(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)])).graph.node
scores = Evaluation(("a", "b"), np.array([[3, 1], [0, 4]]), Calibration.of(np.ones(8), np.ones(8, bool)))
print(json.dumps({
    "operation": build("micro", ("sep_conv_7x7",)),
    "space": build("minicells", ("sep_conv_3x3", "identity")),
    "probes": probed("minicells"),
    "pass": [node.op_type for node in left],
    "metric": cli._image_fields(scores)["macro_f1"],
    "line": cli._image_text(scores).splitlines()[0],
}))
""",
        changed.folder,
    )


@pytest.mark.parametrize("recipe", ["operation", "space"])
def test_an_added_operation_or_space_builds_networks_that_cost_what_it_says(said: dict[str, Any], recipe: str) -> None:
    shape, weights, counted = said[recipe]
    assert shape == [2, 2]
    assert weights == counted


def test_an_added_space_has_probes_of_its_operations(said: dict[str, Any]) -> None:
    assert said["probes"]
    for shape, out_channels in said["probes"]:
        assert shape == [2, out_channels]


def test_an_added_pass_is_applied(said: dict[str, Any]) -> None:
    assert said["pass"] == ["Relu"]


def test_an_added_metric_is_in_both_outputs(said: dict[str, Any]) -> None:
    # F1 is 6/7 of a and 8/9 of b.
    assert said["metric"] == pytest.approx((6 / 7 + 8 / 9) / 2)
    assert "macro F1 87.30%" in said["line"]


def test_an_added_variant_is_an_option_halves_the_weights_and_keeps_the_answers(
    changed: Changed, tmp_path: Path
) -> None:
    model = onnx.helper.make_model(tiny_graph(), opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    said = python(
        """
import json, sys
from pathlib import Path
import onnx
from exporter.commands.export import export
from exporter.delivery.forms import FORMS
folder = Path(sys.argv[1])
(settings, halved), = FORMS["small"].candidates(onnx.load(folder / "model.onnx"), lambda: None)
onnx.save(halved, folder / FORMS["small"].file)
print(json.dumps({"options": [name for option in export.params for name in option.opts]}))
""",
        changed.folder,
        tmp_path,
    )
    assert {"--int8", "--half", "--half-weights"} <= set(said["options"])
    halved = onnx.load(tmp_path / "model-small.onnx")
    onnx.checker.check_model(halved, full_check=True)
    (weight,) = (tensor for tensor in halved.graph.initializer if len(tensor.dims) > 1)
    assert weight.data_type == onnx.TensorProto.FLOAT16
    images = np.full((2, *SHAPE), 77, dtype=np.uint8)
    session = onnxruntime.InferenceSession(halved.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["logits"], {"images": images})[0], expected_logits(images), atol=1e-2)


def test_an_added_data_source_builds_its_store(changed: Changed, tmp_path: Path) -> None:
    for part, count in (("train", 200), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.broadcast_to(labels[:, None, None], (count, 4, 4)).copy()
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    built = python(
        """
import json, sys
from pathlib import Path
from datasets import catalog
folder = Path(sys.argv[1])
store = catalog.open_store(catalog.fetch("kmnist", originals=folder, out=folder / "x.h5"))
print(json.dumps({"counts": dict(store.counts), "classes": store.classes}))
""",
        changed.folder,
        tmp_path,
    )
    assert built == {"counts": {"train": 180, "valid": 20, "test": 20}, "classes": list("おきすつなはまやれを")}
