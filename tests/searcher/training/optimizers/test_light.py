"""torch's optimisers without what torch.compile needs: the same steps, to the bit, and a process that starts sooner."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from searcher.training.optimizers.light import SGD, Adam, AdamW


def trained(cls: type[torch.optim.Optimizer], options: dict[str, Any]) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """The weights after six steps, the last three with an optimiser that goes on from a state; and its state."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Linear(5, 3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    optimizer = cls(network.parameters(), **options)
    for step in range(6):
        if step == 3:
            state = optimizer.state_dict()
            optimizer = cls(network.parameters(), **options)
            optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=True)
        network(torch.randn(7, 5, generator=generator)).square().sum().backward()
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()], optimizer.state_dict()


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (SGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3, "fused": True}),
        (AdamW, torch.optim.AdamW, {"lr": 0.01, "fused": True}),
        (Adam, torch.optim.Adam, {"lr": 0.01, "betas": (0.0, 0.999), "eps": 1e-3}),
    ],
)
def test_steps_and_states_are_torchs_own(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    weights, state = trained(ours, options)
    expected, expected_state = trained(theirs, options)
    assert all(map(torch.equal, weights, expected))
    assert state["param_groups"] == expected_state["param_groups"]
    for number, values in expected_state["state"].items():
        assert all(
            torch.equal(torch.as_tensor(state["state"][number][key]), torch.as_tensor(value))
            for key, value in values.items()
        )


def test_a_step_loads_nothing_of_torch_compile() -> None:
    script = """
import sys, torch
from searcher.training.optimizers.light import SGD, Adam, AdamW
for cls in (SGD, Adam, AdamW):
    weight = torch.zeros(2, requires_grad=True)
    optimizer = cls([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
    assert weight.tolist() != [0.0, 0.0]
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
