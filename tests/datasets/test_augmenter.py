"""What is done to whole batches of images is what anybody would write for one; a plain twin or Pillow says what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from datasets import colours, warps
from datasets.augmentation import Augmentation, AugmentationError
from datasets.batches import ImageBatches
from datasets.mixing import draw_mixing, mix
from datasets.store import ImageStore
from datasets.trivial_augment import COLOURS, OPERATIONS, WARPS, apply_trivial, draw_trivial
from foundation.seeds import numpy_generator
from tests.datasets.conftest import write_small_store

ALL = Augmentation(
    flip=True,
    trivial_augment=True,
    resized_crop=0.5,
    rotation=20,
    shear=10,
    scale=0.2,
    brightness=0.4,
    contrast=0.4,
    colour=0.4,
    cutout=3,
    erase_prob=0.5,
    mixup=0.4,
    cutmix=1.0,
)
SHAPES = pytest.mark.parametrize("shape", [(8, 6, 3), (7, 9, 1), (1, 5, 3)], ids=str)


def pictures(count: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Smooth enough that a value's neighbours tell of it, uint8 [count, H, W, C]."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


# --- warps ------------------------------------------------------------------------------------------------------------


def warped(picture: np.ndarray, mapping: np.ndarray) -> np.ndarray:
    """One picture [H, W, C] by a map [2, 3], pixel by pixel."""
    height, width, channels = picture.shape
    result = np.zeros((height, width, channels))
    for row in range(height):
        for column in range(width):
            x, y = mapping @ [column + 0.5 - width / 2, row + 0.5 - height / 2, 1]
            x, y = x + width / 2 - 0.5, y + height / 2 - 0.5
            for i in (int(np.floor(y)), int(np.floor(y)) + 1):
                for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        result[row, column] += (1 - abs(y - i)) * (1 - abs(x - j)) * picture[i, j]
    return result


@SHAPES
def test_a_warped_batch_equals_its_plain_twin(shape: tuple[int, int, int]) -> None:
    batch, augmentation = pictures(9, shape), Augmentation(rotation=180, shear=40, scale=0.5, resized_crop=0.3)
    maps = warps.draw_warps(np.random.default_rng(0), augmentation, batch.shape)
    expected = np.stack([warped(one, each) for one, each in zip(batch, maps.double().numpy(), strict=True)])
    np.testing.assert_allclose(warps.warp(torch.from_numpy(batch), maps), expected, atol=0.02)


def corner_of(**how: float) -> tuple[int, int]:
    """Where the one bright pixel of a picture 9×9 goes, that stood one to the right of the middle: row, column."""
    picture = np.zeros((1, 9, 9, 1), np.uint8)
    picture[0, 4, 5] = 200
    maps = torch.from_numpy(warps.affine(**{key: np.array([value]) for key, value in how.items()})).float()
    found = warps.warp(torch.from_numpy(picture), maps)[0, :, :, 0]
    return divmod(int(found.argmax()), 9)


def test_maps_turn_clockwise_scale_and_shift_right_and_down() -> None:
    assert corner_of(turn=np.pi / 2) == (5, 4)
    assert corner_of(factor=3.0) == (4, 7)
    assert corner_of(shift_x=2.0, shift_y=3.0) == (7, 7)
    assert corner_of(lean_y=np.arctan(2.0), shift_x=-1.0) == (6, 4)


def test_what_is_drawn_stays_within_its_bounds_and_reaches_them() -> None:
    maps = warps.draw_warps(np.random.default_rng(0), Augmentation(resized_crop=0.25), (4000, 40, 30, 3)).numpy()
    sides = maps[:, [0, 1], [0, 1]]
    area, aspect = sides.prod(1), sides[:, 0] / sides[:, 1]
    assert 0.24 < area.min() < 0.27
    assert 0.95 < area.max() <= 1
    assert (aspect > 0.5).all()
    assert (aspect < 2).all()
    room = np.array([30, 40]) * (1 - sides) / 2
    assert (np.abs(maps[:, :, 2]) <= room + 1e-5).all()  # so that no window leaves the picture
    turned = warps.draw_warps(np.random.default_rng(0), Augmentation(rotation=30, scale=0.5), (4000, 8, 8, 1)).numpy()
    factors = 1 / np.sqrt(np.linalg.det(turned[:, :, :2]))
    angles = np.degrees(np.arctan2(turned[:, 0, 1], turned[:, 0, 0]))
    assert (factors.min(), factors.max()) == pytest.approx((1 / 1.5, 1.5), abs=0.01)
    assert (angles.min(), angles.max()) == pytest.approx((-30, 30), abs=0.3)


# --- colours ----------------------------------------------------------------------------------------------------------


def by_pillow(operation: str, picture: np.ndarray, strength: float) -> np.ndarray:
    """One picture uint8 [H, W, C]."""
    image = Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)
    enhancers: dict[str, Callable[[Image.Image], Any]] = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "colour": ImageEnhance.Color,
        "sharpness": ImageEnhance.Sharpness,
    }
    if operation in enhancers:
        done = enhancers[operation](image).enhance(strength)
    else:
        done = {
            "posterize": lambda: ImageOps.posterize(image, int(strength)),
            "solarize": lambda: ImageOps.solarize(image, strength),
            "autocontrast": lambda: ImageOps.autocontrast(image),
            "equalize": lambda: ImageOps.equalize(image),
        }[operation]()
    return np.asarray(done).reshape(picture.shape)


STRENGTHS = {"posterize": [2.0, 5.0, 8.0], "solarize": [0.0, 100.0, 255.0]}


@pytest.mark.parametrize("shape", [(20, 16, 3), (17, 19, 1)], ids=str)
@pytest.mark.parametrize("operation", COLOURS)
def test_colours_of_a_batch_are_those_that_pillow_gives_each(operation: str, shape: tuple[int, int, int]) -> None:
    batch = pictures(6, shape) // np.array([1, 2, 3, 1, 1, 1], np.uint8)[:, None, None, None]
    batch[5] = 77  # nothing to stretch or to equalise
    for strength in STRENGTHS.get(operation, [0.0, 0.4, 1.0, 1.9]):
        found = COLOURS[operation](torch.from_numpy(batch).float(), torch.full((6,), strength))
        expected = np.stack([by_pillow(operation, one, strength) for one in batch])
        # Pillow rounds in between: the mean grey, grey pixels, the blurred picture.
        np.testing.assert_allclose(found, expected, atol=2.01, err_msg=str(strength))
        if operation in ("posterize", "solarize", "equalize"):
            np.testing.assert_array_equal(found, expected)


def test_sharpness_blurs_as_pillows_filter_does() -> None:
    batch = pictures(2, (9, 8, 3))
    found = colours.sharpen(torch.from_numpy(batch).float(), torch.zeros(2))
    expected = [np.asarray(Image.fromarray(one).filter(ImageFilter.SMOOTH)) for one in batch]
    np.testing.assert_allclose(found, np.stack(expected), atol=1.01)


def test_factors_are_drawn_for_each_picture_and_in_turn_applied() -> None:
    augmentation = Augmentation(brightness=0.5, contrast=0.25, colour=1.0)
    factors = colours.draw_factors(np.random.default_rng(0), augmentation, (2000, 4, 4, 3))
    assert factors.amin(1).tolist() == pytest.approx([0.5, 0.75, 0.0], abs=0.01)
    assert factors.amax(1).tolist() == pytest.approx([1.5, 1.25, 2.0], abs=0.01)
    batch = pictures(5, (4, 4, 3))
    found = colours.recolour(torch.from_numpy(batch).float(), factors[:, :5], augmentation)
    for picture, result, (brightness, contrast, colour) in zip(batch, found, factors[:, :5].T.tolist(), strict=True):
        expected = picture
        for operation, strength in (("brightness", brightness), ("contrast", contrast), ("colour", colour)):
            expected = by_pillow(operation, expected, strength)
        np.testing.assert_allclose(result, expected, atol=4)


# --- TrivialAugment ---------------------------------------------------------------------------------------------------


@SHAPES
def test_every_picture_undergoes_the_one_operation_it_drew(shape: tuple[int, int, int]) -> None:
    batch = pictures(200, shape)
    drawn = draw_trivial(np.random.default_rng(1), batch.shape)
    found = apply_trivial(torch.from_numpy(batch), drawn).numpy()
    operations = np.repeat(OPERATIONS, drawn.counts)
    assert set(operations) == set(OPERATIONS)
    assert sorted(drawn.places.tolist()) == list(range(200))
    maps = iter(drawn.maps.double().numpy())
    for place, operation, strength in zip(drawn.places.tolist(), operations, drawn.strengths.tolist(), strict=True):
        picture = batch[place]
        if operation == "identity":
            expected, atol = picture, 0.0
        elif operation in WARPS:
            expected, atol = warped(picture, next(maps)), 0.02
        elif min(shape[:2]) < 3 and operation == "sharpness":
            expected, atol = picture, 0.01  # all of it is border
        else:
            expected, atol = by_pillow(operation, picture, strength), 2.01
        np.testing.assert_allclose(found[place], expected, atol=atol, err_msg=f"{operation} {strength}")


def test_strengths_are_those_of_the_papers_wide_space() -> None:
    drawn = draw_trivial(np.random.default_rng(0), (20_000, 40, 40, 3))
    ends = np.cumsum(drawn.counts)
    of = {
        name: drawn.strengths[end - count : end]
        for name, count, end in zip(OPERATIONS, drawn.counts, ends, strict=True)
    }
    expected = {
        "shear_x": (-0.99, 0.99),
        "translate_y": (-32, 32),
        "rotate": (-135, 135),
        "colour": (0.01, 1.99),
        "posterize": (2, 8),
        "solarize": (0, 255),
    }
    for name, bounds in expected.items():
        assert (of[name].min().item(), of[name].max().item()) == pytest.approx(bounds, abs=1e-5)
        assert len(of[name].unique()) == {"posterize": 7, "solarize": 31}.get(name, 61), name
    assert min(drawn.counts) > 1250


# --- mixing -----------------------------------------------------------------------------------------------------------


@SHAPES
@pytest.mark.parametrize("alphas", [(0.7, 0.0), (0.0, 1.0), (0.7, 1.0)], ids=["mixup", "cutmix", "both"])
def test_a_mixed_batch_and_its_labels_equal_their_plain_twin(
    shape: tuple[int, int, int], alphas: tuple[float, float]
) -> None:
    height, width, channels = shape
    images = torch.randn(40, height, width, channels, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    labels = torch.arange(40) % 3
    augmentation = Augmentation(mixup=alphas[0], cutmix=alphas[1])
    drawn = draw_mixing(np.random.default_rng(0), augmentation, (40, *shape))
    mixed, shares = mix(images, labels, drawn, num_classes=3)
    kinds = set()
    for number, (partner, share, top, left, bottom, right) in enumerate(drawn.T.tolist()):
        first, second = images[number], images[int(partner)]
        expected = first.clone()
        if share:
            expected = (1 - share) * first + share * second
        box = slice(int(top), int(bottom)), slice(int(left), int(right))
        expected[:, *box] = expected[:, *box] if share else second[:, *box]
        whole = share or (bottom - top) * (right - left) / (height * width)
        kinds.add("mixup" if share else "cutmix")
        torch.testing.assert_close(mixed[number], expected)
        wanted = torch.zeros(3)
        wanted[labels[number]] += 1 - whole
        wanted[labels[int(partner)]] += whole
        torch.testing.assert_close(shares[number], wanted)
    assert kinds == {name for name, alpha in zip(("mixup", "cutmix"), alphas, strict=True) if alpha}


# --- an epoch ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return write_small_store(tmp_path / "small.h5", counts=(100, 12, 20))


def epoch(store: ImageStore, augmentation: Augmentation, **options: Any) -> list[tuple[Tensor, Tensor]]:
    whole = {"batch_size": 16, "seed": 3, "epoch": 5, "augmentation": augmentation, **options}
    return list(ImageBatches.load(store, "train", device="cpu").epoch(**whole))


def test_an_epoch_of_all_of_them_goes_on_at_any_step_to_the_bit(store: ImageStore) -> None:
    whole = epoch(store, ALL)
    assert [len(labels) for _, labels in whole] == [16] * 6 + [4]
    for images, labels in whole:
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.isfinite(images).all()
        assert labels.shape == (len(images), 3)
        torch.testing.assert_close(labels.sum(1), torch.ones(len(images)))
    for (images, labels), (expected, shares) in zip(epoch(store, ALL, start_step=4), whole[4:], strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, shares)


@pytest.mark.gpu
def test_an_epoch_of_all_of_them_on_cuda_is_that_on_the_cpu(store: ImageStore) -> None:
    options: dict[str, Any] = {"batch_size": 16, "seed": 3, "epoch": 5, "augmentation": ALL}
    on_cuda = ImageBatches.load(store, "train", device="cuda").epoch(**options)
    for (images, labels), (expected, shares) in zip(on_cuda, epoch(store, ALL), strict=True):
        torch.testing.assert_close(images.cpu(), expected, atol=1e-2, rtol=0)
        torch.testing.assert_close(labels.cpu(), shares)


@pytest.mark.parametrize(
    "changes",
    [
        {"trivial_augment": True},
        {"resized_crop": 0.5},
        {"rotation": 10.0},
        {"shear": 10.0},
        {"scale": 0.3},
        {"brightness": 0.3},
        {"contrast": 0.3},
        {"colour": 0.3},
        {"mixup": 0.5},
        {"cutmix": 1.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_changes_images_and_nothing_that_another_draws(store: ImageStore, changes: dict[str, Any]) -> None:
    plain = Augmentation(flip=True, cutout=3)
    assert not replace(Augmentation(), **changes).changes_nothing
    (before, labels), *_ = epoch(store, plain)
    (after, shown), *_ = epoch(store, replace(plain, **changes))
    assert not torch.equal(before, after)
    if "mix" not in next(iter(changes)):
        assert torch.equal(labels, shown)
        assert (after[before == 0] == 0).float().mean() > 0.9  # the same squares are cut out


def test_pictures_pass_unchanged_where_nothing_is_drawn() -> None:
    batch = torch.from_numpy(pictures(4, (5, 6, 3)))
    maps = warps.draw_warps(numpy_generator(0, "x"), Augmentation(), batch.shape)
    torch.testing.assert_close(warps.warp(batch, maps), batch.float(), atol=1e-3, rtol=0)
    assert Augmentation().changes_nothing


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotation": 200.0}, "rotation is 200.0, expected degrees, 0 to 180"),
        ({"brightness": 1.5}, "brightness is 1.5, expected a part of 1, 0 to 1"),
        ({"resized_crop": -0.1}, "resized_crop is -0.1, expected a share of the area, 0 to 1"),
        ({"erase_area": 1.2}, "erase_area is 1.2, expected a share of the picture, 0.02 to 1"),
        ({"mixup": float("nan")}, "mixup is nan, expected an α, 0 to 100"),
        (
            {"crop_padding": 2, "resized_crop": 0.5},
            "crop_padding and resized_crop exclude each other; set one of them to 0",
        ),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AugmentationError) as error:
        Augmentation(**changes)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("augmentation", "num_classes", "message"),
    [
        (Augmentation(cutout=9), 3, "cutout is 9, larger than the pictures of 8×6"),
        (Augmentation(crop_padding=9), 3, "crop_padding is 9; pictures of 8×6 take at most 8"),
        (
            Augmentation(crop_padding=6, crop_border="black"),
            3,
            "crop_padding is 6; with a black border pictures of 8×6 take at most 5",
        ),
        (Augmentation(mixup=0.2), 1, "mixup mixes images of different classes, but the data set has 1"),
        (Augmentation(cutmix=0.2), 1, "cutmix mixes images of different classes, but the data set has 1"),
    ],
)
def test_what_the_data_cannot_bear_is_refused(augmentation: Augmentation, num_classes: int, message: str) -> None:
    with pytest.raises(AugmentationError) as error:
        augmentation.check(image_shape=(8, 6, 3), num_classes=num_classes)
    assert str(error.value) == message
    for fits in (
        Augmentation(cutout=8, mixup=1.0),
        Augmentation(crop_padding=8),
        Augmentation(crop_padding=5, crop_border="black"),
    ):
        fits.check(image_shape=(8, 6, 3), num_classes=2)
