from __future__ import annotations

import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.augmentation import Augmentation, AugmentationError, draw
from datasets.batches import ImageBatches
from datasets.store import ImageStore, StoreError, open_store
from datasets.store_writer import write_image_store
from foundation.seeds import numpy_generator
from tests.datasets.conftest import write_small_store

FULL = Augmentation(crop_padding=2, flip=True, cutout=3, erase_prob=0.5)
FORMS = pytest.mark.parametrize("budget", [1 << 30, 4_000], ids=["resident", "streaming"])


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return write_small_store(tmp_path / "small.h5", counts=(100, 12, 20))


@pytest.fixture
def chunked_store(tmp_path: Path) -> ImageStore:
    """A store of eight chunks of six images; image i has the value i everywhere."""
    count = 48
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(200, 1).repeat(250, 2).repeat(3, 3)
    path = tmp_path / "chunked.h5"
    write_image_store(
        path,
        name="chunked",
        splits={"train": (images, np.arange(count) % 2)},
        classes=("a", "b"),
        source="",
        licence="",
    )
    opened = open_store(path)
    assert isinstance(opened, ImageStore)
    assert opened.chunk_length == 6
    return opened


def load(store: ImageStore, budget: int = 1 << 30) -> ImageBatches:
    return ImageBatches.load(store, "train", device="cpu", memory_budget_bytes=budget)


def numbers_of(images: Tensor, store: ImageStore) -> list[int]:
    """Which images of `chunked_store` these are."""
    values = (images[:, 0, 0, 0] * store.std[0] + store.mean[0]) * 255
    return values.round().int().tolist()


# --- what an epoch yields --------------------------------------------------------------------------------------------


@FORMS
def test_an_epoch_shows_every_image_once_with_its_label(store: ImageStore, budget: int) -> None:
    batches = load(store, budget)
    everything, everything_labels = batches.batch(np.arange(100))
    steps = list(batches.epoch(batch_size=16, seed=0, epoch=0))
    assert [len(labels) for _, labels in steps] == [16] * 6 + [4]
    images, labels = (torch.cat(parts) for parts in zip(*steps, strict=True))
    places = [int((everything == image).flatten(1).all(1).nonzero()) for image in images]
    assert sorted(places) == list(range(100)) != places
    assert torch.equal(labels, everything_labels[places])


@FORMS
def test_images_are_normalised_floats_in_channels_last_memory(store: ImageStore, budget: int) -> None:
    images, labels = next(load(store, budget).epoch(batch_size=100, seed=0, epoch=0))
    assert (images.dtype, images.shape, labels.dtype) == (torch.float32, (100, 3, 8, 6), torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("augmentation", [None, FULL])
def test_a_single_channel_has_the_strides_of_channels_last(tmp_path: Path, augmentation: Augmentation | None) -> None:
    store = write_small_store(tmp_path / "grey.h5", shape=(8, 6, 1))
    images, _ = next(load(store).epoch(batch_size=4, seed=0, epoch=0, augmentation=augmentation))
    assert images.stride() == (48, 1, 6, 1)


@FORMS
def test_without_shuffling_images_come_in_the_stores_order(store: ImageStore, budget: int) -> None:
    batches = load(store, budget)
    steps = list(batches.epoch(batch_size=16, seed=0, epoch=0, shuffle=False))
    expected, expected_labels = batches.batch(torch.arange(100))
    assert torch.equal(torch.cat([images for images, _ in steps]), expected)
    assert torch.equal(torch.cat([labels for _, labels in steps]), expected_labels)


@FORMS
def test_the_last_smaller_batch_can_be_dropped(store: ImageStore, budget: int) -> None:
    batches = load(store, budget)
    steps = list(batches.epoch(batch_size=16, seed=0, epoch=0, drop_last=True))
    assert [len(labels) for _, labels in steps] == [16] * 6
    assert (batches.num_steps(16, drop_last=True), batches.num_steps(16)) == (6, 7)


@FORMS
def test_an_epoch_is_the_same_again_and_differs_by_epoch_and_by_seed(store: ImageStore, budget: int) -> None:
    batches = load(store, budget)

    def labels(seed: int, epoch: int) -> list[int]:
        return torch.cat([labels for _, labels in batches.epoch(batch_size=16, seed=seed, epoch=epoch)]).tolist()

    assert labels(0, 0) == labels(0, 0)
    assert labels(0, 0) != labels(0, 1)
    assert labels(0, 0) != labels(1, 0)


@FORMS
@pytest.mark.parametrize("start_step", [0, 1, 4, 6, 7])
@pytest.mark.parametrize("shuffle", [True, False])
def test_starting_at_a_step_continues_to_the_bit(
    store: ImageStore, budget: int, start_step: int, shuffle: bool
) -> None:
    batches = load(store, budget)
    options = {"batch_size": 16, "seed": 3, "epoch": 5, "augmentation": FULL, "shuffle": shuffle}
    whole = list(batches.epoch(**options))
    rest = list(load(store, budget).epoch(**options, start_step=start_step))
    assert len(rest) == 7 - start_step
    for (images, labels), (expected_images, expected_labels) in zip(rest, whole[start_step:], strict=True):
        assert torch.equal(images.view(torch.int32), expected_images.view(torch.int32))
        assert torch.equal(labels, expected_labels)


def test_resident_and_streaming_images_are_the_same(store: ImageStore) -> None:
    indices = [5, 99, 0, 5]
    for resident, streamed in zip(load(store).batch(indices), load(store, 4_000).batch(indices), strict=True):
        assert torch.equal(resident, streamed)


# --- streaming -------------------------------------------------------------------------------------------------------


def test_a_streamed_batch_mixes_images_of_several_chunks(chunked_store: ImageStore) -> None:
    batches = load(chunked_store, budget=3 * 24 * chunked_store.image_nbytes)
    images, _ = next(batches.epoch(batch_size=12, seed=0, epoch=0))
    assert len({number // chunked_store.chunk_length for number in numbers_of(images, chunked_store)}) >= 3


def test_streaming_holds_no_more_than_its_budget(chunked_store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = 3 * 12 * chunked_store.image_nbytes
    batches = load(chunked_store, budget)
    sizes = []
    read = type(batches._images)._read
    monkeypatch.setattr(
        type(batches._images), "_read", lambda self, indices: sizes.append(len(indices)) or read(self, indices)
    )
    steps = list(batches.epoch(batch_size=5, seed=0, epoch=0))
    assert sorted(number for images, _ in steps for number in numbers_of(images, chunked_store)) == list(range(48))
    assert 3 * max(sizes) * chunked_store.image_nbytes <= budget
    assert min(sizes) > 0


def test_a_store_that_is_replaced_while_it_streams_is_not_mixed_in(chunked_store: ImageStore) -> None:
    batches = load(chunked_store, budget=3 * 6 * chunked_store.image_nbytes)
    epoch = batches.epoch(batch_size=6, seed=0, epoch=0)
    seen = [numbers_of(next(epoch)[0], chunked_store)]
    images, labels = chunked_store.images("train"), chunked_store.labels("train")
    other = {"train": (255 - images, 1 - labels)}
    write_image_store(chunked_store.path, name="chunked", splits=other, classes=("a", "b"), source="", licence="")
    with pytest.raises(StoreError, match=r"chunked\.h5: 'chunked' was replaced by other data while it was in use"):
        seen += [numbers_of(images, chunked_store) for images, _ in epoch]
    assert set().union(*seen) <= set(range(48))
    with pytest.raises(StoreError, match="was replaced"):
        chunked_store.labels("train")


def test_a_store_that_is_written_again_with_the_same_data_goes_on(chunked_store: ImageStore) -> None:
    epoch = load(chunked_store, budget=3 * 6 * chunked_store.image_nbytes).epoch(batch_size=6, seed=0, epoch=0)
    seen = numbers_of(next(epoch)[0], chunked_store)
    same = {"train": (chunked_store.images("train"), chunked_store.labels("train"))}
    write_image_store(chunked_store.path, name="chunked", splits=same, classes=("a", "b"), source="", licence="")
    assert sorted([*seen, *(n for images, _ in epoch for n in numbers_of(images, chunked_store))]) == list(range(48))


def test_leaving_an_epoch_early_ends_its_thread(chunked_store: ImageStore) -> None:
    before = threading.active_count()
    epoch = load(chunked_store, budget=3 * 6 * chunked_store.image_nbytes).epoch(batch_size=6, seed=0, epoch=0)
    next(epoch)
    epoch.close()
    assert threading.active_count() == before


def test_damage_that_the_reading_thread_meets_reaches_the_caller(chunked_store: ImageStore) -> None:
    with h5py.File(chunked_store.path) as file:
        where = file["train/images"].id.get_chunk_info(4).byte_offset
    data = bytearray(chunked_store.path.read_bytes())
    data[where : where + 20] = bytes(20)
    chunked_store.path.write_bytes(data)
    batches = load(chunked_store, budget=3 * 6 * chunked_store.image_nbytes)
    with pytest.raises(StoreError, match=r"chunked\.h5: damaged"):
        list(batches.epoch(batch_size=6, seed=0, epoch=0))


# --- augmentation ----------------------------------------------------------------------------------------------------


def augmented_one_by_one(
    pixels: np.ndarray,
    generator: np.random.Generator,
    noise: np.ndarray,
    augmentation: Augmentation,
    store: ImageStore,
) -> np.ndarray:
    """What the batched code does, as anybody would write it for one image.

    Args: pixels: uint8 [B, H, W, C]. Returns: float32 [B, C, H, W].
    """
    batch, height, width, channels = pixels.shape
    padding, side = augmentation.crop_padding, augmentation.cutout
    tops = generator.integers(0, 2 * padding + 1, batch)
    lefts = generator.integers(0, 2 * padding + 1, batch)
    flips = generator.integers(0, 1 + augmentation.flip, batch)
    centres_y = generator.integers(0, height, batch)
    centres_x = generator.integers(0, width, batch)
    erased = generator.random(batch) < augmentation.erase_prob if augmentation.erase_prob else [False] * batch
    rectangles = [(0, 0, 0, 0, 0)] * batch
    if any(erased):
        areas = generator.uniform(0.02, 0.33, batch) * height * width
        aspects = np.exp(generator.uniform(np.log(0.3), np.log(1 / 0.3), batch))
        places = generator.random(batch), generator.random(batch)
        starts = generator.integers(0, height * width * channels, batch)
        for number, (area, aspect, y, x) in enumerate(zip(areas, aspects, *places, strict=True)):
            tall = min(max(round(np.sqrt(area * aspect)), 1), height)
            wide = min(max(round(np.sqrt(area / aspect)), 1), width)
            top, left = int(y * (height - tall + 1)), int(x * (width - wide + 1))
            rectangles[number] = (top, left, tall, wide, starts[number])
    scale = np.float32(1 / (255 * np.array(store.std)))
    shift = np.float32(-np.array(store.mean) / np.array(store.std))
    results = []
    for image, top, left, flip, y, x, erase, rectangle in zip(
        pixels, tops, lefts, flips, centres_y, centres_x, erased, rectangles, strict=True
    ):
        image = image[:, ::-1] if flip else image
        mode = "constant" if augmentation.crop_border == "black" else "reflect"
        image = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode=mode)
        image = image[top : top + height, left : left + width]
        image = image.astype(np.float32) * scale + shift
        if side:
            y, x = y - side // 2, x - side // 2
            image[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = 0
        if erase:
            top, left, tall, wide, start = rectangle
            fill = noise[start : start + image.size].reshape(image.shape)
            image[top : top + tall, left : left + wide] = fill[top : top + tall, left : left + wide]
        results.append(image.transpose(2, 0, 1))
    return np.stack(results)


@pytest.mark.parametrize("shape", [(8, 6, 3), (7, 9, 1), (1, 5, 4), (28, 28, 1)])
@pytest.mark.parametrize("batch_size", [1, 33])
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(crop_padding=3),
        Augmentation(crop_padding=3, crop_border="black"),
        Augmentation(flip=True),
        Augmentation(cutout=4),
        Augmentation(cutout=50),
        Augmentation(erase_prob=1.0),
        FULL,
    ],
    ids=str,
)
def test_batched_augmentation_equals_its_plain_twin(
    tmp_path: Path, shape: tuple[int, int, int], batch_size: int, augmentation: Augmentation
) -> None:
    store = write_small_store(tmp_path / "small.h5", shape=shape)
    epoch = load(store).epoch(batch_size=batch_size, seed=7, epoch=2, augmentation=augmentation, shuffle=False)
    images, _ = next(epoch)
    generator = numpy_generator(7, "augment", 2, 0)
    noise = numpy_generator(7, "noise", 2).standard_normal(2 * np.prod(shape), dtype=np.float32)
    expected = augmented_one_by_one(store.images("train")[:batch_size], generator, noise, augmentation, store)
    np.testing.assert_array_equal(images.numpy(), expected)


def test_every_offset_and_both_sides_occur() -> None:
    generator = np.random.default_rng(0)
    tops, lefts, flips, cut_tops, _ = draw(generator, FULL, (2000, 8, 6, 3))[:5].tolist()
    assert set(tops) == set(lefts) == set(range(5))
    assert 900 < sum(flips) < 1100
    assert set(cut_tops) == set(range(-1, 7))


def test_erased_rectangles_have_the_sizes_of_the_paper_and_lie_inside() -> None:
    generator = np.random.default_rng(0)
    drawn = draw(generator, Augmentation(erase_prob=0.4), (5000, 40, 30, 1))[5:]
    top, left, height, width, start = drawn[:, drawn[2] > 0].numpy()
    assert 1900 < len(top) < 2100
    assert 0.015 < (height * width / 1200).min() < 0.03
    assert 0.30 < (height * width / 1200).max() < 0.35
    assert (top.min(), left.min()) == (0, 0)
    assert ((top + height).max(), (left + width).max()) == (40, 30)
    assert start.max() < 1200


@pytest.mark.parametrize("prob", [-0.1, 1.5, float("nan")])
def test_erasing_wants_a_probability(prob: float) -> None:
    with pytest.raises(AugmentationError, match=rf"erase_prob is {prob}, expected a probability, 0 to 1"):
        Augmentation(erase_prob=prob)


@pytest.mark.parametrize("field", ["crop_padding", "cutout"])
def test_a_negative_number_of_pixels_is_refused(field: str) -> None:
    with pytest.raises(AugmentationError, match=f"{field} is -1, expected a number of pixels, 0 or more"):
        Augmentation(**{field: -1})


@pytest.mark.gpu
@FORMS
def test_an_epoch_on_cuda_equals_that_on_the_cpu(store: ImageStore, budget: int) -> None:
    options = {"batch_size": 16, "seed": 3, "epoch": 5, "augmentation": FULL}
    on_cuda = ImageBatches.load(store, "train", device="cuda", memory_budget_bytes=budget).epoch(**options)
    for (images, labels), (expected_images, expected_labels) in zip(
        on_cuda, load(store, budget).epoch(**options), strict=True
    ):
        assert images.is_cuda
        assert labels.is_cuda
        assert torch.equal(images.cpu(), expected_images)
        assert torch.equal(labels.cpu(), expected_labels)


def test_an_unknown_split_is_refused(store: ImageStore) -> None:
    with pytest.raises(StoreError, match="has no split 'dev'"):
        ImageBatches.load(store, "dev", device="cpu")
