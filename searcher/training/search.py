"""Runs a search in a run folder: the alternation with checkpoints and progress, then the derivation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from foundation.document import write_dataclass
from searcher.arch.spec import Spec, write_spec
from searcher.arch.tasks import Task
from searcher.latency.target import Aim
from searcher.nn.graphs import Graphs
from searcher.running.course import Course
from searcher.running.device import describe
from searcher.running.interrupt import Interrupt
from searcher.running.pacing import Checkpointer, Pace
from searcher.running.progress import Progress
from searcher.running.run_folder import RunFolder, versions
from searcher.running.threads import threads_for
from searcher.training.derive import Derived, derive, num_scorings
from searcher.training.loop import Search
from searcher.training.search_config import SearchConfig
from searcher.training.task_kinds import Store
from searcher.training.weights_trainer import DivergedError


def search(
    config: SearchConfig,
    *,
    store: Store,
    folder: RunFolder,
    device: torch.device,
    interrupt: Interrupt,
    pace: Pace = Pace(),  # noqa: B008 - frozen, so one serves all
    graphs: Graphs | None = None,
    aim: Aim | None = None,
) -> Spec:
    """Runs a search, or the rest of one, in `folder`; writes `spec.json` in and beside it, and the folder's summary.

    All ranks of the folder's world run it together.
    Raises: Stopped: `interrupt` was requested, or the pace's deadline has passed; the last step is in the checkpoint.
    StoreError, CheckpointError, DivergedError.
    """
    run = Search(config, store=store, device=device, world=folder.world, graphs=graphs, aim=aim)
    checkpoint = folder.restore()
    if checkpoint is not None:
        run.load(checkpoint)
    run.align()
    total = run.steps_before(config.num_epochs) + num_scorings(config.derivation)

    def trial() -> Iterator[None]:
        with suppress(DivergedError):
            yield from Search(config, store=store, device=device, aim=aim).train_weights()

    with (
        Progress("search", total=total, done=run.steps_done, shown=folder.world.leads) as progress,
        threads_for(
            config.threads, folder=folder.path, device=device, world=folder.world, trial=trial, say=progress.line
        ) as threads,
    ):
        checkpointer = Checkpointer(run.state, folder=folder, interrupt=interrupt, pace=pace)
        course = Course(progress, checkpointer, threads)
        _train_epochs(run, folder=folder, course=course)
        derived = _derive(run, course)
        chance = run.learner.chance_reward(
            num_batches=None if derived.finalist_rewards else config.derivation.num_batches
        )
        if not derived.reward > chance:
            progress.line(
                f"the reward of the architecture chosen, {derived.reward:.3f}, is within chance ({chance:.3f}): the "
                "shared weights have not learnt enough to tell architectures apart, and this one is as good as any. "
                "Give the search more steps (num_epochs, min_steps) or more data"
            )
    steps = config.num_epochs * run.weights.steps_per_epoch
    spec = _make_spec(config, task=run.task, derived=derived, steps=steps, device=device)
    if folder.world.leads:
        # A later derivation replaces the file beside the folder; the search's own choice stays in the folder.
        write_spec(folder.path / "spec.json", spec)
        write_spec(folder.path.parent / "spec.json", spec)
    folder.finish(
        {
            "reward": derived.reward,
            "chance_reward": chance,
            "sampled_rewards": derived.sampled_rewards,
            "finalist_rewards": derived.finalist_rewards,
            "epochs": config.num_epochs,
            "steps": steps,
            "seconds": round(folder.seconds, 1),
            "device": describe(device, count=folder.world.size),
            "versions": versions(),
        }
    )
    return spec


def _train_epochs(run: Search, *, folder: RunFolder, course: Course) -> None:
    """The alternation: in each epoch the shared weights, then the policy."""
    progress, num_epochs = course.progress, run.config.num_epochs
    if run.weights.rounds > 1:
        progress.line(run.weights.rounds_text)
    while run.epoch < num_epochs:
        progress.show(epoch=f"{run.epoch + 1}/{num_epochs}", phase=run.phase)
        step_ms: float | None = None  # unknown if the run was resumed after the epoch's last step
        if run.phase == "weights":
            step_ms = course.take(run.train_weights())
            run.phase, run.step = "policy", 0
        progress.show(phase="policy")
        for reward in run.train_policy():
            course.step(
                reward=f"{reward:.3f}",
                baseline=f"{run.baseline.value:.3f}",
                entropy=f"{run.policy_totals[2].item() / run.step:.1f}",
            )
        record = run.end_epoch()
        if step_ms is not None:
            record["step_ms"] = step_ms
        record["threads"] = course.threads.count
        folder.append(record)
        progress.line(_line(record, num_epochs) + progress.time_left)
        course.checkpointer.save()


def _derive(run: Search, course: Course) -> Derived:
    return derive(
        run.policy,
        run.space,
        run.supernet,
        run.learner,
        run.config.derivation,
        seed=run.config.seed,
        miss=None if run.aim is None else run.aim.miss,
        world=run.world,
        on_score=partial(course.step, phase="derive"),
    )


def _line(record: dict[str, Any], num_epochs: int) -> str:
    line = f"epoch {record['epoch']}/{num_epochs}: loss {record['loss']:.3f}"
    if "reward" in record:
        line += f", reward {record['reward']:.3f}"
        line += f" (random {record['random_reward']:.3f})" if "random_reward" in record else ""
        line += f", entropy {record['entropy']:.1f}"
        line += f", {record['latency_ms']:.3f} ms" if "latency_ms" in record else ""
    return line + (f", {record['step_ms']:.0f} ms a step" if "step_ms" in record else "")


def _make_spec(config: SearchConfig, *, task: Task, derived: Derived, steps: int, device: torch.device) -> Spec:
    return Spec(
        space=config.space,
        architecture=derived.architecture,
        network=config.final_network,
        task=task,
        provenance={
            "preset": config.preset,
            "search_space": write_dataclass(config.search_space),
            "policy": config.policy.kind,
            "seed": config.seed,
            "epochs": config.num_epochs,
            "steps": steps,
            "reward": float(f"{derived.reward:.6g}"),
            "device": device.type,
            "versions": versions(),
        },
    )
