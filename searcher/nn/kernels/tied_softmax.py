"""A softmax whose weights are the embedding's: scores of given tokens, without a second copy of the logits.

With a vocabulary of 10,000 the logits are most of a language model's memory. They are written once, then turned in
place into probabilities and gradients, a few rows at a time so that a piece stays in the cache.

Takes vectors and a matrix; knows nothing of cells.
Source: the tied weights are those of Press and Wolf 2017 and Inan et al. 2017, as Pham et al. 2018 use them.
"""

# N positions, H hidden size, V vocabulary

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# On a CPU a piece fits in the cache; on other devices a large piece keeps the number of kernels small.
_PIECE_ELEMENTS = 1 << 18
_PIECE_ELEMENTS_ON_DEVICE = 1 << 26


def negative_log_likelihood(
    outputs: Tensor, weight: Tensor, targets: Tensor, *, dtype: torch.dtype | None = None
) -> Tensor:
    """-log of the probability that softmax(outputs · weightᵀ) gives to each target, in nats: [N].

    Args: outputs: [N, H]. weight: [V, H]. targets: [N] int64. dtype: of the matrix products; that of outputs if None.
    Sums and logarithms use the dtype of outputs.
    """
    dtype = dtype or outputs.dtype
    if torch.is_grad_enabled() and (outputs.requires_grad or weight.requires_grad):
        return _NegativeLogLikelihood.apply(outputs, weight, targets, dtype)
    result = outputs.new_empty(len(targets))
    # Matrix products need more rows than the softmax to be fast.
    rows = 8 * _rows_of_a_piece(weight)
    weight_t = weight.to(dtype).t()
    for start in range(0, len(targets), rows):
        piece = slice(start, start + rows)
        log_probs = (outputs[piece].to(dtype) @ weight_t).log_softmax(1, dtype=outputs.dtype)
        result[piece] = -log_probs.gather(1, targets[piece, None]).squeeze(1)
    return result


class _NegativeLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        outputs_cast, weight_cast = outputs.to(dtype), weight.to(dtype)
        gradients = outputs_cast @ weight_cast.t()  # still the logits, [N, V]
        result = outputs.new_empty(len(targets))
        rows = _rows_of_a_piece(weight)
        for start in range(0, len(targets), rows):
            piece = slice(start, start + rows)
            target = targets[piece, None]
            log_probs = gradients[piece].log_softmax(1, dtype=outputs.dtype)
            result[piece] = -log_probs.gather(1, target).squeeze(1)
            # The gradient of the logits: the probabilities, less one at the target.
            minus_one = log_probs.new_full((1, 1), -1.0).expand_as(target)
            gradients[piece] = log_probs.exp_().scatter_add_(1, target, minus_one)
        ctx.save_for_backward(outputs_cast, weight_cast, gradients)
        ctx.dtypes = outputs.dtype, weight.dtype
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        outputs, weight, gradients = ctx.saved_tensors
        outputs_dtype, weight_dtype = ctx.dtypes
        # `grad` scales each row; it is applied to [N, H] tensors, which are smaller than `gradients`, [N, V].
        grad_outputs = (gradients @ weight).to(outputs_dtype) * grad[:, None]
        scaled = (outputs * grad[:, None]).to(outputs.dtype)
        return grad_outputs, (gradients.t() @ scaled).to(weight_dtype), None, None


def _rows_of_a_piece(weight: Tensor) -> int:
    elements = _PIECE_ELEMENTS if weight.device.type == "cpu" else _PIECE_ELEMENTS_ON_DEVICE
    return max(1, elements // len(weight))
