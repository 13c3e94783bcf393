"""The settings of a derivation by training."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.retraining.config import RetrainConfig
from foundation.document import ConfigError


@dataclass(frozen=True)
class HalvingConfig:
    """How many candidates are trained, and for how long."""

    num_scored: int = 200
    """Architectures of the policy that meet the target, scored with shared weights."""
    num_candidates: int = 16
    """Candidates that are trained: the policy's best, uniformly random ones, and neighbours of known networks. Known
    networks come on top."""
    rung_epochs: tuple[int, ...] = (4, 12)
    """Epochs of each rung's trainings, from scratch."""
    keep: float = 0.25
    """Fraction of a rung's candidates that is kept for the next rung."""
    num_descendants: int = 0
    """Neighbours of the first rung's best candidates, trained in the first rung, too."""
    seed: int = 0
    """Determines which candidates are drawn."""
    spec_sha256: str = ""
    """Digest of the spec that the search chose."""
    recipe: RetrainConfig | None = None
    """How candidates are trained, except for the number of epochs; None in derivations of earlier versions."""

    def __post_init__(self) -> None:
        for name in ("num_scored", "num_candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if self.num_descendants < 0:
            raise ConfigError(f"num_descendants is {self.num_descendants}; expected 0 or more")
        if not self.rung_epochs or min(self.rung_epochs) < 1:
            raise ConfigError("rung_epochs must be one or more numbers of epochs, each at least 1")
        if not 0 < self.keep < 1:
            raise ConfigError(f"keep is {self.keep}; expected a part between 0 and 1")


_PRESETS: dict[str, HalvingConfig] = {
    "quick": HalvingConfig(num_scored=20, num_candidates=4, rung_epochs=(2, 3), keep=0.15),
    "deploy": HalvingConfig(num_scored=150, num_candidates=16, rung_epochs=(2, 6), keep=0.25, num_descendants=9),
}


def halving_preset(name: str) -> HalvingConfig:
    """Returns the settings of the preset `name`; those of `deploy` if it has none of its own."""
    return _PRESETS.get(name, _PRESETS["deploy"])
