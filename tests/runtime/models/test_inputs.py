import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.models.inputs import ShapeError, TensorSpec, batch_size_of, random_inputs, tensor_spec

FLOAT = np.dtype(np.float32)
IMAGES = TensorSpec("images", np.dtype(np.uint8), ("batch", 4, 5, 3))
TOKENS = TensorSpec("tokens", np.dtype(np.int64), ("batch", "time"))
STATE = TensorSpec("state", FLOAT, ("batch", 7))


def test_the_batch_is_the_free_first_dimension_of_every_input() -> None:
    feed = random_inputs([TOKENS, STATE], batch_size=3, sizes={"time": 5}, seed=0)
    assert {name: (value.shape, value.dtype) for name, value in feed.items()} == {
        "tokens": ((3, 5), np.int64),
        "state": ((3, 7), np.float32),
    }


def test_equal_inputs_get_equal_values_in_every_model() -> None:
    alone = random_inputs([IMAGES], batch_size=2, sizes={}, seed=1)["images"]
    beside = random_inputs([STATE, IMAGES], batch_size=2, sizes={}, seed=1)["images"]
    assert np.array_equal(alone, beside)
    assert not np.array_equal(alone, random_inputs([IMAGES], batch_size=2, sizes={}, seed=2)["images"])


@given(st.sampled_from(["b", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]))
def test_every_element_type_gets_values_of_its_type(code: str) -> None:
    dtype = np.dtype(bool) if code == "b" else np.dtype(code)
    value = random_inputs([TensorSpec("x", dtype, ("n", 50))], batch_size=4, sizes={}, seed=0)["x"]
    assert value.dtype == dtype
    assert len(np.unique(value)) > 1


def test_bytes_span_their_range_and_wider_whole_numbers_hold_as_indices() -> None:
    images = random_inputs([IMAGES], batch_size=100, sizes={}, seed=0)["images"]
    assert (images.min(), images.max()) == (0, 255)
    tokens = random_inputs([TOKENS], batch_size=9, sizes={"time": 9}, seed=0)["tokens"]
    assert set(tokens.ravel()) == {0, 1}
    words = random_inputs([TOKENS], batch_size=9, sizes={"time": 9}, seed=0, limits={"tokens": 50})["tokens"]
    assert 1 < words.max() < 50


def test_a_scalar_needs_no_batch() -> None:
    spec = TensorSpec("threshold", FLOAT, ())
    assert random_inputs([IMAGES, spec], batch_size=2, sizes={}, seed=0)["threshold"].shape == ()


def test_dimensions_without_a_name_are_called_after_their_place() -> None:
    assert tensor_spec("x", FLOAT, [-1, None, "", 3, "width"]).shape == ("x.0", "x.1", "x.2", 3, "width")


def test_a_free_dimension_without_a_size_is_told() -> None:
    with pytest.raises(ShapeError) as caught:
        random_inputs([TOKENS, STATE], batch_size=1, sizes={}, seed=0)
    assert str(caught.value) == (
        "a free dimension needs a size, --shape NAME=SIZE: time (of tokens int64 [batch, time])"
    )


def test_a_batch_that_the_model_fixes_is_the_only_one() -> None:
    fixed = TensorSpec("x", FLOAT, (4, 3))
    assert batch_size_of([fixed], {}) == 4
    assert batch_size_of([IMAGES], {}) is None
    assert batch_size_of([IMAGES], {"batch": 6}) == 6
    assert random_inputs([fixed], batch_size=4, sizes={}, seed=0)["x"].shape == (4, 3)
    with pytest.raises(ShapeError, match=r"^takes batches of 4 only, not of 1$"):
        random_inputs([fixed], batch_size=1, sizes={}, seed=0)


def test_a_first_dimension_that_is_no_batch_can_be_given_a_size() -> None:
    words = TensorSpec("words", np.dtype(np.int64), ("length",))
    feed = random_inputs([words, STATE], batch_size=3, sizes={"length": 8}, seed=0)
    assert (feed["words"].shape, feed["state"].shape) == ((8,), (3, 7))


@pytest.mark.parametrize("batch_size", [10**15, 10**18, 10**30])
def test_inputs_that_memory_does_not_hold_are_told(batch_size: int) -> None:
    spec = TensorSpec("images", np.dtype(np.uint8), ("batch", 28, 28, 1))
    with pytest.raises(ShapeError, match=r"^inputs of this size cannot be made: they take .* GiB, and there are"):
        random_inputs([spec], batch_size=batch_size, sizes={}, seed=0)


def test_inputs_are_weighed_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    # Linux would grant this, and kill the process that fills it.
    monkeypatch.setattr("runtime.models.inputs.usable_memory", lambda: 2**30)
    spec = TensorSpec("x", FLOAT, ("batch", 2**17))
    with pytest.raises(ShapeError) as caught:
        random_inputs([spec], batch_size=1024, sizes={}, seed=0)
    assert str(caught.value) == "inputs of this size cannot be made: they take 2 GiB, and there are 1"


@pytest.mark.parametrize("batch_size", [10**15, 10**30])
def test_where_memory_has_no_known_size_too_large_inputs_are_told_too(
    monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    monkeypatch.setattr("runtime.models.inputs.usable_memory", lambda: None)
    with pytest.raises(ShapeError, match=r"^inputs of this size cannot be made: "):
        random_inputs([IMAGES], batch_size=batch_size, sizes={}, seed=0)


def test_a_mistake_of_values_is_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(ValueError, match="high <= 0") as caught:
        random_inputs([TOKENS], batch_size=1, sizes={"time": 3}, seed=0, limits={"tokens": -1})
    assert not isinstance(caught.value, ShapeError)
