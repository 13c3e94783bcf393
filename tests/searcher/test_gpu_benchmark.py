"""`make bench-gpu` from beginning to end, on the CPU with twins of what CUDA alone has."""

from __future__ import annotations

import pytest
import torch

from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.training.image_learner import ImageTraining
from tests.benchmarks import gpu
from tests.benchmarks.gpu_measuring import Effort
from tests.benchmarks.gpu_works import ABLATION, Images, Text

SIZES = (
    Images(
        "micro", MicroSpace(2), MicroSize(5, 4), MicroSize(5, 4), 4, 4, (8, 8, 3), ImageTraining(auxiliary_weight=0.4)
    ),
    Images("macro", MacroSpace(3), MacroSize(4), MacroSize(4), 4, 4, (8, 8, 3)),
    Text(hidden_size=4, num_nodes=3, batch_size=2, window=3, vocabulary_size=7),
)


ENDS = ("all", "all left out")


@pytest.mark.parametrize("names", [ENDS, pytest.param(tuple(ABLATION), marks=pytest.mark.slow)], ids=["ends", "all"])
def test_every_work_is_done_with_every_set_of_levers(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "ABLATION", {name: ABLATION[name] for name in names})
    gpu.main(torch.device("cpu"), sizes=SIZES, effort=Effort(2, 1))
    table = capsys.readouterr().out
    for name in names:
        assert table.count(f"| {name} | ") == (6 if name in gpu._OF_IMAGES else 7), name
