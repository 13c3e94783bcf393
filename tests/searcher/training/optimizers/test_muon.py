"""Muon: orthogonal steps for convolutions, torch's own for all else."""

# O output channels, I input channels, K kernel size

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from searcher.training.optimizers.muon import is_of_convolution, orthogonal
from searcher.training.optimizers.optimizer import EachParameter, SgdConfig

MUON = SgdConfig(learning_rate=0.1, weight_decay=0.01, optimizer="muon", muon_step=0.02)


class Small(nn.Module):
    """One of each: a dense convolution, a 1×1, a depthwise one, a norm, a classifier, and one that no step uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.wide = nn.Conv2d(8, 32, 1, bias=False)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.classifier = nn.Linear(32, 5)
        self.unused = nn.Conv2d(8, 8, 1, bias=False)
        self.stem.weight.data = self.stem.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.classifier(self.norm(self.depthwise(self.wide(self.stem(x)))).mean((2, 3)))
        return found


def take_steps(network: Small, optimizer: EachParameter | torch.optim.SGD, count: int = 1, first: int = 0) -> None:
    for step in range(first, first + count):
        generator = torch.Generator().manual_seed(step)
        x, labels = torch.randn(16, 3, 6, 6, generator=generator), torch.randint(5, (16,), generator=generator)
        optimizer.zero_grad()
        loss: Tensor = nn.functional.cross_entropy(network(x), labels)
        torch.autograd.backward(loss)
        optimizer.step()


@pytest.mark.parametrize("shape", [(8, 27), (32, 8), (16, 16), (288, 48), (1, 9)])
def test_singular_values_become_alike_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    (found,) = u.T @ orthogonal(matrix[None]) @ v.T
    assert 0.6 < found.diagonal().min() <= found.diagonal().max() < 1.3
    assert (found - found.diagonal().diag()).abs().max() < 1e-4


def test_zeros_stay_zeros() -> None:
    assert torch.equal(orthogonal(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))


def test_a_step_takes_a_weight_its_share_of_the_way_and_keeps_its_norm() -> None:
    network = Small()
    before = copy.deepcopy(network)
    take_steps(network, EachParameter(network, MUON))
    for after, start in ((network.stem.weight, before.stem.weight), (network.wide.weight, before.wide.weight)):
        assert after.norm().item() == pytest.approx(start.norm().item(), rel=1e-5)
        assert (after - start).norm().item() == pytest.approx(0.02 * start.norm().item(), rel=0.05)
        singular = torch.linalg.svdvals((start - after).detach().flatten(1))
        assert singular.max() / singular.min() < 3  # of the gradient alone it is far more
    assert torch.equal(network.unused.weight, before.unused.weight)


def test_a_filter_that_sees_one_channel_follows_its_own_gradient_alone() -> None:
    network = Small()
    start = network.depthwise.weight.detach().flatten(1).clone()
    take_steps(network, EachParameter(network, replace(MUON, clip_norm=0.0)))
    assert network.depthwise.weight.grad is not None
    gradient, after = network.depthwise.weight.grad.flatten(1), network.depthwise.weight.detach().flatten(1)
    for before, found, towards in zip(start, after, gradient, strict=True):
        expected = before - 0.02 * before.norm() * towards / towards.norm()
        torch.testing.assert_close(found, expected * before.norm() / expected.norm())


def test_the_share_follows_the_rate() -> None:
    network = Small()
    start = network.wide.weight.detach().clone()
    optimizer = EachParameter(network, MUON)
    for group in optimizer.param_groups:
        group["lr"] = 0.025
    take_steps(network, optimizer)
    assert (network.wide.weight - start).norm().item() == pytest.approx(0.005 * start.norm().item(), rel=0.05)


def test_all_else_takes_sgds_steps() -> None:
    """With convolutions held still, so that both see the same gradients."""
    ours, plain = Small(), Small()
    for network in (ours, plain):
        for parameter in network.parameters():
            parameter.requires_grad_(not is_of_convolution(parameter))
    spared = [*plain.norm.parameters(), plain.classifier.bias]
    sgd = torch.optim.SGD(
        [
            {"params": [plain.classifier.weight], "weight_decay": 0.01},
            {"params": spared, "weight_decay": 0.0},
        ],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
    )
    take_steps(ours, EachParameter(ours, replace(MUON, clip_norm=0.0)), 3)
    take_steps(plain, sgd, 3)
    for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_steps_go_on_where_they_stopped() -> None:
    through, stopped = Small(), Small()
    take_steps(through, EachParameter(through, MUON), 6)
    first = EachParameter(stopped, MUON)
    take_steps(stopped, first, 3)
    second = EachParameter(stopped, MUON)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    take_steps(stopped, second, 3, first=3)
    for a, b in zip(through.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(a, b)


def test_without_momentum() -> None:
    network = Small()
    start = network.wide.weight.detach().clone()
    take_steps(network, EachParameter(network, replace(MUON, momentum=0.0)), 2)
    assert not torch.equal(network.wide.weight, start)
