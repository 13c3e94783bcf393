"""Checks that exported language models compute what their torch network computes: token by token, over sequences, at
several batch sizes, on repetitions of one token, and as the perplexity of the whole test split."""

# B batch, T time, V vocabulary

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm

from datasets.store import TextStore
from datasets.token_batches import TokenBatches
from exporter.conversion.convert_text import golden_log_probs
from exporter.delivery.verify import BATCH_SIZES, Comparison, PerplexityCheck, Verification, compare
from runtime.models.language_model import SequenceModel, StepModel
from runtime.models.tolerance import Tolerance, largest_difference
from runtime.scoring.perplexity import evaluate_text
from searcher.nn.build import BoundNetwork
from searcher.training.text_learner import perplexity

_STEPS = 16
_LENGTHS = (1, 50)
_REPEATS = 200
_PERPLEXITY_TOLERANCE = 1e-4


def verify_text(
    step: StepModel,
    sequence: SequenceModel,
    network: BoundNetwork,
    *,
    store: TextStore,
    expected: float,
    tolerance: Tolerance,
) -> Verification:
    """Compare both models with the network they were made from, on the CPU, in full float32.

    Args: expected: the network's `torch_perplexity` of the test split.
    """
    network = network.cpu().float().eval()
    torch.set_flush_denormal(False)
    text = store.stream("test").astype(np.int64)
    first_tokens = np.arange(min(3, len(store.vocabulary)), dtype=np.int64)
    repeated = np.repeat(first_tokens[:, None], _REPEATS, axis=1)  # [3, 200]
    count = store.counts["test"] - 1
    with tqdm(total=count, desc="verify", disable=None, unit="token") as bar:
        comparisons = [
            *(_steps(step, network, _windows(text, size, _STEPS), tolerance=tolerance) for size in BATCH_SIZES),
            *(
                _sequences(sequence, network, _windows(text, size, length + 1), "test", tolerance=tolerance)
                for size in BATCH_SIZES
                for length in _LENGTHS
            ),
            _sequences(sequence, network, repeated, "edge cases", tolerance=tolerance),
        ]
        found = _perplexity(sequence, store, on_tokens=bar.update)
    golden = [model.check_golden() for model in (step, sequence)]
    return Verification(
        model_sha256=step.sha256,
        sequence_sha256=sequence.sha256,
        tolerance=tolerance,
        provider=step.session.providers[0],
        comparisons=tuple(comparisons),
        golden_difference=max(check.max_difference for check in golden),
        golden_passed=all(check.passed for check in golden),
        perplexity=PerplexityCheck(found, expected, count=count, rtol=_PERPLEXITY_TOLERANCE),
    )


def torch_perplexity(network: BoundNetwork, store: TextStore) -> float:
    """The perplexity of the test split, on the CPU, in full float32."""
    return perplexity(network.cpu().float().eval(), TokenBatches.load(store, "test", device="cpu"), precision="float32")


def _windows(text: np.ndarray, batch_size: int, length: int) -> np.ndarray:
    """Windows of `length` tokens, evenly spaced over the text, [B, length]; shorter if the text is shorter."""
    length = min(length, len(text))
    starts = np.linspace(0, len(text) - length, batch_size).astype(np.int64)
    windows: np.ndarray = text[starts[:, None] + np.arange(length)]
    return windows


def _steps(model: StepModel, network: BoundNetwork, tokens: np.ndarray, *, tolerance: Tolerance) -> Comparison:
    """Compares the logits of every step; each side carries its own state."""
    found, expected = [], []
    state = model.zero_state(len(tokens))
    torch_state = torch.from_numpy(state)
    with torch.inference_mode():
        for token in tokens.T:
            logits, state = model.step(token.copy(), state)
            found.append(logits)
            torch_logits, torch_state = network.network.step(  # type: ignore[operator]
                torch.from_numpy(token.copy()), torch_state, network.architecture
            )
            expected.append(torch_logits.numpy())
    return compare(
        "steps of test", len(tokens), np.concatenate(found), np.concatenate(expected), labels=None, tolerance=tolerance
    )


def _sequences(
    model: SequenceModel, network: BoundNetwork, tokens: np.ndarray, name: str, *, tolerance: Tolerance
) -> Comparison:
    """Compares the log-probabilities of the tokens [B, T + 1] after the first."""
    found = model.score(tokens[:, :-1].copy(), tokens[:, 1:].copy(), model.zero_state(len(tokens))).log_probs
    expected = golden_log_probs(network, tokens)
    return Comparison(
        inputs=f"{name}, {tokens.shape[1] - 1} tokens",
        batch_size=len(tokens),
        count=expected.size,
        max_difference=float(largest_difference(found, expected).max()),
        largest_excess=float(tolerance.excess(found, expected).max()),
        disagreements=0,
        ties=0,
        accuracy=None,
        torch_accuracy=None,
    )


def _perplexity(model: SequenceModel, store: TextStore, *, on_tokens: Callable[[int], object]) -> float:
    return evaluate_text(model, store=store, split="test", advance=on_tokens).perplexity
