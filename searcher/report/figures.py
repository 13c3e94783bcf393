"""How a run's figures are called and written: accuracies in per cent, perplexities and their rewards as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from searcher.arch.space import SPACES
from searcher.arch.tasks import LANGUAGE_MODELLING
from searcher.report import values
from searcher.report.run_files import table_in


@dataclass(frozen=True)
class Figures:
    """The figures of a kind of task."""

    metric: str
    """As metrics and summaries call it: accuracy or perplexity."""
    unit: str
    """What they are means over."""
    reward: str
    """What a reward of the search is."""
    percent: bool
    """Whether metric and rewards are parts of one."""

    def written(self, value: object, *, digits: int = 1) -> str | None:
        """The metric. digits: of a percentage, after the point."""
        return values.percent(value, digits=digits) if self.percent else values.decimal(value)

    def written_reward(self, value: object) -> str | None:
        if self.percent or not isinstance(value, int | float):
            return values.percent(value)
        return values.plain(float(value))


def figures_of(space: object, search_config: Mapping[str, Any]) -> Figures:
    """The figures of a space's runs; those of images where the space is not known yet."""
    if isinstance(space, str) and space in SPACES and SPACES[space].TASK_KIND == LANGUAGE_MODELLING:
        constant = table_in(search_config, "training").get("reward_constant", 80)
        return Figures("perplexity", "token", f"{constant:g} / perplexity", percent=False)
    return Figures("accuracy", "image", "validation accuracy", percent=True)
