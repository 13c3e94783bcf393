"""The weights' optimiser and its schedules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from foundation.document import ConfigError
from searcher.training.optimizers.optimizer import SgdConfig, clip_gradients, learning_rate, make_optimizer, make_sgd
from searcher.training.optimizers.sharpness import climbed
from tests.searcher.toy import PLAIN, Toy


def test_a_single_cosine_falls_from_the_first_to_the_last_rate() -> None:
    config = SgdConfig(learning_rate=0.2, final_learning_rate=0.1)
    rates = [learning_rate(config, epoch, num_epochs=10) for epoch in (0, 5, 10)]
    assert rates == pytest.approx([0.2, 0.15, 0.1])


def test_the_warm_up_rises_from_zero_and_the_cosine_takes_over() -> None:
    config = SgdConfig(learning_rate=0.2, final_learning_rate=0.0, warmup_epochs=2)
    rates = [learning_rate(config, epoch, num_epochs=10) for epoch in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.1, 0.0])


def test_a_warm_up_that_does_not_fit_takes_half_of_the_training() -> None:
    config = SgdConfig(learning_rate=0.2, final_learning_rate=0.0, warmup_epochs=2)
    rates = [learning_rate(config, epoch, num_epochs=1) for epoch in (0, 0.25, 0.5, 0.75, 1)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.1, 0.0])


def test_the_first_of_several_cosines_begins_where_the_warm_up_ends() -> None:
    config = SgdConfig(learning_rate=0.2, final_learning_rate=0.0, warmup_epochs=2, restart_epochs=10)
    rates = [learning_rate(config, epoch, num_epochs=32) for epoch in (1, 2, 7, 12 - 1e-6, 12, 22)]
    assert rates == pytest.approx([0.1, 0.2, 0.1, 0.0, 0.2, 0.1], abs=1e-6)


@pytest.mark.parametrize("name", ["learning_rate", "warmup_epochs", "weight_decay", "clip_norm"])
def test_a_setting_without_bounds_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is inf; it must be finite"):
        SgdConfig(**{"learning_rate": 0.1, name: math.inf})


def test_restarts_come_at_10_30_70_and_150_as_published() -> None:
    config = SgdConfig(learning_rate=0.05, final_learning_rate=0.001, restart_epochs=10, restart_factor=2)
    for restart in (0, 10, 30, 70, 150):
        assert learning_rate(config, restart, num_epochs=310) == pytest.approx(0.05)
    for before in (10, 30, 70, 150, 310):
        assert learning_rate(config, before - 1e-6, num_epochs=310) == pytest.approx(0.001, abs=1e-6)


def test_the_papers_rate_for_text_decays_with_every_epoch_after_fifteen() -> None:
    config = SgdConfig(learning_rate=20.0, final_learning_rate=19.0, decay=0.96, decay_start_epoch=15)
    rates = [learning_rate(config, epoch, num_epochs=150) for epoch in (0, 14.9, 15, 15.9, 16)]
    assert rates == pytest.approx([20.0, 20.0, 19.2, 19.2, 19.0])  # 20 · 0.96² is less than the least


def test_a_decay_and_restarts_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"decay is 0\.9 and restart_epochs 10; they exclude each other"):
        SgdConfig(learning_rate=1.0, decay=0.9, restart_epochs=10)


def test_decay_spares_norms_biases_and_whatever_got_no_gradient() -> None:
    network = Toy()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = make_sgd(network, replace(PLAIN, weight_decay=0.5, momentum=0.0))
    (network(torch.randn(8, 4)).sum() * 0).backward()  # gradients of exactly zero
    optimizer.step()
    after = dict(network.named_parameters())
    torch.testing.assert_close(after["linear.weight"], before["linear.weight"] * (1 - 0.1 * 0.5))
    for name in ("linear.bias", "norm.weight", "norm.bias", "unused.weight", "unused.bias"):
        assert torch.equal(after[name], before[name]), name


def test_the_optimiser_takes_the_steps_of_torchs_plain_nesterov_sgd() -> None:
    first, second = Toy(), Toy()
    second.load_state_dict(first.state_dict())
    ours = make_sgd(first, replace(PLAIN, weight_decay=0.01, decay_norms=True))
    plain = torch.optim.SGD(second.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, foreach=False)
    for step in range(5):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for network, optimizer in ((first, ours), (second, plain)):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_the_clipped_norm_equals_the_bound() -> None:
    network = Toy()
    (1e3 * network(torch.randn(8, 4)).square().sum() * network.linear.weight.sum()).backward()
    before = clip_gradients(network.parameters(), 5.0)
    assert before is not None
    assert before.item() > 5
    norm = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(5.0, rel=1e-4)


def test_no_bound_leaves_gradients_alone() -> None:
    assert clip_gradients(Toy().parameters(), 0.0) is None


def test_adamw_takes_torchs_plain_steps_and_spares_norms_and_what_got_no_gradient() -> None:
    config = replace(PLAIN, optimizer="adamw", learning_rate=0.01, weight_decay=0.5, adam_betas=(0.8, 0.9))
    first, second = Toy(), Toy()
    second.load_state_dict(first.state_dict())
    before = first.unused.weight.detach().clone()
    ours = make_optimizer(first, config)
    options = {"lr": 0.01, "betas": (0.8, 0.9), "foreach": False}
    spared = [second.linear.bias, *second.norm.parameters()]
    plain = [
        torch.optim.AdamW([second.linear.weight], weight_decay=0.5, **options),
        torch.optim.AdamW(spared, weight_decay=0.0, **options),
    ]
    for step in range(5):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for network, optimizers in ((first, [ours]), (second, plain)):
            network.zero_grad()
            network(x)[:, 0].square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()
    assert torch.equal(first.unused.weight, before)
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_a_climb_moves_weights_by_its_radius_uphill_and_back_to_the_bit() -> None:
    network = Toy()
    (3 * network(torch.randn(8, 4)).square().sum() * network.linear.weight.sum()).backward()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    with climbed(list(network.parameters()), radius=0.25):
        steps = {name: p.detach() - before[name] for name, p in network.named_parameters()}
    moved = torch.cat([steps[name].flatten() for name, p in network.named_parameters()])
    uphill = torch.cat([(p.grad if p.grad is not None else 0 * p).flatten() for p in network.parameters()])
    assert moved.norm().item() == pytest.approx(0.25, rel=1e-4)
    assert torch.cosine_similarity(moved, uphill, dim=0).item() == pytest.approx(1, abs=1e-5)
    for name, p in network.named_parameters():
        assert torch.equal(p, before[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adam_betas": (0.9,)}, r"adam_betas are \[0.9\]; expected two from 0 up to, not including, 1"),
        ({"adam_betas": (0.9, 1.0)}, r"adam_betas are \[0.9, 1.0\]; expected two"),
        ({"accumulation": 0}, "accumulation is 0; at least 1 is needed"),
        ({"sharpness": -0.1}, "sharpness is -0.1; it must not be negative"),
        ({"update_unused": True, "sharpness": 0.1}, "update_unused is for plain steps of SGD"),
        ({"update_unused": True, "optimizer": "adamw"}, "update_unused is for plain steps of SGD"),
    ],
)
def test_settings_that_no_optimiser_has_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLAIN, **changes)
