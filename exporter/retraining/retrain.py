"""Training the fixed network of a spec from scratch, in a run folder.

The epoch is chosen on valid: the last one that is no worse than the best. Test is scored once, at the end.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from datasets.store import ImageStore, StoreError
from exporter.retraining.config import RetrainConfig
from exporter.retraining.lstm import build_lstm
from exporter.retraining.retraining import Retraining
from exporter.retraining.teacher import Teachers
from exporter.retraining.text import epoch_text, score_text, task_text
from searcher.arch.spec import Spec, write_spec
from searcher.lineage import is_retraining_outdated
from searcher.nn.build import build_network
from searcher.nn.graphs import Graphs
from searcher.running.checkpoint import loading
from searcher.running.course import Course
from searcher.running.device import describe
from searcher.running.interrupt import Interrupt
from searcher.running.pacing import Checkpointer, Pace
from searcher.running.progress import Progress
from searcher.running.run_folder import RunError, RunFolder, versions
from searcher.running.threads import threads_for
from searcher.training.learner import measured
from searcher.training.task_kinds import Store, task_of
from searcher.training.weights_trainer import DivergedError

BEST = "best.pt"
_LEAST_RATE_SCALE = 1 / 32


def check_task(spec: Spec, store: Store, *, cure: str = "") -> None:
    """Raises: StoreError: the spec's network does not fit the data set. cure: what the user can do about it."""
    wanted, found = spec.task, task_of(store, dataset=spec.task.dataset)
    if wanted != found:
        raise StoreError(f"the spec is for {task_text(wanted)}, but {store.name} has {task_text(found)}{cure}")


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
    """Train the spec's network in `folder`, or resume its training; returns the summary, which is also written there.

    Writes `spec.json` and `best.pt`, the weights of the chosen epoch, into the folder. All ranks of the folder's world
    call it together. graphs: creates the `Graphs` that record training passes.
    Raises: Stopped: `interrupt` was requested, or the pace's deadline has passed; the checkpoint is of the last step.
    CheckpointError, DivergedError, StoreError; with a teacher, also as `Teachers`.
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
        summary |= {f"valid_{metric}": run.kept.value, "valid_loss": run.kept.loss} | run.chosen_by(run.kept)
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
    """Train all epochs of a retraining, or the remaining ones, without using test; writes `best.pt` into the folder.

    A training that diverges in its first epoch, before there is anything to lose, starts again with half the learning
    rate: the largest stable rate of a cell for text depends on the cell.
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
        with suppress(DivergedError):
            yield from begin().train_epoch()

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
                _train_epochs(run, folder=folder, course=Course(progress, checkpointer, threads))
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
            del run, checkpointer  # frees their device memory
            run = begin()
            run.weights.rate_scale = scale


def _train_epochs(run: Retraining, *, folder: RunFolder, course: Course) -> None:
    config, metric, progress = run.config, run.learner.metric, course.progress
    criterion = run.learner.criterion
    while run.epoch < config.num_epochs:
        progress.show(epoch=f"{run.epoch + 1}/{config.num_epochs}")
        step_ms = course.take(run.train_epoch())
        record, kept = run.end_epoch()
        if step_ms is not None:  # None if, for example, the run was resumed after the epoch's last step
            record["step_ms"] = step_ms
        record["threads"] = course.threads.count
        folder.append(record)
        best = ""
        if run.best is not None and run.best_epoch < run.epoch:
            best = f", best {score_text(criterion, measured(criterion, run.best))} (epoch {run.best_epoch})"
        progress.line(epoch_text(record, config, metric) + best + progress.time_left)
        warning = run.overfitting.look(record)
        if warning is not None:
            progress.line(warning)
        if kept is not None:
            folder.write(BEST, {"network": kept.state_dict(), "epoch": run.kept_epoch, "kept": run.kept_form})
            if run.kept is not None:
                progress.show(best=score_text(criterion, measured(criterion, run.kept)))
        course.checkpointer.save()


def check_up_to_date(run: Path) -> None:
    """Raises: RunError: the run has retrained another network than that of its spec.json."""
    if is_retraining_outdated(run):
        again = f"`enas retrain {shlex.quote(str(run))} --force`"
        raise RunError(
            f"{run}: what was retrained there is not the network of its spec.json; {again} trains that one in its place"
        )


def open_teachers(config: RetrainConfig, store: Store, *, device: torch.device) -> Teachers | None:
    """The teachers of a retraining, opened; None if it has none. Raises: as `Teachers`."""
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
