"""SGD over whole vectors takes the steps of SGD over each parameter, where all take part in every one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.nn.banks import used_as_one
from searcher.nn.build import build_supernet
from searcher.running.distributed import ALONE, World
from searcher.training.optimizers.flat_sgd import FlatSgd
from searcher.training.optimizers.optimizer import EachParameter, SgdConfig, clip_gradients
from tests.end_to_end.two_processes import in_two_processes

PLAIN = SgdConfig(learning_rate=0.05, momentum=0.0, weight_decay=0.0, clip_norm=0.0, update_unused=True)
SETTINGS = {
    "plain": PLAIN,
    "decay": replace(PLAIN, weight_decay=0.1),
    "momentum and clipping": replace(PLAIN, momentum=0.9, clip_norm=0.5),
    "all": replace(PLAIN, momentum=0.9, weight_decay=0.1, clip_norm=0.5),
    "all, norms too": replace(PLAIN, momentum=0.9, weight_decay=0.1, clip_norm=0.5, decay_norms=True),
}
NUM_STEPS = 20


class Choices(nn.Module):
    """Convolutions in channels_last with norms, of which a pass uses two, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.choices = nn.ModuleList(nn.Sequential(nn.Conv2d(5, 5, 3), nn.BatchNorm2d(5)) for _ in range(6))
        self.classifier = nn.Linear(5, 3)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, chosen: Sequence[int]) -> Tensor:
        for number in chosen:
            x = self.choices[number](x).relu()
        return self.classifier(x.mean(dim=(2, 3)))


def take_gradients(network: nn.Module, step: int) -> None:
    """Of a choice of the step's own, so that most parameters get none."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(8, 5, 7, 7, generator=generator)
    logits = network(images, torch.randperm(6, generator=generator)[:2].tolist())
    nn.functional.cross_entropy(logits, torch.arange(8) % 3).backward()


def each_step(network: nn.Module, optimizer: EachParameter, step: int, *, world: World = ALONE) -> Tensor | None:
    """The same as a step of the other, with gradients of zero spelt out."""
    optimizer.zero_grad()
    take_gradients(network, step + 100 * world.rank)
    world.average_gradients(list(network.parameters()))
    for parameter in network.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return optimizer.step()


def flat_step(network: nn.Module, optimizer: FlatSgd, step: int, *, world: World = ALONE) -> Tensor | None:
    optimizer.zero_grad()
    take_gradients(network, step + 100 * world.rank)
    world.average_gradients(list(network.parameters()))
    assert any(parameter.grad is None for parameter in network.parameters())
    return optimizer.step()


def assert_same(first: nn.Module, second: nn.Module) -> None:
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", SETTINGS)
def test_both_agree_over_twenty_steps_and_go_on_from_each_others_states(name: str) -> None:
    config = SETTINGS[name]
    each, flat = Choices(), Choices()
    by_each, by_flat = EachParameter(each, config), FlatSgd(flat, config)
    for step in range(NUM_STEPS):
        if step == NUM_STEPS // 2:  # each goes on from what the other would have written
            states = by_each.state_dict(), by_flat.state_dict()
            if config.momentum:
                shapes = [p.shape for group in by_each.param_groups for p in group["params"]]
                for state in states:
                    momenta = [state["state"][number]["momentum_buffer"] for number in range(len(shapes))]
                    assert [momentum.shape for momentum in momenta] == shapes
            by_each, by_flat = EachParameter(each, config), FlatSgd(flat, config)
            by_each.load_state_dict(states[1])
            by_flat.load_state_dict(states[0])
        norms = each_step(each, by_each, step), flat_step(flat, by_flat, step)
        if config.clip_norm:
            torch.testing.assert_close(*norms)
    assert_same(each, flat)


def in_a_world(world: World) -> dict[str, Any]:
    """Where twenty steps of both lead a rank."""
    each, flat = Choices(), Choices()
    by_each, by_flat = EachParameter(each, SETTINGS["all"]), FlatSgd(flat, SETTINGS["all"])
    for step in range(NUM_STEPS):
        each_step(each, by_each, step, world=world)
        flat_step(flat, by_flat, step, world=world)
    return {"each": each.state_dict(), "flat": flat.state_dict()}


def test_both_agree_where_two_ranks_use_different_parameters(tmp_path: Path) -> None:
    first, second = in_two_processes(in_a_world, folder=tmp_path)
    parameters = dict(Choices().named_parameters())  # norms' statistics are each rank's own
    for name in parameters:
        torch.testing.assert_close(first["flat"][name], first["each"][name], rtol=1e-4, atol=1e-6)
        assert torch.equal(first["flat"][name], second["flat"][name])


def test_stopping_and_going_on_changes_no_bit() -> None:
    config = SETTINGS["all"]
    through, stopped = Choices(), Choices()
    optimizer, first = FlatSgd(through, config), FlatSgd(stopped, config)
    for step in range(6):
        flat_step(through, optimizer, step)
    for step in range(3):
        flat_step(stopped, first, step)
    resumed = Choices()
    resumed.load_state_dict(stopped.state_dict())
    second = FlatSgd(resumed, config)
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        flat_step(resumed, second, step)
    for a, b in zip(through.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_parameters_keep_values_shapes_strides_and_the_rate_that_is_set() -> None:
    network, untouched = Choices(), Choices()
    optimizer = FlatSgd(network, PLAIN)
    for a, b in zip(network.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
    assert len({p.untyped_storage().data_ptr() for p in network.parameters()}) == 2  # what decays, and what is spared
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    flat_step(network, optimizer, 0)
    for a, b in zip(network.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "space", "size"), [("micro", MicroSpace(3), MicroSize(5, 8)), ("macro", MacroSpace(6), MacroSize(8))]
)
def test_parameters_used_as_one_get_gradients_together(name: str, space: Any, size: Any) -> None:
    """Or a step would miss those of which it looks at the first only."""
    supernet = build_supernet(name, space, size, input_shape=(12, 12, 1), num_classes=3, seed=0)
    units, rng = used_as_one(supernet), random.Random(0)
    assert [p for unit in units for p in unit] == list(supernet.parameters())
    assert len(units) < len(list(supernet.parameters())) / 2
    for _ in range(5):
        supernet.zero_grad()
        supernet(torch.randn(4, 1, 12, 12), space.random(rng))[0].sum().backward()
        assert all(len({parameter.grad is None for parameter in unit}) == 1 for unit in units)


def test_clipping_is_torchs_to_the_bit() -> None:
    plain, flat = Choices(), Choices()
    optimizer = FlatSgd(flat, SETTINGS["all"])
    for network in (plain, flat):
        take_gradients(network, 0)
    expected = clip_gradients(plain.parameters(), 0.5)
    assert torch.equal(optimizer.step(), expected)  # type: ignore[arg-type]
    for a, b in zip(plain.parameters(), flat.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [lambda: nn.Linear(3, 2), lambda: nn.Linear(2, 3, bias=False)])
def test_a_state_of_other_parameters_is_refused(make: Callable[[], nn.Module]) -> None:
    config = SETTINGS["all"]
    with pytest.raises((ValueError, RuntimeError)):
        FlatSgd(nn.Linear(4, 3), config).load_state_dict(EachParameter(make(), config).state_dict())


def test_a_step_of_each_parameter_leaves_alone_what_has_no_gradient() -> None:
    network, untouched = Choices(), Choices()
    optimizer = EachParameter(network, replace(SETTINGS["all"], update_unused=False))
    take_gradients(network, 0)
    used = [parameter.grad is not None for parameter in network.parameters()]
    optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(network.parameters(), untouched.parameters(), strict=True)]
    assert changed == used
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(used)
