"""Tensors that lie one behind the other."""

from __future__ import annotations

import torch
from torch import nn

from searcher.nn.flat import Pieces, lay_flat, views_of


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 2)).to(memory_format=torch.channels_last)


def test_weights_laid_flat_are_the_same_to_the_letter_and_one_piece() -> None:
    module = layers()
    weights = list(module.parameters())
    expected = [(weight.clone(), weight.stride()) for weight in weights]
    lay_flat(weights)
    for weight, (value, stride) in zip(weights, expected, strict=True):
        assert torch.equal(weight, value)
        assert weight.stride() == stride
    (vector,) = Pieces().of(weights)
    vector.zero_()
    assert all(weight.abs().sum() == 0 for weight in weights)


def test_weights_that_are_views_already_stay_where_they_are() -> None:
    weights = list(layers().parameters())
    whole = torch.randn(1000)
    for weight, view in zip(weights, views_of(whole[100:], weights), strict=True):
        weight.data = view
    lay_flat(weights)
    assert all(weight.untyped_storage().data_ptr() == whole.data_ptr() for weight in weights)


def test_pieces_are_as_few_as_the_memory_allows_and_follow_tensors_that_move() -> None:
    weights, pieces = list(layers().parameters()), Pieces()
    assert [len(piece) for piece in pieces.of(weights)] == [weight.numel() for weight in weights]
    lay_flat(weights[:2])
    lay_flat(weights[2:])
    assert pieces.of(weights)[0].numel() == weights[0].numel() + weights[1].numel()
    assert len(pieces.of(weights)) == 2
    assert pieces.sizes == [sum(w.numel() for w in weights[:2]), sum(w.numel() for w in weights[2:])]
