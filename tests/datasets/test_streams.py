from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.store import StoreError
from datasets.streams import split_streams


@given(num_tokens=st.integers(2, 200), num_streams=st.integers(1, 250))
def test_every_token_but_the_first_is_a_target_once_after_the_token_before_it(
    num_tokens: int, num_streams: int
) -> None:
    tokens = np.arange(100, 100 + num_tokens, dtype=np.uint16)
    streams = split_streams(tokens, num_streams)
    counts = streams.weights == 1
    assert streams.targets[counts].tolist() == tokens[1:].tolist()  # row by row: streams are consecutive
    assert (streams.targets[counts] - streams.inputs[counts] == 1).all()
    assert (streams.weights[~counts] == 0).all()


@given(num_tokens=st.integers(2, 200), num_streams=st.integers(1, 250))
def test_padding_only_ends_the_last_streams(num_tokens: int, num_streams: int) -> None:
    streams = split_streams(np.zeros(num_tokens, np.uint16), num_streams)
    weights = streams.weights.ravel()
    assert len(weights) - weights.sum() < len(streams.weights)
    assert (np.diff(weights) <= 0).all()


def test_streams_have_the_types_a_model_reads() -> None:
    streams = split_streams(np.arange(8, dtype=np.uint16), 3)
    assert streams.inputs.tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 0]]
    assert streams.targets.tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert streams.weights.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    assert (streams.inputs.dtype, streams.targets.dtype, streams.weights.dtype) == (np.int64, np.int64, np.float32)


def test_there_are_no_more_streams_than_targets() -> None:
    assert split_streams(np.arange(4), 32).targets.tolist() == [[1], [2], [3]]


@pytest.mark.parametrize("num_tokens", [0, 1])
def test_a_text_with_nothing_to_predict_is_refused(num_tokens: int) -> None:
    with pytest.raises(StoreError, match=f"a text of {num_tokens} tokens: at least 2 are needed"):
        split_streams(np.zeros(num_tokens, np.uint16), 32)
