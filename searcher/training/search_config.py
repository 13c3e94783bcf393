"""Everything that makes a search, in one frozen table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foundation.document import ConfigError, unknown
from searcher.arch.space import SPACES, space_module
from searcher.controller.policy import PolicyConfig, check_policy
from searcher.controller.reinforce import ReinforceConfig
from searcher.latency.target import LatencyTarget
from searcher.running.device import Precision
from searcher.training.derive import DeriveConfig
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.task_kinds import check_steps, check_training, training_type


@dataclass(frozen=True)
class SearchConfig:
    """Everything that makes a search; `search/config.toml` holds it whole."""

    space: str
    """The name of a module in `searcher/arch/spaces/`."""
    preset: str
    """The preset it was made from."""
    dataset: str
    """A data set's name, or the path of a store."""
    seed: int
    """Fixes the run: on a CPU to the bit, for the same machine, versions and threads."""
    num_epochs: int
    """Each a pass over train for the shared weights, or several, see `min_steps`; then `policy_steps`."""
    batch_size: int
    """Images, or parallel streams of text, of a step of the shared weights, shared out over the processes."""
    training: Any
    """How the task is learnt: `ImageTraining` or `TextTraining`."""
    search_space: Any
    """Options of the space, such as num_nodes."""
    network: Any
    """The supernet's size."""
    final_network: Any
    """The size of the network to be retrained, which the spec hands on."""
    sgd: SgdConfig
    """Of the shared weights."""
    policy: PolicyConfig
    reinforce: ReinforceConfig
    policy_steps: int
    """Updates of the policy after each epoch. Paper: 2000; authors' micro code: 30."""
    policy_samples: int
    """Architectures scored for each update. Paper: 1; authors' micro code: 10."""
    control_samples: int
    """Uniformly random architectures scored on the same minibatch, only to compare with."""
    reward_batch_size: int
    """Validation images, or windows of text, on which all architectures of a policy step are scored."""
    derivation: DeriveConfig
    policy_start_epoch: int = 0
    """Epochs of shared weights alone, before the first with policy steps. The paper and the authors' code have none; a
    short search gains by waiting, since operations with many weights score badly before they are trained."""
    min_steps: int = 0
    """Of the shared weights in all epochs together: where train is too small, an epoch is up to 8 passes over it."""
    architectures_per_step: int = 1
    """Child models whose gradients one step of the shared weights averages: the paper's M. Of each process, where there
    are several."""
    latency: LatencyTarget | None = None
    """What the deployed network is to take; None leaves latency out of the reward."""
    precision: Precision = "auto"
    """auto: see `device.products_precision`."""
    threads: int = 0
    """On a CPU; 0 for as many as pay and as other processes leave, see `threads`."""
    memory_budget_mb: int = 2048
    """For training and validation images; what does not fit streams from the store."""
    dataset_sha256: str = ""
    """The store's digest, so that a run does not go on with other data."""

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise ConfigError(unknown("space", self.space, tuple(SPACES)))
        for name in (
            "num_epochs",
            "batch_size",
            "policy_steps",
            "policy_samples",
            "reward_batch_size",
            "architectures_per_step",
            "memory_budget_mb",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if self.policy_start_epoch >= self.num_epochs:
            raise ConfigError(
                f"policy_start_epoch is {self.policy_start_epoch}, so of {self.num_epochs} epochs (num_epochs) none "
                "would train the policy; set a lower one, too"
            )
        for name in ("seed", "control_samples", "policy_start_epoch", "threads", "min_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.policy.kind == "lstm" and self.reinforce.baseline == "leave_one_out" and self.policy_samples < 2:
            raise ConfigError("the leave_one_out baseline needs policy_samples of at least 2")
        check_policy(self.policy, self.search_space.steps())
        check_training(self.space, self.training)
        check_steps(self.sgd, self.training, batch_size=self.batch_size)

    @staticmethod
    def upgraded(table: Mapping[str, Any]) -> dict[str, Any]:
        """A search's table as this version reads it: with values of operations by name.

        Earlier versions gave them as lists, in the order of the published operations.
        """
        space, policy = table.get("space"), table.get("policy")
        if not isinstance(space, str) or space not in SPACES or not isinstance(policy, Mapping):
            return dict(table)
        names: Sequence[str] = getattr(SPACES[space], "PUBLISHED_OPERATIONS", ())
        named = {
            key: dict(zip(names, value, strict=False))
            for key, value in policy.items()
            if key in ("operation_bias", "operation_logit_start") and isinstance(value, list)
        }
        return {**table, "policy": {**policy, **named}}


def config_types(space: str) -> dict[str, type[Any]]:
    """The classes of a SearchConfig's fields that depend on the space, for reading one."""
    module = space_module(space)
    return {
        "search_space": module.SPACE,
        "network": module.SIZE,
        "final_network": module.SIZE,
        "training": training_type(space),
    }
