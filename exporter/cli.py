"""The commands `enas retrain` and `enas rank`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from searcher.cli_options import (
    command_again,
    exit_stopped,
    flip_option,
    graphs_option,
    jobs_options,
    leading_speaker,
    pace_options,
    settings_options,
    speaker,
    threads_option,
    under_torchrun,
)

if TYPE_CHECKING:
    import torch

    from exporter.ranking import Ranking
    from exporter.retrain import RetrainConfig
    from searcher.arch.spec import Spec
    from searcher.nn.graphs import Graphs
    from searcher.training.distributed import World
    from searcher.training.pacing import Pace
    from searcher.training.run_folder import RunFolder
    from searcher.training.task_kinds import Store

T = TypeVar("T")
_RUN = click.argument("run", type=click.Path(path_type=Path))


@click.command()
@click.argument("source", metavar="RUN|SPEC", type=click.Path(path_type=Path))
@click.option("--preset", help="Settings: one of the space's presets.  [default: the config's, the search's, or quick]")
@settings_options
@click.option("--run", "run_path", type=click.Path(path_type=Path), help="Run directory, where SPEC is no run.")
@click.option("--dataset", help="A data set's name or path, to which the spec is re-targeted.  [default: the spec's]")
@click.option("--channels", type=click.IntRange(min=2), help="Width of the first cell or layer.  [default: the spec's]")
@click.option("--cells", type=click.IntRange(min=3), help="Number of cells, micro.  [default: the spec's]")
@click.option("--hidden-size", type=click.IntRange(min=1), help="Width, recurrent.  [default: the spec's]")
@click.option(
    "--skip-merge",
    type=click.Choice(["sum", "concat", "residual"]),
    help="How macro layers join their skips; residual is the fastest in a runtime.  [default: the spec's]",
)
@click.option(
    "--teacher",
    "teachers",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="MODEL",
    help="For images: an ONNX classifier to learn from beside the labels; of several, from their mean.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over train.  [default: the preset's]")
@click.option("--seed", type=click.IntRange(min=0), help="Fixes the run.  [default: the search's, or 0]")
@click.option(
    "--class-weights",
    type=click.Choice(["none", "balanced"]),
    help="For images: balanced lets rare classes count as much as frequent ones.  [default: the preset's, none]",
)
@click.option(
    "--lstm/--no-lstm", default=True, help="For text: train torch's LSTM of as many parameters, too, to compare with."
)
@click.option(
    "--memory-budget", type=click.IntRange(min=1), metavar="MB", help="Images beyond it stream.  [default: 2048]"
)
@flip_option
@jobs_options
@threads_option
@pace_options
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
@graphs_option
@click.option("--resume", is_flag=True, help="Go on with an unfinished retraining, if there is one.")
@click.option("--force", is_flag=True, help="Delete an existing retraining first.")
def retrain(
    source: Path,
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    run_path: Path | None,
    dataset: str | None,
    channels: int | None,
    cells: int | None,
    hidden_size: int | None,
    skip_merge: str | None,
    teachers: tuple[Path, ...],
    epochs: int | None,
    seed: int | None,
    class_weights: Literal["none", "balanced"] | None,
    lstm: bool,
    memory_budget: int | None,
    flip: bool | None,
    jobs: int | None,
    executor: str | None,
    threads: int | None,
    checkpoint_minutes: float,
    max_hours: float | None,
    device: str,
    cuda_graphs: bool,
    resume: bool,
    force: bool,
) -> None:
    """Train the network of a run's spec.json, of a spec file or of a published spec (`enas spec list`) from scratch.

    The epoch is chosen on the valid split, the last that is no worse than the best; test is scored once, at the end.
    """
    from exporter.presets import retrain_preset
    from exporter.retrain import check_task, config_types, open_teachers, result_text, task_text
    from exporter.trainings import begin_training, retrain_job
    from searcher.arch.retarget import retarget
    from searcher.arch.spec import spec_digest
    from searcher.arch.tasks import LANGUAGE_MODELLING
    from searcher.nn.graphs import cuda_graphs as graphs_of
    from searcher.training import device as devices
    from searcher.training.distributed import joined
    from searcher.training.executors import executor_for
    from searcher.training.interrupt import Stopped, catch_signals
    from searcher.training.jobs import Setting, run_jobs
    from searcher.training.mirroring import FLIP, decide_flip
    from searcher.training.pacing import pace_of
    from searcher.training.run_folder import RunFolder
    from searcher.training.settings import Settings
    from searcher.training.task_kinds import check_images, check_training, load_store, task_of

    pace = pace_of(checkpoint_minutes=checkpoint_minutes, max_hours=max_hours)
    spec, run_path = _spec_and_run(source, run_path)
    spec = _resized(spec, channels=channels, cells=cells, hidden_size=hidden_size, skip_merge=skip_merge)
    tell = partial(leading_speaker(), err=True)
    store = load_store(dataset or spec.task.dataset, space=spec.space)
    if dataset is None:
        check_task(spec, store, cure=f"; `--dataset {shlex.quote(spec.task.dataset)}` makes a network for what it has")
    else:
        made_for, spec = spec.task, retarget(spec, task_of(store, dataset=dataset))
        if spec.task != replace(made_for, dataset=dataset):
            tell(f"a network for {task_text(spec.task)}; the spec is for {task_text(made_for)}")
    settings = Settings.read(config_file, assignments)
    preset = settings.name("preset", preset) or _provenance(spec, "preset", str) or "quick"
    config = settings.apply(retrain_preset(spec.space, preset), types=config_types(spec.space))
    if seed is None and not settings.has("seed"):
        seed = _provenance(spec, "seed", int)
    config = replace(
        config,
        spec_sha256=spec_digest(spec),
        dataset_sha256=store.digest,
        memory_budget_mb=memory_budget or config.memory_budget_mb,
        seed=config.seed if seed is None else seed,
        num_epochs=epochs or config.num_epochs,
    )
    if class_weights is not None:
        config = _with_class_weights(config, class_weights)
    config = decide_flip(
        config,
        store,
        flip=flip,
        is_own=settings.has(FLIP),
        searched_without=_searched_without_flip(run_path),
        say=tell,
    )
    check_training(spec.space, config.training)
    check_images(config.training, store)
    torch_device = devices.resolve_device(device)
    devices.prepare(torch_device)
    if cuda_graphs:
        graphs_of(torch_device)  # before there is a run
    if teachers:
        config = replace(config, teacher=replace(config.teacher, models=tuple(map(str, teachers)), sha256=()))
    examined = open_teachers(config, store, device=torch_device)
    if examined is not None:
        config = replace(config, teacher=examined.config)
        for one in examined.examined:
            tell(str(one))
    graphs = partial(graphs_of, torch_device) if cuda_graphs else None
    folders = {"spec": run_path / "retrain"}
    if lstm and spec.task.kind == LANGUAGE_MODELLING:
        folders["lstm"] = run_path / "retrain-lstm"
    # Of several trainings each has a thread, whether they run side by side or not.
    config = replace(config, threads=threads or config.threads or int(len(folders) > 1))
    configs = {model: replace(config, model=cast(Literal["spec", "lstm"], model)) for model in folders}
    again = command_again()
    if executor is None and _one_at_a_time(folders, jobs, torch_device, needs_this_process=cuda_graphs):
        with joined(torch_device) as world:
            say = speaker(speaks=world.leads)
            # All of them before any is trained, which may take hours.
            opened = {
                model: RunFolder.open(path, configs[model], resume=resume, force=force, again=again, world=world)
                for model, path in folders.items()
            }
            summaries = {
                model: _train(
                    spec,
                    configs[model],
                    folder=folder,
                    store=store,
                    device=torch_device,
                    world=world,
                    pace=pace,
                    # torch's LSTM keeps track of its weights by itself.
                    graphs=graphs if model == "spec" else None,
                    say=say,
                )
                for model, folder in opened.items()
            }
    else:
        say = speaker(speaks=True)
        begun = [
            begin_training(
                path.name, spec, configs[model], path=path, store=store, resume=resume, force=force, again=again
            )
            for model, path in folders.items()
        ]
        say(f"training in {' and '.join(map(str, folders.values()))}, side by side", err=True)
        with catch_signals() as interrupt, executor_for(len(folders), address=executor) as workers:
            setting = Setting(device=device, interrupt=interrupt, pace=pace)
            try:
                found = run_jobs(
                    retrain_job, begun, folder=run_path, setting=setting, executor=workers, title="retrain"
                )
            except Stopped as stopped:
                exit_stopped(stopped, again=again, say=say)
        summaries = dict(zip(folders, found, strict=True))
    for model, summary in summaries.items():
        say(f"{'LSTM: ' if model == 'lstm' else ''}{result_text(summary)}")
    say(f"next: enas export {shlex.quote(str(run_path))}", err=True)


def _one_at_a_time(
    folders: Mapping[str, Path], jobs: int | None, device: torch.device, *, needs_this_process: bool
) -> bool:
    """Whether the trainings of some folders are to run one after the other in this process."""
    from searcher.training.executors import default_jobs
    from searcher.training.run_folder import RunFolder

    left = [path for path in folders.values() if not RunFolder(path).finished]
    return min(jobs or default_jobs(device), len(left)) < 2 or needs_this_process or under_torchrun()


def _train(
    spec: Spec,
    config: RetrainConfig,
    *,
    folder: RunFolder,
    store: Store,
    device: torch.device,
    world: World,
    pace: Pace,
    graphs: Callable[[], Graphs] | None,
    say: Callable[..., None],
) -> dict[str, Any]:
    """One stage of retraining, or the rest of it: its summary. Exits where the user stops it."""
    from exporter.retrain import retrain
    from searcher.training import device as devices
    from searcher.training.interrupt import Stopped, catch_signals

    if folder.finished:
        say(f"{folder.path}: finished before", err=True)
        return folder.summary()
    with catch_signals() as interrupt, devices.threads(config.threads):
        say(f"training in {folder.path} on {devices.describe(device, count=world.size)}", err=True)
        try:
            return retrain(
                spec,
                config,
                store=store,
                folder=folder,
                device=device,
                interrupt=interrupt,
                pace=pace,
                graphs=graphs,
            )
        except Stopped as stopped:
            exit_stopped(stopped, again=command_again(), say=say)


def _resized(spec: Spec, **sizes: int | str | None) -> Spec:
    """The spec with the sizes a user gave. Raises: ConfigError: networks of its space have no such size."""
    from searcher.arch.document import ConfigError

    given = {name: value for name, value in sizes.items() if value is not None}
    for name in given:
        if not hasattr(spec.network, name):
            raise ConfigError(f"--{name.replace('_', '-')} is not for {spec.space} networks")
    return replace(spec, network=replace(spec.network, **given))


def _with_class_weights(config: RetrainConfig, class_weights: Literal["none", "balanced"]) -> RetrainConfig:
    """Raises: ConfigError: the task has no classes."""
    from searcher.arch.document import ConfigError
    from searcher.training.image_learner import ImageTraining

    if not isinstance(config.training, ImageTraining):
        raise ConfigError("--class-weights is for images; a language model has no classes")
    return replace(config, training=replace(config.training, class_weights=class_weights))


def _spec_and_run(source: Path, run_path: Path | None) -> tuple[Spec, Path]:
    """The spec to train and the run directory to train it in, from a run directory, a spec file or a published name."""
    from searcher.arch.catalog import find_spec
    from searcher.training.run_folder import RunError, RunFolder

    if source.is_dir():
        search = RunFolder(source / "search")
        if search.begun and not search.finished:
            again = f"`enas search --run {shlex.quote(str(source))} --resume`"
            raise RunError(f"{source}: the search is not finished; go on with it: {again}")
        return find_spec(source), run_path or source
    spec = find_spec(source)
    if run_path is None:
        raise RunError("say where to train this spec: --run DIRECTORY")
    return spec, run_path


def _searched_without_flip(run: Path) -> bool:
    """Whether there is a search in the run that mirrored no pictures."""
    from searcher.training.run_folder import RunFolder, read_toml

    search = RunFolder(run / "search")
    training = read_toml(search.config_path).get("training", {}) if search.begun else {}
    return training.get("augmentation", {}).get("flip") is False


def _provenance(spec: Spec, key: str, kind: type[T]) -> T | None:
    """What the spec says of where it comes from, if it says it and as it should."""
    value = spec.provenance.get(key)
    return value if type(value) is kind else None


@click.command()
@_RUN
@click.option("--count", type=click.IntRange(min=3), default=10, help="Random architectures to train.")
@click.option("--preset", help="Settings of training: one of the space's presets.  [default: the search's]")
@settings_options
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over train.  [default: the preset's]")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=2, help="Trainings of each; their agreement is the ceiling."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    show_default="the config's, or 0",
    help="Chooses the architectures, and fixes the training.",
)
@jobs_options
@threads_option
@pace_options
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished ranking, if there is one.")
@click.option("--force", is_flag=True, help="Delete an existing ranking first.")
def rank(
    run: Path,
    count: int,
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    epochs: int | None,
    seeds: int,
    seed: int | None,
    jobs: int | None,
    executor: str | None,
    threads: int | None,
    checkpoint_minutes: float,
    max_hours: float | None,
    device: str,
    resume: bool,
    force: bool,
) -> None:
    """Judge a finished search: do its shared weights rank architectures as training each from scratch does?

    Random architectures are scored with the shared weights on one half of the valid split, and after training alone,
    with several seeds, on the other. Kendall's tau says how far the two orders agree, beside how far two seeds agree
    and how far the order by size or latency does. The test split is not looked at. Writes ranking.json, which
    `enas report` draws.
    """
    from exporter.presets import retrain_preset
    from exporter.ranking import RANKING
    from exporter.ranking import rank as run_rank
    from exporter.retrain import config_types
    from searcher.arch.catalog import find_spec
    from searcher.arch.document import ConfigError
    from searcher.training import device as devices
    from searcher.training.executors import default_jobs, executor_for
    from searcher.training.interrupt import Stopped, catch_signals
    from searcher.training.jobs import Setting
    from searcher.training.pacing import pace_of
    from searcher.training.settings import Settings

    pace = pace_of(checkpoint_minutes=checkpoint_minutes, max_hours=max_hours)
    spec = find_spec(run)
    settings = Settings.read(config_file, assignments)
    preset = settings.name("preset", preset) or _provenance(spec, "preset", str) or "quick"
    # There must be a split to score on.
    base = replace(retrain_preset(spec.space, preset), train_on="train", threads=1)
    config = settings.apply(base, types=config_types(spec.space))
    if config.train_on != "train":
        raise ConfigError(f"train_on is {config.train_on}, but architectures are ranked by what they score on valid")
    seed = config.seed if seed is None else seed
    config = replace(config, seed=seed, num_epochs=epochs or config.num_epochs, threads=threads or config.threads)
    torch_device = devices.resolve_device(device)
    devices.prepare(torch_device)
    num_jobs = min(jobs or default_jobs(torch_device), count * seeds)
    with catch_signals() as interrupt, executor_for(num_jobs, address=executor) as workers:
        setting = Setting(device=device, interrupt=interrupt, pace=pace)
        try:
            found = run_rank(
                run,
                config,
                count=count,
                num_seeds=seeds,
                seed=seed,
                device=torch_device,
                setting=setting,
                executor=workers,
                resume=resume,
                force=force,
                again=command_again(),
                log=click.echo,
            )
        except Stopped as stopped:
            exit_stopped(stopped, again=command_again(), say=click.echo)
    for line in _ranking_lines(found):
        click.echo(line)
    click.echo(f"wrote {run / RANKING}; `enas report {shlex.quote(str(run))}` draws it", err=True)


def _ranking_lines(found: Ranking) -> Iterator[str]:
    """A table of the predictors, and what the shared weights' rank correlation is worth."""
    regret_of = f"regret of {found.shared.agreement.top}"
    yield f"{'predictor':<16}{'tau':>7}{'± s.e.':>8}{'p':>9}{'upper half':>12}{regret_of:>13}"
    for one in found.predictors:
        agreed = one.agreement
        regret = f"{100 * agreed.regret:.2f} pts" if found.metric == "accuracy" else f"{agreed.regret:.2f}"
        yield (
            f"{one.name:<16}{_or_dash(agreed.tau, '.2f'):>7}{_or_dash(agreed.standard_error, '.2f'):>8}"
            f"{_or_dash(agreed.p_value, '.2g'):>9}{_or_dash(agreed.upper_half_tau, '.2f'):>12}{regret:>13}"
        )
    if found.seed_tau is not None:
        error = _or_dash(found.seed_standard_error, ".2f")
        yield f"{'another seed':<16}{found.seed_tau:>7.2f}{error:>8}   the most that can be asked for"
    pool = f"{len(found.architectures)} architectures trained for {found.epochs} epochs"
    tau, p_value = found.shared.agreement.tau, found.shared.agreement.p_value
    if tau is None or p_value is None:
        yield f"Kendall's tau is not defined over {pool}: all of them score alike"
    else:
        yield f"Kendall's tau {tau:.2f} over {pool} (a random order comes as far with probability {p_value:.2g})"


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
