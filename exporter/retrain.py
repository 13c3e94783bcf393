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
from datasets.store import ImageStore, StoreError
from searcher.arch.spec import Spec, write_spec
from searcher.nn.build import BoundNetwork, build_network
from searcher.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from searcher.training.device import Precision, describe
from searcher.training.epoch import Objective, Totals, evaluate, train_epoch
from searcher.training.interrupt import Interrupt, Stopped
from searcher.training.optim import SgdConfig, make_sgd
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
        for name in ("num_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("drop_path_prob", "dropout_prob", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 up to, not including, 1")


def spec_digest(spec: Spec) -> str:
    """SHA-256 of a spec's text."""
    return hashlib.sha256(spec.to_json().encode()).hexdigest()


def check_task(spec: Spec, store: ImageStore) -> None:
    """Raises: StoreError: the spec's network does not fit the data set."""
    if spec.task.input_shape != store.image_shape:
        raise StoreError(
            f"the spec is for images of {_by(spec.task.input_shape)}, but {store.name} has {_by(store.image_shape)}"
        )
    if spec.task.classes != store.classes:
        raise StoreError(f"the spec and {store.name} do not have the same classes")


class Retraining:
    """A retraining under way. All that changes is declared in `__init__`, saved in `state` and restored in `load`."""

    def __init__(self, spec: Spec, config: RetrainConfig, *, store: ImageStore, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.train = ImageBatches.load(store, config.train_on, device=device)
        self.valid = ImageBatches.load(store, "valid", device=device)

        # Of the search's own seed, so that retraining does not replay the search's order and crops.
        self.seed = stream_seed(config.seed, "retrain")

        self.epoch = 0
        self.step = 0
        self.network = build_network(
            spec,
            seed=self.seed,
            dropout_prob=config.dropout_prob,
            auxiliary=config.objective.auxiliary_weight > 0,
        ).to(device)
        self.average = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
            if config.ema_decay > 0
            else None
        )
        self.optimizer = make_sgd(self.network, config.sgd)
        self.totals = Totals(device)
        self.best_accuracy = -1.0
        self.best_epoch = 0

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "optimizer": self.optimizer.state_dict(),
            "totals": self.totals.sums,
            "best_accuracy": self.best_accuracy,
            "best_epoch": self.best_epoch,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: the state is of another kind of run."""
        try:
            self.epoch, self.step = state["epoch"], state["step"]
            self.network.load_state_dict(state["network"])
            if self.average:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.totals.sums.copy_(state["totals"])
            self.best_accuracy, self.best_epoch = state["best_accuracy"], state["best_epoch"]
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"the checkpoint does not belong to this configuration ({reason})") from None

    @property
    def steps_per_epoch(self) -> int:
        return self.train.num_steps(self.config.batch_size, drop_last=self._drop_last)

    @property
    def _drop_last(self) -> bool:
        return self.train.num_images >= self.config.batch_size

    @property
    def kept(self) -> nn.Module:
        """The network whose weights count: the moving average if there is one."""
        return self.average.module if self.average else self.network

    def train_epoch(self) -> Iterator[None]:
        """The rest of the current epoch, yielding after each step."""
        config = self.config
        total_steps = config.num_epochs * self.steps_per_epoch

        def forward(index: int, images: Tensor) -> tuple[Tensor, Tensor | None]:
            progress = (self.epoch * self.steps_per_epoch + index + 1) / total_steps
            return self.network(images, drop_path_prob=config.drop_path_prob * progress)

        steps = train_epoch(
            forward,
            network=self.network,
            batches=self.train.epoch(
                batch_size=config.batch_size,
                seed=self.seed,
                epoch=self.epoch,
                augmentation=config.augmentation,
                drop_last=self._drop_last,
                start_step=self.step,
            ),
            optimizer=self.optimizer,
            objective=config.objective,
            config=config.sgd,
            totals=self.totals,
            seed=self.seed,
            epoch=self.epoch,
            num_epochs=config.num_epochs,
            num_steps=self.steps_per_epoch,
            start_step=self.step,
            precision=config.precision,
        )
        for done in steps:
            self.step = done
            if self.average:
                self.average.update_parameters(self.network)
            yield


def accuracy(network: nn.Module, batches: ImageBatches, *, device: torch.device) -> float:
    """Accuracy in [0, 1] over a whole split, in full float32 and in evaluation mode."""
    network.eval()
    result, _ = evaluate(
        lambda images: network(images)[0],
        batches.epoch(batch_size=_EVALUATION_BATCH_SIZE, seed=0, epoch=0, shuffle=False),
        device=device,
        precision="float32",
    )
    return result


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
    write_spec(folder.path / "spec.json", spec)
    run = Retraining(spec, config, store=store, device=device)
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

    total, done = (n * run.steps_per_epoch for n in (config.num_epochs, run.epoch))
    with Progress("retrain", total=total, done=done + run.step) as progress:
        while run.epoch < config.num_epochs:
            epoch_started, steps_before = time.perf_counter(), run.step
            for _ in run.train_epoch():
                progress.step(epoch=f"{run.epoch + 1}/{config.num_epochs}", best=f"{max(run.best_accuracy, 0):.4f}")
                if interrupt.requested:
                    save()
                    raise Stopped
            step_ms = 1e3 * (time.perf_counter() - epoch_started) / max(run.steps_per_epoch - steps_before, 1)
            record = {
                "epoch": run.epoch + 1,
                "loss": run.totals.mean_loss(),
                "train_accuracy": run.totals.accuracy(),
                "valid_accuracy": accuracy(run.kept, run.valid, device=device),
                "learning_rate": run.optimizer.param_groups[0]["lr"],
                "step_ms": step_ms,
            }
            metrics.append(record, step=run.epoch)
            progress.line(
                f"epoch {record['epoch']}/{config.num_epochs}: loss {record['loss']:.3f}, train "
                f"{record['train_accuracy']:.4f}, valid {record['valid_accuracy']:.4f}, {step_ms:.0f} ms a step"
            )
            run.epoch, run.step = run.epoch + 1, 0
            run.totals.sums.zero_()
            if record["valid_accuracy"] > run.best_accuracy or config.train_on == "train+valid":
                run.best_accuracy, run.best_epoch = record["valid_accuracy"], run.epoch
                save_checkpoint(
                    folder.path / BEST,
                    {"network": run.kept.state_dict(), "epoch": run.epoch, "valid_accuracy": run.best_accuracy},
                )
            save()
    metrics.close()
    network = load_best(folder, spec, device=device)
    test = ImageBatches.load(store, "test", device=device)
    summary = {
        "test_accuracy": accuracy(network, test, device=device),
        "test_count": test.num_images,
        "valid_accuracy": run.best_accuracy,
        "best_epoch": run.best_epoch,
        "epochs": config.num_epochs,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": round(seconds(), 1),
        "device": describe(device),
        "versions": versions(),
    }
    folder.finish(summary)
    return summary


def load_best(folder: RunFolder, spec: Spec, *, device: torch.device) -> BoundNetwork:
    """The network of a retraining with the weights of its best epoch so far, without auxiliary head, in eval mode.

    Raises: CheckpointError: there are none, or they are of another network.
    """
    network = build_network(spec)
    weights = load_checkpoint(folder.path / BEST)["network"]
    kept = {name: value for name, value in weights.items() if ".auxiliary_head." not in name}
    try:
        network.load_state_dict(kept)
    except RuntimeError:
        raise CheckpointError(f"{folder.path / BEST}: the weights are of another network than the spec's") from None
    return network.eval().to(device)


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
