"""The ENAS alternation: an epoch of shared weights, then a number of policy steps, over and over; then derivation.

Source: Pham et al. 2018, section 2.2.
"""

# B architectures of one policy step

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from datasets.batches import Augmentation, ImageBatches
from datasets.seeds import numpy_generator, stream_seed
from datasets.store import ImageStore
from searcher.arch.spaces import space_module
from searcher.arch.spec import IMAGE_CLASSIFICATION, Spec, Task, write_spec
from searcher.controller.policy import LstmPolicy, Policy, PolicyConfig
from searcher.controller.random_policy import RandomPolicy
from searcher.controller.reinforce import Baseline, ReinforceConfig, reinforce_loss
from searcher.nn.build import build_supernet
from searcher.training.checkpoint import CheckpointError
from searcher.training.derive import DeriveConfig, derive, num_scorings, score
from searcher.training.device import Precision, describe
from searcher.training.epoch import Objective, Totals, train_epoch
from searcher.training.interrupt import Interrupt, Stopped
from searcher.training.optim import SgdConfig, make_sgd
from searcher.training.progress import Progress
from searcher.training.run_folder import RunFolder, versions


@dataclass(frozen=True)
class SearchConfig:
    """Everything that makes a search; `search/config.toml` holds it whole."""

    space: str
    """micro."""
    preset: str
    """The preset it was made from."""
    dataset: str
    """A data set's name, or the path of a store."""
    seed: int
    """Fixes the run: on a CPU to the bit, for the same machine, versions and threads."""
    num_epochs: int
    """Each a pass over train for the shared weights, then `policy_steps`."""
    batch_size: int
    """Images of a step of the shared weights."""
    search_space: Any
    """Options of the space: for micro, num_nodes."""
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
    """Validation images on which all architectures of a policy step are scored."""
    derivation: DeriveConfig
    policy_start_epoch: int = 0
    """Epochs of shared weights alone, before the first with policy steps. The paper and the authors' code have none; a
    short search gains by waiting, since operations with many weights score badly before they are trained."""
    architectures_per_step: int = 1
    """Child models whose gradients one step of the shared weights averages: the paper's M."""
    augmentation: Augmentation = Augmentation()  # noqa: RUF009 - frozen, so one serves all
    """Of training images."""
    dropout_prob: float = 0.0
    """Before the classifier. Authors' code: 0.1."""
    auxiliary_weight: float = 0.0
    """Of the auxiliary head's loss; 0 builds none. Authors' code: 0.4."""
    precision: Precision = "auto"
    """auto: bfloat16 on CUDA, float32 on a CPU."""

    def __post_init__(self) -> None:
        for name in (
            "num_epochs",
            "batch_size",
            "policy_steps",
            "policy_samples",
            "reward_batch_size",
            "architectures_per_step",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("control_samples", "policy_start_epoch"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.policy.kind == "lstm" and self.reinforce.baseline == "leave_one_out" and self.policy_samples < 2:
            raise ValueError("the leave_one_out baseline needs policy_samples of at least 2")


class Search:
    """A search under way. All that changes is declared in `__init__`, saved in `state` and restored in `load`."""

    def __init__(self, config: SearchConfig, *, store: ImageStore, device: torch.device) -> None:
        self.config = config
        self.store = store
        self.device = device
        self.space = config.search_space
        self.train = ImageBatches.load(store, "train", device=device)
        self.valid = ImageBatches.load(store, "valid", device=device)
        self.control = RandomPolicy(self.space.steps())

        self.epoch = 0
        self.phase: Literal["weights", "policy", "derive"] = "weights"
        self.step = 0  # of the phase
        self.supernet = build_supernet(
            self.space,
            config.network,
            input_shape=store.image_shape,
            num_classes=len(store.classes),
            seed=config.seed,
            dropout_prob=config.dropout_prob,
            auxiliary=config.auxiliary_weight > 0,
        ).to(device)
        self.weights_optimizer = make_sgd(self.supernet, config.sgd)
        self.totals = Totals(device)
        self.policy: Policy = self._make_policy()
        self.policy_optimizer = (
            torch.optim.Adam(
                self.policy.parameters(),
                lr=config.reinforce.learning_rate,
                betas=(config.reinforce.adam_betas[0], config.reinforce.adam_betas[1]),
                eps=config.reinforce.adam_eps,
            )
            if isinstance(self.policy, LstmPolicy)
            else None
        )
        self.baseline = Baseline(config.reinforce)
        self.policy_totals = torch.zeros(3, dtype=torch.float64)  # sums over policy steps: reward, control's, entropy

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "phase": self.phase,
            "step": self.step,
            "supernet": self.supernet.state_dict(),
            "weights_optimizer": self.weights_optimizer.state_dict(),
            "totals": self.totals.sums,
            "policy": self.policy.state_dict() if isinstance(self.policy, LstmPolicy) else {},
            "policy_optimizer": self.policy_optimizer.state_dict() if self.policy_optimizer else {},
            "baseline": self.baseline.value,
            "policy_totals": self.policy_totals,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: the state is of another kind of run."""
        try:
            self.epoch, self.phase, self.step = state["epoch"], state["phase"], state["step"]
            self.supernet.load_state_dict(state["supernet"])
            self.weights_optimizer.load_state_dict(state["weights_optimizer"])
            self.totals.sums.copy_(state["totals"])
            if isinstance(self.policy, LstmPolicy) and self.policy_optimizer:
                self.policy.load_state_dict(state["policy"])
                self.policy_optimizer.load_state_dict(state["policy_optimizer"])
            self.baseline.value = state["baseline"]
            self.policy_totals.copy_(state["policy_totals"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"the checkpoint does not belong to this configuration ({reason})") from None

    @property
    def steps_per_epoch(self) -> int:
        return self.train.num_steps(self.config.batch_size, drop_last=self._drop_last)

    @property
    def policy_steps(self) -> int:
        """Policy steps of the current epoch."""
        return self.config.policy_steps if self.epoch >= self.config.policy_start_epoch else 0

    @property
    def steps_done(self) -> int:
        """Steps of shared weights and of the policy together."""
        before = self.steps_before(self.epoch) + self.step
        return before + (self.steps_per_epoch if self.phase == "policy" else 0)

    def steps_before(self, epoch: int) -> int:
        """Steps of all epochs before `epoch`."""
        policy_epochs = max(epoch - self.config.policy_start_epoch, 0)
        return epoch * self.steps_per_epoch + policy_epochs * self.config.policy_steps

    @property
    def _drop_last(self) -> bool:
        """Norms want batches of one size; a data set smaller than a batch is taken as it is."""
        return self.train.num_images >= self.config.batch_size

    def train_weights(self) -> Iterator[None]:
        """Phase one: a pass over train, every step with its own architecture, yielding after each."""
        config = self.config
        # The policy does not change within the phase, so one pass samples for all of its steps.
        per_step = config.architectures_per_step
        architectures = self._sample(self.policy, per_step * self.steps_per_epoch, "architectures")

        def forward(index: int, images: Tensor) -> tuple[Tensor, Tensor | None]:
            return self.supernet(images, architectures[index])

        steps = train_epoch(
            forward,
            network=self.supernet,
            batches=self.train.epoch(
                batch_size=config.batch_size,
                seed=config.seed,
                epoch=self.epoch,
                augmentation=config.augmentation,
                drop_last=self._drop_last,
                start_step=self.step,
            ),
            optimizer=self.weights_optimizer,
            objective=Objective(auxiliary_weight=config.auxiliary_weight),
            config=config.sgd,
            totals=self.totals,
            seed=config.seed,
            epoch=self.epoch,
            num_epochs=config.num_epochs,
            num_steps=self.steps_per_epoch,
            start_step=self.step,
            passes=per_step,
            precision=config.precision,
        )
        for done in steps:
            self.step = done
            yield

    def train_policy(self) -> Iterator[float]:
        """Phase two: updates of the policy, yielding the mean reward of each."""
        config = self.config
        batch_size = min(config.reward_batch_size, self.valid.num_images)
        for step in range(self.step, self.policy_steps):
            rng = numpy_generator(config.seed, "reward", self.epoch, step)
            images, labels = self.valid.batch(rng.choice(self.valid.num_images, batch_size, replace=False))
            generator = torch.Generator().manual_seed(stream_seed(config.seed, "policy", self.epoch, step))
            sample = self.policy.sample(config.policy_samples, generator=generator)
            architectures = [self.space.from_tokens(row) for row in sample.tokens.tolist()]
            controls = self._sample(self.control, config.control_samples, "control", step)
            rewards = score(self.supernet, architectures + controls, images, labels, precision=config.precision)
            rewards, control_rewards = rewards.split([len(architectures), len(controls)])
            if self.policy_optimizer is not None:
                loss = reinforce_loss(sample, rewards, baseline=self.baseline, config=config.reinforce)
                self.policy_optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.policy_optimizer.step()
            means = [rewards.mean(), control_rewards.mean(), sample.entropy.detach().mean()]
            self.policy_totals += torch.stack([mean.cpu() for mean in means])
            self.step = step + 1
            yield rewards.mean().item()

    def _sample(self, policy: Policy, count: int, *stream: str | int) -> list[Any]:
        if count == 0:
            return []
        generator = torch.Generator().manual_seed(stream_seed(self.config.seed, *stream, self.epoch))
        with torch.no_grad():
            tokens = policy.sample(count, generator=generator).tokens
        return [self.space.from_tokens(row) for row in tokens.tolist()]

    def _make_policy(self) -> Policy:
        if self.config.policy.kind == "random":
            return self.control
        seed = stream_seed(self.config.seed, "policy")
        return LstmPolicy(self.space.steps(), self.config.policy, seed=seed).to(self.device)


def search(
    config: SearchConfig,
    *,
    store: ImageStore,
    folder: RunFolder,
    device: torch.device,
    interrupt: Interrupt,
) -> Spec:
    """Run a search, or the rest of one, in `folder`; writes `spec.json` beside the folder and the folder's summary.

    Raises: Stopped: `interrupt` was requested; the checkpoint stands at the last step. CheckpointError, DivergedError.
    """
    run = Search(config, store=store, device=device)
    checkpoint, metrics = folder.restore()
    seconds_before = 0.0
    if checkpoint is not None:
        run.load(checkpoint)
        seconds_before = checkpoint["seconds"]
    started = time.perf_counter()

    def seconds() -> float:
        return seconds_before + time.perf_counter() - started

    def save() -> None:
        folder.save({**run.state(), "seconds": seconds()}, metrics)

    def stop_if_asked() -> None:
        if interrupt.requested:
            save()
            raise Stopped

    total = run.steps_before(config.num_epochs) + num_scorings(config.derivation)
    with Progress("search", total=total, done=run.steps_done) as progress:
        while run.epoch < config.num_epochs:
            epoch_started = time.perf_counter()
            steps_before = run.step
            if run.phase == "weights":
                for _ in run.train_weights():
                    progress.step(epoch=f"{run.epoch + 1}/{config.num_epochs}", phase="weights")
                    stop_if_asked()
                run.totals.mean_loss()  # a diverged supernet must not reach the checkpoint
                run.phase, run.step = "policy", 0
            weights_seconds = time.perf_counter() - epoch_started
            for reward in run.train_policy():
                progress.step(
                    epoch=f"{run.epoch + 1}/{config.num_epochs}",
                    phase="policy",
                    reward=f"{reward:.3f}",
                    baseline=f"{run.baseline.value:.3f}",
                    entropy=f"{run.policy_totals[2].item() / run.step:.1f}",
                )
                stop_if_asked()
            record = _epoch_record(run)
            record["step_ms"] = 1e3 * weights_seconds / max(run.steps_per_epoch - steps_before, 1)
            metrics.append(record, step=run.epoch)
            progress.line(_epoch_line(record, config))
            run.epoch, run.phase, run.step = run.epoch + 1, "weights", 0
            run.totals.sums.zero_()
            run.policy_totals.zero_()
            save()

        def on_score() -> None:
            progress.step(phase="derive")
            stop_if_asked()

        derived = derive(
            run.policy,
            run.space,
            run.supernet,
            run.valid,
            config.derivation,
            batch_size=config.reward_batch_size,
            seed=config.seed,
            precision=config.precision,
            on_score=on_score,
        )
    metrics.close()
    spec = _make_spec(config, store=store, architecture=derived.architecture, reward=derived.reward, device=device)
    write_spec(folder.path.parent / "spec.json", spec)
    folder.finish(
        {
            "reward": derived.reward,
            "sampled_rewards": derived.sampled_rewards,
            "finalist_rewards": derived.finalist_rewards,
            "epochs": config.num_epochs,
            "steps": config.num_epochs * run.steps_per_epoch,
            "seconds": round(seconds(), 1),
            "device": describe(device),
            "versions": versions(),
        }
    )
    return spec


def _epoch_record(run: Search) -> dict[str, Any]:
    record = {
        "epoch": run.epoch + 1,
        "loss": run.totals.mean_loss(),
        "train_accuracy": run.totals.accuracy(),
        "learning_rate": run.weights_optimizer.param_groups[0]["lr"],
    }
    if run.policy_steps > 0:
        record["reward"], control_reward, record["entropy"] = (run.policy_totals / run.policy_steps).tolist()
        if run.config.control_samples > 0:
            record["random_reward"] = control_reward
        if isinstance(run.policy, LstmPolicy):
            record["baseline"] = run.baseline.value
    return record


def _epoch_line(record: dict[str, Any], config: SearchConfig) -> str:
    line = f"epoch {record['epoch']}/{config.num_epochs}: loss {record['loss']:.3f}"
    if "reward" in record:
        line += f", reward {record['reward']:.3f}"
        line += f" (random {record['random_reward']:.3f})" if "random_reward" in record else ""
        line += f", entropy {record['entropy']:.1f}"
    return f"{line}, {record['step_ms']:.0f} ms a step"


def _make_spec(
    config: SearchConfig, *, store: ImageStore, architecture: Any, reward: float, device: torch.device
) -> Spec:
    return Spec(
        space=config.space,
        architecture=architecture,
        network=config.final_network,
        task=Task(
            dataset=config.dataset,
            kind=IMAGE_CLASSIFICATION,
            input_shape=store.image_shape,
            classes=store.classes,
        ),
        provenance={
            "preset": config.preset,
            "policy": config.policy.kind,
            "seed": config.seed,
            "epochs": config.num_epochs,
            "reward": float(f"{reward:.6g}"),
            "device": device.type,
            "versions": versions(),
        },
    )


def config_types(space: str) -> dict[str, type[Any]]:
    """The classes of a SearchConfig's fields that depend on the space, for reading one."""
    module = space_module(space)
    return {"search_space": module.SPACE, "network": module.SIZE, "final_network": module.SIZE}
