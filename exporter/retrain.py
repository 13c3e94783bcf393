"""Training the fixed network of a spec from scratch.

On train, choosing the best epoch on valid; test is scored once, at the end.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from datasets.batches import Augmentation, ImageBatches
from datasets.seeds import stream_seed
from datasets.store import ImageStore, StoreError, shape_text
from searcher.arch.document import ConfigError
from searcher.arch.spec import Spec, write_spec
from searcher.nn.build import BoundNetwork, build_network
from searcher.training.checkpoint import load_checkpoint, loading, save_checkpoint
from searcher.training.device import Precision, describe
from searcher.training.epoch import Objective, WeightsTrainer, accuracy
from searcher.training.images import load_train_and_valid
from searcher.training.interrupt import Interrupt, Stopped
from searcher.training.optim import SgdConfig
from searcher.training.progress import Progress
from searcher.training.run_folder import RunFolder, versions

BEST = "best.pt"
_EVALUATION_BATCH_SIZE = 250


@dataclass(frozen=True)
class RetrainConfig:
    """Everything that makes a retraining, beside the spec; `retrain/config.toml` holds it whole."""

    preset: str
    """The preset it was made from."""
    num_epochs: int
    batch_size: int
    """Images of a step."""
    sgd: SgdConfig
    augmentation: Augmentation
    objective: Objective
    seed: int = 0
    """Fixes the run: on a CPU to the bit, for the same machine, versions and threads."""
    spec_sha256: str = ""
    """Of the spec that is trained, its provenance included."""
    dataset_sha256: str = ""
    """The store's digest, so that a run does not go on with other images."""
    memory_budget_mb: int = 2048
    """For training and validation images; what does not fit streams from the store."""
    drop_path_prob: float = 0.0
    """The last cell's at the end of training; it rises linearly over cells and steps. Authors' code: 0.4."""
    dropout_prob: float = 0.0
    """Before the classifier. Authors' code: 0.2."""
    ema_decay: float = 0.0
    """Of a moving average of the weights per step, which is then what is validated and kept; 0 for none."""
    train_on: Literal["train", "train+valid"] = "train"
    """train chooses the best epoch on valid; train+valid leaves nothing to choose on and takes the last epoch."""
    precision: Precision = "auto"
    """auto: bfloat16 on CUDA, float32 on a CPU."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "batch_size", "memory_budget_mb"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("drop_path_prob", "dropout_prob", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 up to, not including, 1")


def spec_digest(spec: Spec) -> str:
    """SHA-256 of a spec's text."""
    return hashlib.sha256(spec.to_json().encode()).hexdigest()


def check_task(spec: Spec, store: ImageStore) -> None:
    """Raises: StoreError: the spec's network does not fit the data set."""
    if spec.task.input_shape != store.image_shape:
        raise StoreError(
            f"the spec is for images of {shape_text(spec.task.input_shape)}, "
            f"but {store.name} has {shape_text(store.image_shape)}"
        )
    if spec.task.classes != store.classes:
        raise StoreError(f"the spec and {store.name} do not have the same classes")


class Retraining:
    """A retraining under way. All that changes is declared in `__init__`, saved in `state` and restored in `load`."""

    def __init__(self, spec: Spec, config: RetrainConfig, *, store: ImageStore, device: torch.device) -> None:
        self.config = config
        train, self.valid = load_train_and_valid(
            store, config.train_on, device=device, memory_budget_mb=config.memory_budget_mb
        )
        # Of the search's own seed, so that retraining does not replay the search's order and crops.
        seed = stream_seed(config.seed, "retrain")

        self.epoch = 0
        self.step = 0
        self.network = build_network(
            spec,
            seed=seed,
            dropout_prob=config.dropout_prob,
            auxiliary=config.objective.auxiliary_weight > 0,
        ).to(device)
        self.average = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
            if config.ema_decay > 0
            else None
        )
        self.weights = WeightsTrainer(
            self.network,
            train,
            sgd=config.sgd,
            objective=config.objective,
            augmentation=config.augmentation,
            batch_size=config.batch_size,
            num_epochs=config.num_epochs,
            seed=seed,
            device=device,
            precision=config.precision,
        )
        self.best_accuracy = -1.0
        self.best_epoch = 0

    def state(self) -> dict[str, Any]:
        """Raises: DivergedError: the loss is no longer finite, and the state not worth keeping."""
        self.weights.totals.check()
        return {
            "epoch": self.epoch,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "weights": self.weights.state(),
            "best_accuracy": self.best_accuracy,
            "best_epoch": self.best_epoch,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: the state is of another kind of run."""
        with loading("the checkpoint"):
            self.epoch, self.step = state["epoch"], state["step"]
            self.network.load_state_dict(state["network"])
            if self.average:
                self.average.load_state_dict(state["average"])
            self.weights.load(state["weights"])
            self.best_accuracy, self.best_epoch = state["best_accuracy"], state["best_epoch"]

    @property
    def steps_done(self) -> int:
        return self.epoch * self.weights.steps_per_epoch + self.step

    @property
    def kept(self) -> nn.Module:
        """The network whose weights count: the moving average if there is one."""
        return self.average.module if self.average else self.network

    def train_epoch(self) -> Iterator[None]:
        """The rest of the current epoch, yielding after each step."""
        first_step = self.epoch * self.weights.steps_per_epoch
        total_steps = self.config.num_epochs * self.weights.steps_per_epoch

        def forward(index: int, images: Tensor) -> tuple[Tensor, Tensor | None]:
            progress = (first_step + index + 1) / total_steps
            return self.network(images, drop_path_prob=self.config.drop_path_prob * progress)

        for done in self.weights.epoch(forward, epoch=self.epoch, start_step=self.step):
            self.step = done
            if self.average:
                self.average.update_parameters(self.network)
            yield
        self.weights.totals.check()

    def end_epoch(self) -> tuple[dict[str, Any], bool]:
        """The epoch's record, and whether its weights are the ones to keep; afterwards the next epoch begins.

        Where valid is trained on there is nothing to choose on, and the last epoch is kept.
        """
        record = {
            "epoch": self.epoch + 1,
            "loss": self.weights.totals.mean_loss(),
            "train_accuracy": self.weights.totals.accuracy(),
            "learning_rate": self.weights.learning_rate,
        }
        is_best = True
        if self.config.train_on == "train":
            record["valid_accuracy"] = score_split(self.kept, self.valid)
            is_best = record["valid_accuracy"] > self.best_accuracy
        self.epoch, self.step = self.epoch + 1, 0
        self.weights.totals.sums.zero_()
        if is_best:
            self.best_accuracy, self.best_epoch = record.get("valid_accuracy", -1.0), self.epoch
        return record, is_best


def score_split(network: nn.Module, batches: ImageBatches) -> float:
    """Accuracy in [0, 1] over a whole split, in full float32 and in evaluation mode."""
    network.eval()
    return accuracy(
        lambda images: network(images)[0],
        batches.epoch(batch_size=_EVALUATION_BATCH_SIZE, seed=0, epoch=0, shuffle=False),
        precision="float32",
    )


def retrain(
    spec: Spec,
    config: RetrainConfig,
    *,
    store: ImageStore,
    folder: RunFolder,
    device: torch.device,
    interrupt: Interrupt,
) -> dict[str, Any]:
    """Train the spec's network, or the rest of it, in `folder`; returns the summary, which it also writes.

    Writes `spec.json` and `best.pt`, the weights of the best epoch, into the folder.
    Raises: Stopped: `interrupt` was requested; the checkpoint stands at the last step. CheckpointError, DivergedError,
    StoreError.
    """
    check_task(spec, store)
    store.require_splits()
    write_spec(folder.path / "spec.json", spec)
    run = Retraining(spec, config, store=store, device=device)
    checkpoint, metrics = folder.restore()
    if checkpoint is not None:
        run.load(checkpoint)
    total = config.num_epochs * run.weights.steps_per_epoch
    with Progress("retrain", total=total, done=run.steps_done) as progress:
        while run.epoch < config.num_epochs:
            progress.show(epoch=f"{run.epoch + 1}/{config.num_epochs}")
            started, first_step = time.perf_counter(), run.step
            for _ in run.train_epoch():
                progress.step()
                if interrupt.requested:
                    folder.save(run.state(), metrics)
                    raise Stopped
            step_ms = 1e3 * (time.perf_counter() - started) / max(run.step - first_step, 1)
            record, is_best = run.end_epoch()
            record["step_ms"] = step_ms
            metrics.append(record, step=record["epoch"])
            progress.line(_line(record, config))
            if is_best:
                save_checkpoint(folder.path / BEST, {"network": run.kept.state_dict(), "epoch": run.best_epoch})
                progress.show(best=f"{run.best_accuracy:.4f}")
            folder.save(run.state(), metrics)
    metrics.close()
    network = load_best(folder, spec, device=device)
    test = ImageBatches.load(store, "test", device=device)
    summary = {
        "test_accuracy": score_split(network, test),
        "test_count": test.num_images,
        "best_epoch": run.best_epoch,
        "epochs": config.num_epochs,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": round(folder.seconds, 1),
        "device": describe(device),
        "versions": versions(),
    }
    if config.train_on == "train":
        summary["valid_accuracy"] = run.best_accuracy
    folder.finish(summary)
    return summary


def load_best(folder: RunFolder, spec: Spec, *, device: torch.device) -> BoundNetwork:
    """The network of a retraining with the weights of its best epoch so far, without auxiliary head, in eval mode.

    Raises: CheckpointError: there are none, or they are of another network.
    """
    network = build_network(spec)
    weights = load_checkpoint(folder.path / BEST, required=("network", "epoch"))["network"]
    with loading(str(folder.path / BEST)):
        network.load_state_dict({name: value for name, value in weights.items() if ".auxiliary_head." not in name})
    return network.eval().to(device)


def _line(record: dict[str, Any], config: RetrainConfig) -> str:
    valid = f", valid {record['valid_accuracy']:.4f}" if "valid_accuracy" in record else ""
    return (
        f"epoch {record['epoch']}/{config.num_epochs}: loss {record['loss']:.3f}, "
        f"train {record['train_accuracy']:.4f}{valid}, {record['step_ms']:.0f} ms a step"
    )
