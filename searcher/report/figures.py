"""Names and formats of a run's figures: accuracies in per cent, perplexities and their rewards as numbers."""

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
    """Its name in metrics and summaries: accuracy or perplexity."""
    unit: str
    """The unit that figures are averaged over: image or token."""
    reward: str
    """The definition of the search's reward, in words."""
    percent: bool
    """Whether metric and rewards are fractions of 1, and written in per cent."""

    def written(self, value: object, *, digits: int = 1) -> str | None:
        """The formatted metric; None if it is not a number. digits: of a percentage, after the point."""
        return values.percent(value, digits=digits) if self.percent else values.decimal(value)

    def written_reward(self, value: object) -> str | None:
        if self.percent or not isinstance(value, int | float):
            return values.percent(value)
        return values.plain(float(value))


def figures_of(space: object, search_config: Mapping[str, Any]) -> Figures:
    """The figures of a space's runs; the figures for images if the space is not known yet."""
    if isinstance(space, str) and space in SPACES and SPACES[space].TASK_KIND == LANGUAGE_MODELLING:
        constant = table_in(search_config, "training").get("reward_constant", 80)
        return Figures("perplexity", "token", f"{constant:g} / perplexity", percent=False)
    return Figures("accuracy", "image", "validation accuracy", percent=True)
