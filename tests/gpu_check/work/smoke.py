"""One eager step, and one part captured and replayed: what fails here fails everywhere."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.nn.build import build_supernet
from searcher.nn.graph_parts import Part
from searcher.running.device import computing
from searcher.training.optimizers.optimizer import SgdConfig
from tests.benchmarks.gpu_works import graphs_on, training_step
from tests.gpu_check.job import Job, Record

_DROPOUT_PROB = 0.25


def main(job: Job, record: Record, device: torch.device) -> None:
    loss = eager_step(device)
    record.check("an eager step gives a finite loss", loss == loss and abs(loss) < 1e4, f"{loss:.3f}")
    replayed_part(record, device)
    replayed_dropout(record, device)


def eager_step(device: torch.device) -> float:
    """The loss of a step of a small supernet."""
    space = MicroSpace(2)
    supernet = build_supernet("micro", space, MicroSize(3, 8), input_shape=(16, 16, 3), num_classes=10, seed=0)
    supernet = supernet.to(device)
    images, labels = torch.randn(16, 3, 16, 16).to(device), torch.arange(16, device=device) % 10
    architecture = space.random(random.Random(0))
    seen: list[Tensor] = []

    def loss() -> Tensor:
        with computing(device, "auto"):
            logits, _ = supernet(images, architecture)
        seen.append(nn.functional.cross_entropy(logits.float(), labels))
        return seen[-1]

    training_step(supernet, loss, device, SgdConfig(learning_rate=0.05, update_unused=True))()
    return seen[-1].item()


def replayed_part(record: Record, device: torch.device) -> None:
    """Three replays beside the module itself, each with weights and inputs of its own."""
    module = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, track_running_stats=False))
    module = module.to(device)
    graphs, part, largest = graphs_on(device), Part(module, place="here"), 0.0
    for _ in range(3):
        with torch.no_grad():
            module[0].weight.normal_()
        x = torch.randn(4, 8, 12, 12).to(device)
        found, expected = (answers(call, module, x) for call in (lambda x: graphs.call(part, [x]), module))
        for mine, right in zip(found, expected, strict=True):
            largest = max(largest, ((mine - right).norm() / right.norm()).item())
    record.check("a replayed part computes what the part does", largest < 1e-2, f"relative difference {largest:.1e}")


def answers(call: object, module: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, and gradients of the input and of the weights."""
    module.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    y = call(x)  # type: ignore[operator]
    (y * torch.linspace(-1, 1, y.numel(), device=y.device).view_as(y)).sum().backward()
    return [y.detach().clone(), x.grad, *(p.grad.clone() for p in module.parameters() if p.grad is not None)]  # type: ignore[list-item]


def replayed_dropout(record: Record, device: torch.device) -> None:
    """Each replay has to draw anew, and the gradient to know what was dropped."""
    module = nn.Sequential(nn.Linear(64, 64), nn.Dropout(_DROPOUT_PROB)).to(device)
    graphs, part = graphs_on(device), Part(module, place="here")
    x = torch.ones(256, 64, device=device)
    dropped, agrees = [], True
    for _ in range(3):
        module.zero_grad(set_to_none=True)
        y = graphs.call(part, [x])
        dropped.append((y == 0).clone())
        y.sum().backward()
        kept = (~dropped[-1]).sum(0).float() / (1 - _DROPOUT_PROB)
        agrees &= torch.allclose(module[0].bias.grad, kept, rtol=1e-2)  # type: ignore[arg-type]
    share = torch.stack(dropped).float().mean().item()
    record.check("a replayed dropout drops its share", abs(share - _DROPOUT_PROB) < 0.02, f"{share:.3f}")
    record.check("every replay drops others", not torch.equal(dropped[1], dropped[2]))
    record.check("the gradient follows what was dropped", agrees)
