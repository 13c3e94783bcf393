"""Converts a trained recurrent network to two ONNX files: one reads a token at a time, the other scores whole texts.

The sequence model is one ONNX Scan over time, whose body is the step and the score of a given next token. It takes any
length and batch size, and holds only one step's logits in memory.
"""

# B batch, T time, H hidden size, V vocabulary

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from datasets.store import TextStore
from datasets.tokens import END_OF_LINE, UNKNOWN
from exporter.conversion.convert import DEFAULT_OPSET, sign, to_onnx, write_metadata
from runtime.models.tolerance import Tolerance
from searcher.arch.spec import Spec
from searcher.nn.build import BoundNetwork


class StepNetwork(nn.Module):
    """Tokens int64 [B] and state [B, H] -> logits [B, V] of the next token, and the next state [B, H]."""

    def __init__(self, network: BoundNetwork) -> None:
        super().__init__()
        self.bound = network

    def forward(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        answer: tuple[Tensor, Tensor] = self.bound.network.step(tokens, state, self.bound.architecture)  # type: ignore[operator]
        return answer


class ScoreNetwork(StepNetwork):
    """Tokens and targets int64 [B] and state [B, H] -> the next state, and the targets' log-probabilities [B]."""

    def forward(self, token: Tensor, target: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        logits, state = super().forward(token, state)
        return state, logits.log_softmax(dim=1).gather(1, target[:, None]).squeeze(1)


def convert_step(network: BoundNetwork, *, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """Inputs `tokens` [B] and `state` [B, H]; outputs `logits` [B, V] and `next_state` [B, H]."""
    examples = (torch.zeros(2, dtype=torch.int64), torch.zeros(2, _hidden_size(network)))
    outputs = ["logits", "next_state"]
    return to_onnx(StepNetwork(network), examples, inputs=["tokens", "state"], outputs=outputs, opset=opset)


def convert_sequence(network: BoundNetwork, *, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """Inputs `tokens` and `targets` [B, T], `state` [B, H]; outputs `log_probs` [B, T] and `next_state` [B, H]."""
    hidden_size = _hidden_size(network)
    # Two tensors: torch would treat one tensor passed twice as one input.
    token, target = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    model = to_onnx(
        ScoreNetwork(network),
        (token, target, torch.zeros(2, hidden_size)),
        inputs=["token", "target", "state_before"],
        outputs=["state_after", "log_prob"],
        opset=opset,
    )
    body = onnx.GraphProto()
    body.CopyFrom(model.graph)
    del body.initializer[:]  # they stay with the outer graph, where the body finds them
    # Scan passes its states first, then the slices of its scanned inputs.
    token_input, target_input, state_input = list(body.input)
    del body.input[:]
    body.input.extend([state_input, token_input, target_input])
    scan = helper.make_node(
        "Scan",
        ["state", "tokens", "targets"],
        ["next_state", "log_probs"],
        body=body,
        num_scan_inputs=2,
        scan_input_axes=[1, 1],
        scan_output_axes=[1],
    )
    text = ["batch", "time"]
    graph = helper.make_graph(
        [scan],
        "sequence",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, text),
            helper.make_tensor_value_info("targets", TensorProto.INT64, text),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", hidden_size]),
        ],
        [
            helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, text),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, ["batch", hidden_size]),
        ],
        initializer=model.graph.initializer,
    )
    sequence = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    sign(sequence)
    return sequence


def golden_log_probs(network: BoundNetwork, tokens: np.ndarray) -> np.ndarray:
    """Returns torch's log-probability of every token but the first in samples [n, K]: [n, K - 1]."""
    inputs, targets = (torch.from_numpy(part.T.copy()) for part in (tokens[:, :-1], tokens[:, 1:]))
    with torch.inference_mode():
        log_probs: np.ndarray = -network(inputs, targets, None).nll.T.numpy()
        return log_probs


def describe_text(
    model: onnx.ModelProto,
    spec: Spec,
    *,
    store: TextStore,
    golden_tokens: np.ndarray,
    golden_log_probs: np.ndarray,
    tolerance: Tolerance,
    accuracy: Mapping[str, Any],
    drawing: str,
    origin: Mapping[str, str],
) -> None:
    """Writes the model's metadata as JSON strings under `enas.*`.

    Args: golden_tokens: [n, K], with their golden_log_probs [n, K - 1]. accuracy: split, metric, value, count.
    origin: of the weights, for `enas.producer`.
    """
    entries = {
        "enas.spec": spec.to_document(),
        "enas.tokenizer": tokenizer_of(store.vocabulary, tokens=store.tokens),
        "enas.golden": {
            "tokens": golden_tokens.tolist(),
            "log_probs": golden_log_probs.tolist(),
            "atol": tolerance.atol,
            "rtol": tolerance.rtol,
        },
    }
    write_metadata(model, entries, accuracy=accuracy, drawing=drawing, origin=origin)


def tokenizer_of(vocabulary: Sequence[str], *, tokens: str) -> dict[str, Any]:
    """Returns the metadata that defines how a text becomes the model's token numbers."""
    return {
        "tokens": tokens,
        "vocabulary": list(vocabulary),
        "unknown": UNKNOWN if UNKNOWN in vocabulary else None,
        "end_of_line": END_OF_LINE if END_OF_LINE in vocabulary else None,
    }


def _hidden_size(network: BoundNetwork) -> int:
    return network.network.state_size  # type: ignore[return-value]
