"""The ENAS alternation: an epoch of shared weights, then a number of policy steps, repeated.

Knows nothing of folders, checkpoints or progress; `search.py` handles those.
Source: Pham et al. 2018, section 2.2.
"""

# B architectures of one policy step

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from foundation.seeds import numpy_generator, stream_seed
from searcher.controller.policy import LstmPolicy, Policy
from searcher.controller.random_policy import RandomPolicy
from searcher.controller.reinforce import Baseline, reinforce_loss
from searcher.latency.target import Aim
from searcher.nn.build import build_supernet, task_options
from searcher.nn.graphs import Graphs, graph_operations
from searcher.running.checkpoint import loading
from searcher.running.distributed import ALONE, World
from searcher.training.derive import bind, score
from searcher.training.learner import Network
from searcher.training.optimizers.light import Adam
from searcher.training.search_config import SearchConfig
from searcher.training.task_kinds import Store, make_learner, task_of
from searcher.training.weights_trainer import WeightsTrainer

_MOST_DRAWS = 30


class Search:
    """A running search. All loop state is declared in `__init__`, saved in `state` and restored in `load`."""

    def __init__(
        self,
        config: SearchConfig,
        *,
        store: Store,
        device: torch.device,
        world: World = ALONE,
        graphs: Graphs | None = None,
        aim: Aim | None = None,
    ) -> None:
        """graphs: records the operations of a convolutional supernet.

        aim: at the config's latency target; None if it has none.
        """
        assert (aim is None) == (config.latency is None)
        self.config = config
        self.world = world
        self.aim = aim
        self.space = config.search_space
        self.task = task_of(store, dataset=config.dataset)
        self.learner = make_learner(
            self.task,
            config.training,
            store=store,
            train_on="train",
            batch_size=config.batch_size,
            reward_batch_size=config.reward_batch_size,
            seed=config.seed,
            device=device,
            memory_budget_mb=config.memory_budget_mb,
            precision=config.precision,
            world=world,
        )
        self.control = RandomPolicy(self.space.steps())

        self.epoch = 0
        self.phase: Literal["weights", "policy"] = "weights"
        self.step = 0  # of the phase
        self.supernet = build_supernet(
            config.space,
            self.space,
            config.network,
            seed=config.seed,
            **task_options(self.task),
            **self.learner.network_options,
        ).to(device)
        if graphs is not None:
            graph_operations(self.supernet, graphs)
        self.weights = WeightsTrainer(
            self.supernet,
            self.learner,
            sgd=config.sgd,
            num_epochs=config.num_epochs,
            min_steps=config.min_steps,
            seed=config.seed,
            device=device,
            passes=config.architectures_per_step,
            world=world,
        )
        self.policy: Policy = self.control
        self.policy_optimizer: torch.optim.Adam | None = None
        if config.policy.kind == "lstm":
            policy = LstmPolicy(self.space.steps(), config.policy, seed=stream_seed(config.seed, "policy"))
            self.policy = policy.to(device)
            self.policy_optimizer = Adam(
                policy.parameters(),
                lr=config.reinforce.learning_rate,
                betas=(config.reinforce.adam_betas[0], config.reinforce.adam_betas[1]),
                eps=config.reinforce.adam_eps,
            )
        self.baseline = Baseline(config.reinforce)
        # Sums over policy steps: reward, reward of the controls, entropy, latency in ms.
        self.policy_totals = torch.zeros(4, dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        """Raises: DivergedError: the loss is no longer finite, so the state is not worth saving."""
        return {
            "epoch": self.epoch,
            "phase": self.phase,
            "step": self.step,
            "supernet": self.supernet.state_dict(),
            "weights": self.weights.state(),
            "policy": self.policy.state_dict() if isinstance(self.policy, LstmPolicy) else {},
            "policy_optimizer": self.policy_optimizer.state_dict() if self.policy_optimizer else {},
            "baseline": self.baseline.value,
            "policy_totals": self.policy_totals,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: the state is of another kind of run."""
        with loading("the checkpoint"):
            self.epoch, self.phase, self.step = state["epoch"], state["phase"], state["step"]
            self.supernet.load_state_dict(state["supernet"])
            self.weights.load(state["weights"])
            if isinstance(self.policy, LstmPolicy) and self.policy_optimizer:
                self.policy.load_state_dict(state["policy"])
                self.policy_optimizer.load_state_dict(state["policy_optimizer"])
            self.baseline.value = state["baseline"]
            self.policy_totals.copy_(state["policy_totals"])

    def align(self) -> None:
        """Gives all ranks the first rank's weights; on different machines equal seeds may give different weights."""
        self.world.broadcast(self.supernet.parameters())
        if isinstance(self.policy, LstmPolicy):
            self.world.broadcast(self.policy.parameters())

    @property
    def policy_steps(self) -> int:
        """Policy steps of the current epoch."""
        return self.config.policy_steps if self.epoch >= self.config.policy_start_epoch else 0

    @property
    def steps_done(self) -> int:
        """Steps of shared weights and of the policy together."""
        before = self.steps_before(self.epoch) + self.step
        return before + (self.weights.steps_per_epoch if self.phase == "policy" else 0)

    def steps_before(self, epoch: int) -> int:
        """Steps of all epochs before `epoch`."""
        policy_epochs = max(epoch - self.config.policy_start_epoch, 0)
        return epoch * self.weights.steps_per_epoch + policy_epochs * self.config.policy_steps

    def train_weights(self) -> Iterator[None]:
        """Phase one: an epoch over train; each step of each rank has its own architectures. Yields after each step."""
        # The policy does not change within the phase, so one pass samples for all of its steps.
        num_architectures = self.config.architectures_per_step * self.weights.steps_per_epoch
        stream = ("architectures", self.epoch, *self.world.stream)
        architectures = self._sample(self.policy, num_architectures, *stream, near_target=True)

        def network_of(index: int) -> Network:
            return bind(self.supernet, architectures[index])

        for done in self.weights.epoch(network_of, epoch=self.epoch, start_step=self.step):
            self.step = done
            yield
        self.weights.totals.check()

    def train_policy(self) -> Iterator[float]:
        """Phase two: updates of the policy. Yields the mean reward of each."""
        config = self.config
        for step in range(self.step, self.policy_steps):
            batch = self.learner.reward_batch(numpy_generator(config.seed, "reward", self.epoch, step))
            generator = torch.Generator().manual_seed(stream_seed(config.seed, "policy", self.epoch, step))
            sample = self.policy.sample(config.policy_samples, generator=generator)
            architectures = [self.space.from_tokens(row) for row in sample.tokens.tolist()]
            controls = self._sample(self.control, config.control_samples, "control", self.epoch, step)
            rewards = score(self.learner, self.supernet, architectures + controls, [batch], world=self.world)
            rewards, mean_ms = self._with_latency(rewards, architectures, controls)
            rewards, control_rewards = rewards.split([len(architectures), len(controls)])
            if isinstance(self.policy, LstmPolicy) and self.policy_optimizer:
                loss = reinforce_loss(sample, rewards, baseline=self.baseline, config=config.reinforce)
                self.policy_optimizer.zero_grad(set_to_none=True)
                loss.backward()
                # The ranks' gradients are equal already, except for the order in which a device adds.
                self.world.average_gradients(list(self.policy.parameters()))
                for group in self.policy_optimizer.param_groups:
                    group["lr"] = config.reinforce.learning_rate * self._policy_rate(step)
                self.policy_optimizer.step()
            means = [rewards.mean(), control_rewards.mean(), sample.entropy.detach().mean(), mean_ms]
            self.policy_totals += torch.stack([mean.cpu() for mean in means])
            self.step = step + 1
            yield rewards.mean().item()

    def _with_latency(self, rewards: Tensor, architectures: list[Any], controls: list[Any]) -> tuple[Tensor, Tensor]:
        """Returns rewards [n] of architectures and controls with latency penalties; mean latency of the former, ms."""
        if self.aim is None:
            return rewards, torch.zeros(())
        latencies = self.aim.latencies(architectures + controls)
        penalised = rewards + self.aim.target.penalty(latencies).to(rewards.device)
        return penalised, latencies[: len(architectures)].mean()

    def _policy_rate(self, step: int) -> float:
        """Returns the factor of the policy's learning rate at a step of the current epoch, in (0, 1]."""
        ramp = self.config.reinforce.ramp_epochs * self.config.policy_steps
        done = (self.epoch - self.config.policy_start_epoch) * self.config.policy_steps + step + 1
        return min(1.0, done / ramp) if ramp > 0 else 1.0

    def end_epoch(self) -> dict[str, Any]:
        """Returns the epoch's record, and begins the next epoch."""
        record: dict[str, Any] = {"epoch": self.epoch + 1, **self.weights.record()}
        if self.policy_steps > 0:
            totals = (self.policy_totals / self.policy_steps).tolist()
            record["reward"], control_reward, record["entropy"], latency_ms = totals
            if self.aim is not None:
                record["latency_ms"] = latency_ms
            if self.config.control_samples > 0:
                record["random_reward"] = control_reward
            if not math.isnan(self.baseline.value):
                record["baseline"] = self.baseline.value
        self.epoch, self.phase, self.step = self.epoch + 1, "weights", 0
        self.weights.totals.sums.zero_()
        self.policy_totals.zero_()
        return record

    def is_near_target(self, architecture: Any) -> bool:
        """Whether the search trains an architecture's weights; always true without a latency target."""
        return self.aim is None or self.aim.is_near(architecture)

    def _sample(self, policy: Policy, count: int, *stream: str | int, near_target: bool = False) -> list[Any]:
        """Returns `count` architectures, sampled with a random stream of their own.

        near_target: with a latency target, architectures far from it are drawn again, within bounds: networks that are
        several times slower would take most of the time, and their weights are not needed.
        """
        generator = torch.Generator().manual_seed(stream_seed(self.config.seed, *stream))
        architectures: list[Any] = []
        for last in [False] * _MOST_DRAWS + [True]:
            missing = count - len(architectures)
            if missing == 0:
                break
            with torch.no_grad():
                tokens = policy.sample(missing, generator=generator).tokens
            drawn = [self.space.from_tokens(row) for row in tokens.tolist()]
            restricted = near_target and not last
            architectures += [one for one in drawn if not restricted or self.is_near_target(one)]
        return architectures
