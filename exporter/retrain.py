"""Training the fixed network of a spec from scratch.

On train, choosing the epoch on valid: the last that is no worse than the best; test is scored once, at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from datasets.seeds import numpy_generator, stream_seed
from datasets.store import ImageStore, StoreError, shape_text
from datasets.tokens import UNITS
from exporter.lstm import build_lstm
from exporter.overfitting import Overfitting
from exporter.teacher import TeacherConfig, Teachers
from searcher.arch.document import ConfigError
from searcher.arch.spec import Spec, write_spec
from searcher.arch.tasks import ImageClassification, Task
from searcher.nn.build import build_network
from searcher.nn.graphs import GraphedNetwork, Graphs
from searcher.training.averaging import WeightAverage, estimate_norms, has_norms
from searcher.training.checkpoint import loading
from searcher.training.device import Precision, describe
from searcher.training.distributed import ALONE, World
from searcher.training.interrupt import Interrupt
from searcher.training.learner import Network, Score, is_better, is_no_worse
from searcher.training.optim import SgdConfig
from searcher.training.pacing import Checkpointer, Pace
from searcher.training.progress import Progress
from searcher.training.run_folder import RunFolder, versions
from searcher.training.task_kinds import Store, check_steps, make_learner, task_of, training_type
from searcher.training.text_learner import TextTraining
from searcher.training.threads import Threads, threads_for
from searcher.training.weights_trainer import DivergedError, WeightsTrainer

BEST = "best.pt"
_LEAST_RATE_SCALE = 1 / 32
# Of training examples, from which the norms' statistics are taken at the end of an epoch.
_NUM_NORM_EXAMPLES = 512


@dataclass(frozen=True)
class RetrainConfig:
    """Everything that makes a retraining, beside the spec; `retrain/config.toml` holds it whole."""

    preset: str
    """The preset it was made from."""
    num_epochs: int
    """Each a pass over train, or several, see `min_steps`."""
    batch_size: int
    """Images, or parallel streams of text, of a step, shared out over the processes."""
    sgd: SgdConfig
    training: Any
    """How the task is learnt: `ImageTraining` or `TextTraining`."""
    teacher: TeacherConfig = TeacherConfig()  # noqa: RUF009 - frozen, so one serves all
    """For images: models whose answers are learnt beside the labels."""
    seed: int = 0
    """Fixes the run: on a CPU to the bit, for the same machine, versions and threads."""
    model: Literal["spec", "lstm"] = "spec"
    """The spec's network, or, for text, torch's LSTM with as many parameters, to compare with."""
    spec_sha256: str = ""
    """Of the spec that is trained, its provenance included."""
    dataset_sha256: str = ""
    """The store's digest, so that a run does not go on with other data."""
    memory_budget_mb: int = 2048
    """For training and validation images; what does not fit streams from the store."""
    min_steps: int = 0
    """Of all epochs together: where train is too small for that, an epoch is up to 8 passes over it."""
    average_share: float = 0.0
    """Of the steps done, in [0, 1]: what a moving average of the weights spans, see `averaging.horizon`; 0 for none.
    After each epoch the better on valid of the weights and their average is what may be kept."""
    average_patience: int = 0
    """Averaged SGD: once valid has not got better for that many epochs, the mean of the weights of all further steps is
    validated beside the weights; 0 for none. Source: Merity et al. 2018 (NT-ASGD), as enas_lm uses it, with 10."""
    train_on: Literal["train", "train+valid"] = "train"
    """train chooses the epoch on valid, see `learner.is_no_worse`; train+valid has nothing to choose on and takes the
    last epoch."""
    precision: Precision = "auto"
    """auto: see `device.products_precision`."""
    threads: int = 0
    """On a CPU; 0 for as many as pay and as other processes leave, see `threads`."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "batch_size", "memory_budget_mb"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if not 0 <= self.average_share <= 1:
            raise ConfigError(f"average_share is {self.average_share}; expected 0 to 1")
        for name in ("average_patience", "min_steps", "threads"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative")
        if isinstance(self.training, TextTraining) and self.training.batch_norm:
            raise ConfigError("batch_norm is for the search alone; here it must be false")
        if isinstance(self.training, TextTraining) and self.teacher.models:
            raise ConfigError("a teacher is for images; language models learn without one")
        check_steps(self.sgd, self.training, batch_size=self.batch_size)
        if self.average_patience and (self.average_share or self.train_on != "train"):
            raise ConfigError("average_patience needs a valid split to watch, and no average_share beside it")


def config_types(space: str) -> dict[str, type[Any]]:
    """The classes of a RetrainConfig's fields that depend on the space, for reading one."""
    return {"training": training_type(space)}


def check_task(spec: Spec, store: Store, *, cure: str = "") -> None:
    """Raises: StoreError: the spec's network does not fit the data set. cure: what the user can do about it."""
    wanted, found = spec.task, task_of(store, dataset=spec.task.dataset)
    if wanted != found:
        raise StoreError(f"the spec is for {task_text(wanted)}, but {store.name} has {task_text(found)}{cure}")


def task_text(task: Task) -> str:
    """What a network is for, in a few words."""
    if isinstance(task, ImageClassification):
        names = ", ".join(task.classes[:3]) + (", …" if len(task.classes) > 3 else "")
        return f"images of {shape_text(task.input_shape)} in {len(task.classes)} classes ({names})"
    return f"text of {task.vocabulary_size:,} different {UNITS[task.tokens]}"


class Retraining:
    """A retraining under way. All that changes is declared in `__init__`, saved in `state` and restored in `load`."""

    def __init__(
        self,
        spec: Spec,
        config: RetrainConfig,
        *,
        store: Store,
        device: torch.device,
        world: World = ALONE,
        graphs: Graphs | None = None,
        teachers: Teachers | None = None,
    ) -> None:
        """graphs: what the network's training passes are to be recorded in. teachers: the configuration's, open."""
        self.config = config
        self.world = world
        self.teachers = teachers
        self._device = device
        # Of the search's own seed, so that retraining does not replay the search's order and crops.
        seed = stream_seed(config.seed, "retrain")
        self.learner = make_learner(
            spec.task,
            config.training,
            store=store,
            train_on=config.train_on,
            batch_size=config.batch_size,
            reward_batch_size=config.batch_size,
            seed=seed,
            device=device,
            memory_budget_mb=config.memory_budget_mb,
            precision=config.precision,
            world=world,
            **({} if teachers is None else {"distillation": teachers.distillation}),
        )
        self.epoch = 0
        self.step = 0
        self.network = make_network(spec, config, seed=seed, **self.learner.network_options).to(device)
        # Of the network itself, not of what its averages are copied from.
        self.replica = world.replicate(self.network if graphs is None else GraphedNetwork(self.network, graphs))
        self.average: WeightAverage | None = None
        if config.average_share > 0:
            self.average = WeightAverage(self.network, share=config.average_share)
        self.weights = WeightsTrainer(
            self.network,
            self.learner,
            sgd=config.sgd,
            num_epochs=config.num_epochs,
            min_steps=config.min_steps,
            seed=seed,
            device=device,
            world=world,
            replicated=True,
        )
        self.overfitting = Overfitting()
        self.best: Score | None = None  # of all epochs
        self.best_epoch = 0
        self.kept: Score | None = None  # of the epoch that is kept: the last that is no worse than the best
        self.kept_epoch = 0
        self.kept_form = ""  # which of the candidates

    def state(self) -> dict[str, Any]:
        """Raises: DivergedError: the loss is no longer finite, and the state not worth keeping."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state() if self.average else {},
            "weights": self.weights.state(),
            "overfitting": self.overfitting.state(),
            "highest": astuple(self.best) if self.best else (),
            "highest_epoch": self.best_epoch,
            "best": astuple(self.kept) if self.kept else (),
            "best_epoch": self.kept_epoch,
            "best_kept": self.kept_form,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: the state is of another kind of run."""
        with loading("the checkpoint"):
            self.epoch, self.step = state["epoch"], state["step"]
            self.network.load_state_dict(state["network"])
            if state["average"]:
                self.average = self.average or WeightAverage(self.network, share=1.0)
                self.average.load(state["average"])
            self.weights.load(state["weights"])
            if "overfitting" in state:  # earlier checkpoints have none
                self.overfitting.load(state["overfitting"])
            self.best = Score(*state["highest"]) if state["highest"] else None
            self.best_epoch = state["highest_epoch"]
            self.kept = Score(*state["best"]) if state["best"] else None
            self.kept_epoch, self.kept_form = state["best_epoch"], state["best_kept"]

    @property
    def steps_done(self) -> int:
        return self.epoch * self.weights.steps_per_epoch + self.step

    @property
    def candidates(self) -> dict[str, nn.Module]:
        """What the end of an epoch chooses from, by name; on valid without a difference, the first of them."""
        average = {"average": self.average.network} if self.average else {}
        return {**average, "weights": self.network}

    def train_epoch(self) -> Iterator[None]:
        """The rest of the current epoch, yielding after each step."""

        def network_of(_: int) -> Network:
            return self.replica

        for done in self.weights.epoch(network_of, epoch=self.epoch, start_step=self.step):
            self.step = done
            # Trainings that diverge mostly do so at once; a CPU finds out at no cost.
            if self.epoch == 0 and self._device.type == "cpu" and self.world.size == 1:
                self.weights.totals.check()
            if self.average:
                self.average.update(self.network)
            yield
        self.weights.totals.check()

    def end_epoch(self) -> tuple[dict[str, Any], nn.Module | None]:
        """The epoch's record, and the network to keep unless an earlier one was better; then the next epoch begins.

        Where valid is trained on there is nothing to choose on, and the last epoch is kept, averaged if there is one.
        Raises: DivergedError: the loss is no longer finite; on valid, in the first epoch, which leaves nothing to keep.
        """
        record: dict[str, Any] = {"epoch": self.epoch + 1, **self.weights.record()}
        candidates = self.candidates
        self._estimate_norms(candidates.values())
        kept, score = next(iter(candidates)), None
        if self.config.train_on == "train":
            metric = self.learner.metric
            scores = {name: self.learner.score(network.eval(), "valid") for name, network in candidates.items()}
            kept, score = self._best_of(scores)
            if self.epoch == 0 and not math.isfinite(score.loss):
                raise DivergedError("the loss on valid is not a number")
            record |= {f"valid_{metric}": score.value, "valid_loss": score.loss}
            if len(scores) > 1:
                record |= {"kept": kept, **{f"valid_{metric}_{name}": each.value for name, each in scores.items()}}
        self.epoch, self.step = self.epoch + 1, 0
        self.weights.totals.sums.zero_()
        is_kept = score is None or is_no_worse(self.learner.metric, score, self.best)
        if is_kept:
            self.kept, self.kept_epoch, self.kept_form = score, self.epoch, kept
        if score is not None and is_better(self.learner.metric, score, self.best):
            self.best, self.best_epoch = score, self.epoch
        patience = self.config.average_patience
        if patience and self.average is None and self.epoch - self.best_epoch >= patience:
            self.average = WeightAverage(self.network, share=1.0)
        return record, candidates[kept] if is_kept else None

    def _estimate_norms(self, networks: Iterable[nn.Module]) -> None:
        if not has_norms(self.network):
            return
        generator = numpy_generator(self.config.seed, "norms", self.epoch)
        batches = self.learner.norm_batches(generator, count=_NUM_NORM_EXAMPLES)
        for network in networks:
            estimate_norms(network, self.learner, batches, world=self.world)

    def _best_of(self, scores: Mapping[str, Score]) -> tuple[str, Score]:
        """The first of the best."""
        best, *others = scores
        for name in others:
            if is_better(self.learner.metric, scores[name], scores[best]):
                best = name
        return best, scores[best]


def make_network(spec: Spec, config: RetrainConfig, *, seed: int, **options: Any) -> nn.Module:
    """What a retraining trains, with its first weights. options: the learner's."""
    if config.model == "lstm":
        return build_lstm(spec, seed=seed, dropout=options["dropout"], weight_range=options["weight_range"])
    return build_network(spec, seed=seed, **options)


def retrain(
    spec: Spec,
    config: RetrainConfig,
    *,
    store: Store,
    folder: RunFolder,
    device: torch.device,
    interrupt: Interrupt,
    pace: Pace = Pace(),  # noqa: B008 - frozen, so one serves all
    graphs: Callable[[], Graphs] | None = None,
) -> dict[str, Any]:
    """Train the spec's network, or the rest of it, in `folder`; returns the summary, which it also writes.

    Writes `spec.json` and `best.pt`, the weights of the epoch chosen, into the folder. All ranks of its world run
    it together. graphs: makes what training passes are to be recorded in.
    Raises: Stopped: `interrupt` was requested, or the pace's deadline is over; the checkpoint stands at the last step.
    CheckpointError, DivergedError, StoreError; of a teacher, see `Teachers`.
    """
    title = "retrain" if config.model == "spec" else f"train {config.model}"
    run = train(
        spec,
        config,
        store=store,
        folder=folder,
        device=device,
        interrupt=interrupt,
        pace=pace,
        graphs=graphs,
        title=title,
    )
    metric = run.learner.metric
    network = load_best(folder, spec, model=config.model, device=device)
    test = run.learner.score(network, "test")
    summary = {
        f"test_{metric}": test.value,
        "test_count": test.count,
        "best_epoch": run.kept_epoch,
        "kept": run.kept_form,
        "epochs": config.num_epochs,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": round(folder.seconds, 1),
        "device": describe(device, count=folder.world.size),
        "versions": versions(),
    }
    if test.balanced is not None:
        summary["test_balanced_accuracy"] = test.balanced
    if run.kept is not None:
        summary |= {f"valid_{metric}": run.kept.value, "valid_loss": run.kept.loss}
    if run.weights.rate_scale < 1:
        summary["rate_scale"] = run.weights.rate_scale
    if run.teachers is not None:
        summary["teachers"] = run.teachers.summary()
    folder.finish(summary)
    return summary


def train(
    spec: Spec,
    config: RetrainConfig,
    *,
    store: Store,
    folder: RunFolder,
    device: torch.device,
    interrupt: Interrupt,
    pace: Pace,
    graphs: Callable[[], Graphs] | None = None,
    title: str,
) -> Retraining:
    """All epochs of a retraining, or the rest of them, with the test split left alone; the best is in the folder.

    One that diverges in its first epoch, with nothing to lose, begins again with half the learning rate: what a cell of
    text bears depends on the cell.
    title: of the progress bar. Raises: as `retrain`.
    """
    world = folder.world
    if world.leads:
        write_spec(folder.path / "spec.json", spec)

    teachers = open_teachers(config, store, device=device)

    def begin() -> Retraining:
        recorded = None if graphs is None else graphs()
        return Retraining(spec, config, store=store, device=device, world=world, graphs=recorded, teachers=teachers)

    run = begin()
    checkpoint = folder.restore()
    if checkpoint is not None:
        run.load(checkpoint)
    total = config.num_epochs * run.weights.steps_per_epoch

    def trial() -> Iterator[None]:
        return begin().train_epoch()

    with (
        Progress(title, total=total, done=run.steps_done, shown=world.leads) as progress,
        threads_for(
            config.threads, folder=folder.path, device=device, world=world, trial=trial, say=progress.line
        ) as threads,
    ):
        if run.weights.rounds > 1:
            progress.line(run.weights.rounds_text)
        while True:
            checkpointer = Checkpointer(run.state, folder=folder, interrupt=interrupt, pace=pace)
            try:
                _train_epochs(run, folder=folder, checkpointer=checkpointer, progress=progress, threads=threads)
            except DivergedError:
                scale = run.weights.rate_scale / 2
                if run.epoch > 0:
                    raise
                if scale < _LEAST_RATE_SCALE:
                    raise DivergedError(
                        "the loss, on train or on valid, is no longer a number, with the learning rate and with less, "
                        f"down to {2 * scale:g} of it; start again with a smaller clip_norm (--config), another seed, "
                        "or another architecture"
                    ) from None
                progress.line(
                    f"the loss is no longer a number after step {run.step} of the first epoch: beginning again with "
                    f"{scale:g} of the learning rate"
                )
            else:
                return run
            progress.start_over()
            folder.start_over()
            del run, checkpointer  # with all that they hold on the device
            run = begin()
            run.weights.rate_scale = scale


def _train_epochs(
    run: Retraining, *, folder: RunFolder, checkpointer: Checkpointer, progress: Progress, threads: Threads
) -> None:
    config, metric = run.config, run.learner.metric
    while run.epoch < config.num_epochs:
        progress.show(epoch=f"{run.epoch + 1}/{config.num_epochs}")
        started, first_step = time.perf_counter(), run.step
        for _ in run.train_epoch():
            progress.step()
            checkpointer.between_steps()
            threads.between_steps()
        seconds, steps = time.perf_counter() - started, run.step - first_step
        record, kept = run.end_epoch()
        if steps > 0:  # none where the run was resumed after the epoch's last step
            record["step_ms"] = 1e3 * seconds / steps
        record["threads"] = threads.count
        folder.append(record)
        best = ""
        if run.best is not None and run.best_epoch < run.epoch:
            best = f", best {score_text(metric, run.best.value)} (epoch {run.best_epoch})"
        progress.line(_line(record, config, metric) + best + progress.time_left)
        warning = run.overfitting.look(record)
        if warning is not None:
            progress.line(warning)
        if kept is not None:
            folder.write(BEST, {"network": kept.state_dict(), "epoch": run.kept_epoch, "kept": run.kept_form})
            if run.kept is not None:
                progress.show(best=score_text(metric, run.kept.value))
        checkpointer.save()


def open_teachers(config: RetrainConfig, store: Store, *, device: torch.device) -> Teachers | None:
    """The teachers of a retraining, if it has any. Raises: as `Teachers`."""
    if not config.teacher.models:
        return None
    assert isinstance(store, ImageStore)
    return Teachers(config.teacher, store=store, device=device)


def load_best(folder: RunFolder, spec: Spec, *, device: torch.device, model: Literal["spec", "lstm"] = "spec") -> Any:
    """The network of a retraining with the weights of the epoch chosen so far, without auxiliary head, in eval mode.

    Raises: CheckpointError: there are none, or they are of another network.
    """
    build = build_network if model == "spec" else partial(build_lstm, seed=0)
    network = build(spec)
    weights = folder.read(BEST, required=("network", "epoch"))["network"]
    with loading(str(folder.path / BEST)):
        network.load_state_dict({name: value for name, value in weights.items() if ".auxiliary_head." not in name})
    return network.eval().to(device)


def result_text(summary: Mapping[str, Any]) -> str:
    """What came out of a retraining, from its summary."""
    kind = "perplexity" if "test_perplexity" in summary else "accuracy"
    of = f"of {summary['test_count']:,} images" if kind == "accuracy" else f"over {summary['test_count']:,} tokens"
    balanced = summary.get("test_balanced_accuracy")
    beside = "" if balanced is None else f", balanced accuracy {score_text('accuracy', balanced)} (mean recall)"
    valid = f", valid {score_text(kind, summary[f'valid_{kind}'])}" if f"valid_{kind}" in summary else ""
    return (
        f"test {kind} {score_text(kind, summary[f'test_{kind}'])} {of}{beside} "
        f"(epoch {summary['best_epoch']}{valid}; {summary['parameters']:,} parameters)"
    )


def score_text(metric: str, value: float | None) -> str:
    """`90.65%` or `123.40`; records have None for what is infinite."""
    if value is None or math.isinf(value):
        return "infinite"
    if metric == "accuracy":
        return f"{value:.2%}"
    return f"{value:.2f}" if value < 1e6 else f"{value:.1e}"


def _line(record: dict[str, Any], config: RetrainConfig, metric: str) -> str:
    figures = "".join(
        f", {split} {metric} {score_text(metric, record[key])}"
        for split in ("train", "valid")
        if (key := f"{split}_{metric}") in record
    )
    if record.get("kept") == "average":
        figures += f" averaged ({score_text(metric, record[f'valid_{metric}_weights'])} not)"
    pace = f", {record['step_ms']:.0f} ms a step" if "step_ms" in record else ""
    return f"epoch {record['epoch']}/{config.num_epochs}: loss {record['loss']:.3f}{figures}{pace}"
