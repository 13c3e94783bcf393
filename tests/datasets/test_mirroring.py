"""Which data sets mirroring does harm to: drawn arrows and letters, and pictures that only look unlike themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from datasets.catalog import load_images
from datasets.mirroring import look_alikes
from datasets.store import ImageStore
from datasets.store_writer import write_image_store

Draw = Callable[[ImageDraw.ImageDraw, int, np.random.Generator], None]


def arrow(draw: ImageDraw.ImageDraw, label: int, rng: np.random.Generator) -> None:
    """To the left, to the right, or upwards."""
    length, angle = rng.uniform(40, 72), (np.pi, 0.0, -np.pi / 2)[label] + rng.normal(0, 0.2)
    centre, ahead = rng.uniform(44, 68, 2), length / 2 * np.array([np.cos(angle), np.sin(angle)])
    tip = centre + ahead
    draw.line([*(centre - ahead), *tip], fill=20, width=8)
    for side in (angle + 2.5, angle - 2.5):
        draw.line([*tip, *(tip + 24 * np.array([np.cos(side), np.sin(side)]))], fill=20, width=8)


def shoe(draw: ImageDraw.ImageDraw, label: int, rng: np.random.Generator) -> None:
    """One that points to the left, flat, high or with a heel: never as any of the others does mirrored."""
    x, y = rng.uniform(8, 20), rng.uniform(64, 80)
    draw.polygon([(x, y + 16), (x + 32, y), (x + 80, y), (x + 80, y + 24), (x, y + 24)], fill=20)
    if label == 1:
        draw.rectangle((x + 56, y - 48, x + 80, y), fill=20)
    if label == 2:
        draw.rectangle((x + 72, y - 8, x + 80, y + 36), fill=90)
        draw.line((x + 24, y - 16, x + 72, y - 32), fill=20, width=8)


def drawn(path: Path, draw: Draw, *, count: int, num_classes: int, seed: int = 0) -> ImageStore:
    """A store of grey pictures 28×28 on a lighter ground, with noise."""
    rng, images = np.random.default_rng(seed), []
    labels = np.arange(count) % num_classes
    for label in labels.tolist():
        # Large at first: lines on a grid of whole pixels reach further to one side than to the other.
        image = Image.new("L", (112, 112), int(rng.integers(170, 250)))
        draw(ImageDraw.Draw(image), label, rng)
        images.append(np.asarray(image.resize((28, 28), Image.Resampling.BOX)) + rng.normal(0, 6, (28, 28)))
    pictures = np.stack(images).clip(0, 255).astype(np.uint8)[..., None]
    classes = tuple(f"class {label}" for label in range(num_classes))
    write_image_store(path, name="drawn", splits={"train": (pictures, labels)}, classes=classes, source="", licence="")
    return load_images(str(path))


@pytest.mark.parametrize(("count", "num_classes"), [(200, 2), (300, 3)])
def test_arrows_to_the_left_look_like_arrows_to_the_right(tmp_path: Path, count: int, num_classes: int) -> None:
    found = look_alikes(drawn(tmp_path / "arrows.h5", arrow, count=count, num_classes=num_classes))
    assert found is not None
    assert found.is_clear
    assert found.classes == ("class 0", "class 1")
    assert found.count == 200
    assert found.confused > 60
    pair = "pictures of 'class 0' and 'class 1'"
    assert str(found) == f"{pair} look like each other's mirrored ({found.confused} of 200)"


def test_shoes_that_all_point_one_way_may_be_mirrored(tmp_path: Path) -> None:
    assert look_alikes(drawn(tmp_path / "shoes.h5", shoe, count=240, num_classes=3)) is None


def test_clothes_may_be_mirrored() -> None:
    assert look_alikes(load_images("fashion-mnist-mini")) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3), (40, 7, 3), (224, 224, 3)])
def test_noise_of_any_size_may_be_mirrored(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, *shape), dtype=np.uint8)
    write_image_store(
        tmp_path / "noise.h5",
        name="noise",
        splits={"train": (images, np.arange(30) % 3)},
        classes=("a", "b", "c"),
        source="",
        licence="",
    )
    assert look_alikes(load_images(str(tmp_path / "noise.h5"))) is None


def test_a_large_data_set_costs_no_more_than_a_second(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1200, 40, 40, 3), dtype=np.uint8)
    splits = {"train": (images, np.arange(1200) % 10)}
    classes = tuple("abcdefghij")
    write_image_store(tmp_path / "noise.h5", name="noise", splits=splits, classes=classes, source="", licence="")
    store = load_images(str(tmp_path / "noise.h5"))
    began = time.process_time()
    assert look_alikes(store) is None
    assert time.process_time() - began < 1.0
