from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets.store import StoreError
from datasets.streams import split_streams
from datasets.token_batches import TokenBatches
from tests.datasets.conftest import write_small_text_store


def batches_of(num_tokens: int) -> TokenBatches:
    """Token i is the number i, so a target is its input plus one."""
    return TokenBatches(torch.arange(num_tokens, dtype=torch.int32), where="x.h5: split 'train'")


@given(num_tokens=st.integers(2, 120), batch_size=st.integers(1, 9), window=st.integers(1, 50))
def test_an_epoch_reads_parallel_streams_in_order(num_tokens: int, batch_size: int, window: int) -> None:
    if num_tokens <= batch_size:
        return
    batches = batches_of(num_tokens)
    steps = list(batches.epoch(batch_size=batch_size, window=window))
    assert len(steps) == batches.num_steps(batch_size, window)
    assert all(len(inputs) == window for inputs, _ in steps[:-1])
    inputs, targets = (torch.cat(parts) for parts in zip(*steps, strict=True))  # [L, B]
    assert torch.equal(targets, inputs + 1)
    length = (num_tokens - 1) // batch_size
    assert inputs.t().flatten().tolist() == list(range(batch_size * length))


@pytest.mark.parametrize("start_step", range(8))
def test_starting_at_a_step_continues_as_if_the_steps_before_had_been_taken(start_step: int) -> None:
    whole = list(batches_of(100).epoch(batch_size=3, window=5))
    rest = list(batches_of(100).epoch(batch_size=3, window=5, start_step=start_step))
    assert len(rest) == 7 - start_step
    for found, expected in zip(rest, whole[start_step:], strict=True):
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


@given(num_tokens=st.integers(2, 60), window=st.integers(1, 40), seed=st.integers(0, 9))
def test_random_windows_never_cross_the_end(num_tokens: int, window: int, seed: int) -> None:
    inputs, targets = batches_of(num_tokens).windows(np.random.default_rng(seed), batch_size=7, window=window)
    assert inputs.shape == targets.shape == (min(window, num_tokens - 1), 7)
    assert targets.max() < num_tokens
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs, inputs[0] + torch.arange(len(inputs))[:, None])


def test_random_windows_reach_both_ends_and_follow_the_generator() -> None:
    batches = batches_of(12)
    inputs, targets = batches.windows(np.random.default_rng(0), batch_size=200, window=4)
    assert (inputs.min(), targets.max()) == (0, 11)
    assert torch.equal(inputs, batches.windows(np.random.default_rng(0), batch_size=200, window=4)[0])
    assert not torch.equal(inputs, batches.windows(np.random.default_rng(1), batch_size=200, window=4)[0])


def test_evaluation_streams_are_those_of_the_runtime_time_first() -> None:
    expected = split_streams(np.arange(100), 7)
    inputs, targets, weights = batches_of(100).evaluation_streams(7)
    assert np.array_equal(inputs, expected.inputs.T)
    assert np.array_equal(targets, expected.targets.T)
    assert np.array_equal(weights, expected.weights.T)
    assert (inputs.dtype, targets.dtype, weights.dtype) == (torch.int64, torch.int64, torch.float32)


def test_splits_load_alone_and_joined(tmp_path: Path) -> None:
    store = write_small_text_store(tmp_path / "text.h5", counts=(40, 10, 6))
    both = TokenBatches.load(store, "train+valid", device="cpu")
    assert both.num_tokens == 50
    inputs, targets = next(both.epoch(batch_size=1, window=100))
    expected = np.concatenate([store.stream("train"), store.stream("valid")]).tolist()
    assert (inputs.dtype, targets.dtype) == (torch.int64, torch.int64)
    assert inputs.flatten().tolist() == expected[:-1]
    assert targets.flatten().tolist() == expected[1:]


def test_a_split_with_nothing_to_predict_is_refused(tmp_path: Path) -> None:
    store = write_small_text_store(tmp_path / "text.h5", counts=(40, 1, 6))
    with pytest.raises(StoreError, match=r"text\.h5: split 'valid' has 1 token, but at least 2 are needed"):
        TokenBatches.load(store, "valid", device="cpu")


def test_more_streams_than_the_text_fills_are_refused_at_once() -> None:
    message = (
        "x.h5: split 'train' has 10 tokens, too few for a batch_size of 10 streams of at least 2 tokens each: "
        "use a batch_size of at most 9, or more text"
    )
    with pytest.raises(StoreError, match=re.escape(message)):
        batches_of(10).epoch(batch_size=10, window=5)
    assert len(list(batches_of(10).epoch(batch_size=9, window=5))) == 1


@pytest.mark.gpu
def test_windows_on_cuda_equal_those_on_the_cpu(tmp_path: Path) -> None:
    store = write_small_text_store(tmp_path / "text.h5", counts=(400, 10, 6))
    there, here = (TokenBatches.load(store, "train", device=device) for device in ("cuda", "cpu"))
    pairs = [
        *zip(there.epoch(batch_size=4, window=35), here.epoch(batch_size=4, window=35), strict=True),
        tuple(b.windows(np.random.default_rng(0), batch_size=4, window=35) for b in (there, here)),
        (there.evaluation_streams(), here.evaluation_streams()),
    ]
    for on_cuda, on_cpu in pairs:
        for found, expected in zip(on_cuda, on_cpu, strict=True):
            assert found.is_cuda
            assert torch.equal(found.cpu(), expected)
