"""Tiny data sets and tiny settings of every space, for whole runs in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from click.testing import CliRunner, Result

from datasets.augmentation import Augmentation
from datasets.store_writer import write_image_store, write_text_store
from enas import Peers, build_group
from exporter.retraining.config import RetrainConfig
from exporter.retraining.presets import retrain_preset
from foundation.document import write_dataclass
from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.arch.spaces.recurrent import RecurrentSize, RecurrentSpace
from searcher.arch.spaces.stages import StagesSpace
from searcher.nn.recurrent import Dropout
from searcher.presets.catalog import search_preset
from searcher.running.run_folder import lock_file
from searcher.training.derive import DeriveConfig
from searcher.training.image_learner import ImageTraining
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.search_config import SearchConfig
from searcher.training.text_learner import TextTraining
from tests import forked
from tests.forked import Forked

ROOT = Path(__file__).parents[2]
CLASSES = ("bar", "dot", "blank")
VOCABULARY = ("<eos>", "<unk>", *"abcdefgh")
AUGMENTATION = Augmentation(crop_padding=1, flip=True)


def tiny_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bar, a dot, or neither: uint8 [count, 8, 8, 1] and labels [count]."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    images[labels == 0, :, 3:5] = 250
    images[labels == 1, 2:5, 2:5] = 200
    return images, labels


def tiny_text(count: int, seed: int) -> np.ndarray:
    """Letters in rising order that now and then leave one out, in lines of ten: [count]."""
    letters = np.cumsum(np.random.default_rng(seed).integers(1, 3, count)) % 8 + 2
    letters[::10] = 0
    return letters


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills; the first of pytest-xdist's processes that asks for it makes it for all."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with closing(lock_file(base / f"{name}.lock", wait_s=240)):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        splits = {"train": tiny_images(96, 0), "valid": tiny_images(33, 1), "test": tiny_images(41, 2)}
        about = {"name": "shapes", "source": "made up", "licence": "CC0-1.0"}
        write_image_store(folder / "shapes.h5", splits=splits, classes=CLASSES, **about)

    return made_once(tmp_path_factory, "shapes", make) / "shapes.h5"


@pytest.fixture(scope="session")
def text_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        splits = {"train": tiny_text(1201, 0), "valid": tiny_text(200, 1), "test": tiny_text(321, 2)}
        about = {"name": "letters", "source": "made up", "licence": "CC0-1.0"}
        write_text_store(folder / "letters.h5", splits=splits, vocabulary=VOCABULARY, **about)

    return made_once(tmp_path_factory, "letters", make) / "letters.h5"


def micro_search() -> SearchConfig:
    return replace(
        search_preset("micro", "quick", image_size=8),
        min_steps=0,
        search_space=MicroSpace(2),
        network=MicroSize(cells=3, channels=4),
        final_network=MicroSize(cells=3, channels=4),
        training=ImageTraining(augmentation=AUGMENTATION, dropout_prob=0.1, auxiliary_weight=0.2),
    )


def macro_search() -> SearchConfig:
    return replace(
        search_preset("macro", "quick", image_size=8),
        min_steps=12,  # of one step a pass over train, so that an epoch is two passes
        search_space=MacroSpace(3),
        network=MacroSize(channels=4, skip_merge="sum"),
        final_network=MacroSize(channels=4, double_channels=True),
        training=ImageTraining(augmentation=AUGMENTATION, dropout_prob=0.1),
    )


def stages_search() -> SearchConfig:
    return replace(
        search_preset("stages", "quick", image_size=8),
        search_space=StagesSpace((4, 8), (1, 2), ((4, 8), (8, 12)), (2, 2)),
        training=ImageTraining(augmentation=AUGMENTATION, dropout_prob=0.1),
    )


def recurrent_search() -> SearchConfig:
    return replace(
        search_preset("recurrent", "quick"),
        min_steps=0,
        search_space=RecurrentSpace(4),
        network=RecurrentSize(16),
        final_network=RecurrentSize(16),
        training=TextTraining(dropout=Dropout(0.1, 0.1, 0.1, 0.1), batch_norm=True),
        sgd=SgdConfig(learning_rate=5.0, final_learning_rate=0.5, momentum=0.0, clip_norm=0.25),
    )


def image_retraining(space: str) -> RetrainConfig:
    config = retrain_preset(space, "standard")
    training = replace(config.training, augmentation=replace(AUGMENTATION, cutout=2))
    return replace(config, num_epochs=3, min_steps=6, training=training, average_share=0.5)


def text_retraining(space: str) -> RetrainConfig:
    """With a rate so high that valid gets worse now and then, which starts the averaging."""
    training = TextTraining(dropout=Dropout(0.1, 0.1, 0.1, 0.1), slowness_penalty=0.1)
    sgd = SgdConfig(learning_rate=30.0, final_learning_rate=20.0, momentum=0.0, clip_norm=1.0)
    config = replace(retrain_preset(space, "quick"), num_epochs=10, min_steps=0, training=training, sgd=sgd)
    return replace(config, average_patience=1)


@dataclass(frozen=True)
class Tiny:
    """A space with its tiny data set and settings."""

    space: str
    store_path: Path
    search_config: Path
    retrain_config: Path

    def search(self, run: Path) -> list[str | Path]:
        """The command's arguments."""
        return ["search", "--space", self.space, "--config", self.search_config, "--run", run]

    def retrain(self, run: Path) -> list[str | Path]:
        return ["retrain", run, "--config", self.retrain_config]


def write_config(folder: Path, config: Any) -> Path:
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps(write_dataclass(config)))
    return path


def write_search(folder: Path, make: Callable[[], SearchConfig], store_path: Path) -> Path:
    config = replace(
        make(),
        dataset=str(store_path),
        num_epochs=3,
        batch_size=16,
        policy_start_epoch=0,
        policy_steps=2,
        policy_samples=3,
        control_samples=2,
        reward_batch_size=16,
        derivation=DeriveConfig(num_samples=5, num_batches=2, num_finalists=2),
        threads=1,
    )
    return write_config(folder, config)


@pytest.fixture(scope="session", params=["micro", "macro", "recurrent"])
def tiny(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, store_path: Path, text_path: Path
) -> Tiny:
    """Every space in turn; a test of some alone names them: `parametrize("tiny", ["micro"], indirect=True)`."""
    make_search, make_retraining, path = {
        "micro": (micro_search, image_retraining, store_path),
        "macro": (macro_search, image_retraining, store_path),
        "stages": (stages_search, image_retraining, store_path),
        "recurrent": (recurrent_search, text_retraining, text_path),
    }[request.param]
    retraining = replace(make_retraining(request.param), batch_size=16, threads=1)
    return Tiny(
        request.param,
        path,
        write_search(tmp_path_factory.mktemp("search"), make_search, path),
        write_config(tmp_path_factory.mktemp("retrain"), retraining),
    )


@pytest.fixture(scope="session")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, which nothing has disturbed; a test that writes to one takes a copy."""

    def make(folder: Path) -> None:
        here(*tiny.search(folder / "tiny"))
        here(*tiny.retrain(folder / "tiny"), "--jobs", "1")
        here("export", folder / "tiny")

    return made_once(tmp_path_factory, f"run-{tiny.space}", make) / "tiny"


@pytest.fixture(scope="session")
def search_config(tmp_path_factory: pytest.TempPathFactory, store_path: Path) -> Path:
    """The micro search's."""
    return write_search(tmp_path_factory.mktemp("search"), micro_search, store_path)


def enas(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, on one thread."""
    process = start(*arguments)
    output, errors = process.communicate(timeout=240)
    assert process.returncode is not None
    assert not check or process.returncode == 0, errors
    return subprocess.CompletedProcess(command(*arguments), process.returncode, output, errors)


def start(*arguments: str | Path) -> Forked:
    """Begin the command line in a process of its own, on one thread."""
    return Forked(forked.enas, *map(str, arguments), env=environment())


def here(*arguments: str | Path, check: bool = True) -> Result:
    """Run the command line in this process, which saves a second or more."""
    done = CliRunner().invoke(build_group(), [str(argument) for argument in arguments], obj=Peers())
    assert not check or done.exit_code == 0, done.exception or done.stderr
    return done


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "enas", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
