"""A tiny language model as `enas export` writes it, one file a step and one a sequence, and the same in numpy.

The state of a text is tanh(embedding of its token + state · recurrent), the logits are state · decoder.
"""

# B batch, T time, H hidden size, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.runtime.conftest import save

WORDS = ("<eos>", "the", "cat", "sat", "<unk>")
CHARACTERS = ("\n", " ", "a", "b")
HIDDEN = 3
GOLDEN_TOKENS = ([0, 1, 2, 3, 0], [2, 2])

_GENERATOR = np.random.default_rng(0)
EMBEDDING = _GENERATOR.normal(size=(len(WORDS), HIDDEN)).astype(np.float32)
RECURRENT = _GENERATOR.normal(size=(HIDDEN, HIDDEN)).astype(np.float32)
DECODER = _GENERATOR.normal(scale=2, size=(HIDDEN, len(WORDS))).astype(np.float32)


def expected_logits(tokens: Sequence[int] | np.ndarray) -> np.ndarray:
    """What the model says after each token of one text, from the zero state: [T, V]."""
    state, logits = np.zeros(HIDDEN), []
    for token in tokens:
        state = np.tanh(EMBEDDING[token] + state @ RECURRENT)
        logits.append(state @ DECODER)
    return np.array(logits)


def expected_log_probs(tokens: Sequence[int] | np.ndarray) -> np.ndarray:
    """The log-probability of each token of one text but the first: [T - 1]."""
    logits = expected_logits(tokens[:-1])
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_probs[np.arange(len(log_probs)), list(tokens[1:])]


def metadata(vocabulary: Sequence[str] = WORDS, **changes: Any) -> dict[str, Any]:
    """The `enas.*` entries of both files; a change to None leaves one out."""
    words = vocabulary == WORDS
    entries = {
        "spec": {
            "schema": 1,
            "task": {
                "dataset": "cats",
                "kind": "language-modelling",
                "tokens": "word" if words else "char",
                "vocabulary_size": len(vocabulary),
            },
        },
        "tokenizer": {
            "tokens": "word" if words else "char",
            "vocabulary": list(vocabulary),
            "unknown": "<unk>" if words else None,
            "end_of_line": "<eos>" if words else None,
        },
        "golden": {
            "tokens": list(GOLDEN_TOKENS),
            "log_probs": [expected_log_probs(tokens).tolist() for tokens in GOLDEN_TOKENS],
            "atol": 1e-4,
            "rtol": 1e-4,
        },
        "accuracy": {"split": "test", "metric": "perplexity", "value": 4.2, "count": 100},
        "precision": "fp32",
    }
    return {key: value for key, value in (entries | changes).items() if value is not None}


def step_graph(*, num_tokens: int = len(WORDS), decoder: np.ndarray = DECODER) -> onnx.GraphProto:
    """tokens [B], state [B, H] -> logits [B, V], next_state [B, H]."""
    return helper.make_graph(
        [*_state_nodes("tokens", "state"), helper.make_node("MatMul", ["next_state", "decoder"], ["logits"])],
        "step",
        [_value("tokens", TensorProto.INT64, "batch"), _value("state", TensorProto.FLOAT, "batch", HIDDEN)],
        [
            _value("logits", TensorProto.FLOAT, "batch", num_tokens),
            _value("next_state", TensorProto.FLOAT, "batch", HIDDEN),
        ],
        _weights(num_tokens, decoder),
    )


def sequence_graph(*, num_tokens: int = len(WORDS), decoder: np.ndarray = DECODER) -> onnx.GraphProto:
    """tokens, targets [B, T], state [B, H] -> log_probs [B, T], next_state [B, H]: the step in a Scan over time."""
    body = helper.make_graph(
        [
            *_state_nodes("token", "old_state"),
            helper.make_node("MatMul", ["next_state", "decoder"], ["logits"]),
            helper.make_node("LogSoftmax", ["logits"], ["all_log_probs"], axis=1),
            helper.make_node("Unsqueeze", ["target", "one"], ["column"]),
            helper.make_node("GatherElements", ["all_log_probs", "column"], ["chosen"], axis=1),
            helper.make_node("Squeeze", ["chosen", "one"], ["log_prob"]),
        ],
        "body",
        [
            _value("old_state", TensorProto.FLOAT, "batch", HIDDEN),
            _value("token", TensorProto.INT64, "batch"),
            _value("target", TensorProto.INT64, "batch"),
        ],
        [_value("next_state", TensorProto.FLOAT, "batch", HIDDEN), _value("log_prob", TensorProto.FLOAT, "batch")],
    )
    scan = helper.make_node(
        "Scan",
        ["state", "tokens", "targets"],
        ["last_state", "log_probs"],
        body=body,
        num_scan_inputs=2,
        scan_input_axes=[1, 1],
        scan_output_axes=[1],
    )
    return helper.make_graph(
        [scan, helper.make_node("Identity", ["last_state"], ["next_state"])],
        "sequence",
        [
            _value("tokens", TensorProto.INT64, "batch", "time"),
            _value("targets", TensorProto.INT64, "batch", "time"),
            _value("state", TensorProto.FLOAT, "batch", HIDDEN),
        ],
        [
            _value("log_probs", TensorProto.FLOAT, "batch", "time"),
            _value("next_state", TensorProto.FLOAT, "batch", HIDDEN),
        ],
        [*_weights(num_tokens, decoder), numpy_helper.from_array(np.array([1]), "one")],
    )


def save_run(folder: Path) -> Path:
    """A run directory with both files."""
    save(folder / "model.onnx", step_graph(), metadata())
    save(folder / "model-sequence.onnx", sequence_graph(), metadata())
    return folder


def _state_nodes(token: str, state: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", ["embedding", token], ["embedded"]),
        helper.make_node("MatMul", [state, "recurrent"], ["carried"]),
        helper.make_node("Add", ["embedded", "carried"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next_state"]),
    ]


def _weights(num_tokens: int, decoder: np.ndarray) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(EMBEDDING[:num_tokens], "embedding"),
        numpy_helper.from_array(RECURRENT, "recurrent"),
        numpy_helper.from_array(decoder[:, :num_tokens], "decoder"),
    ]


def _value(name: str, kind: int, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
