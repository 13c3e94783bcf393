"""The search is a search: on real images the controller comes to sample better architectures than chance does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets.catalog import load_images
from searcher.presets.catalog import search_preset
from searcher.running.interrupt import Interrupt
from searcher.running.metrics import read_metrics
from searcher.running.run_folder import RunFolder
from searcher.training.search import search


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_quick_searchs_controller_beats_the_random_policy_on_the_same_supernet(tmp_path: Path) -> None:
    config = replace(search_preset("micro", "quick", image_size=28), seed=0)
    folder = RunFolder.open(tmp_path / "search", config)
    search(
        config,
        store=load_images(config.dataset),
        folder=folder,
        device=torch.device("cpu"),
        interrupt=Interrupt(),
    )
    records = [record for record in read_metrics(tmp_path / "search" / "metrics.jsonl") if "reward" in record]
    margins = [record["reward"] - record["random_reward"] for record in records]
    assert margins[-1] > 0.02
    assert margins[-1] > margins[0]
