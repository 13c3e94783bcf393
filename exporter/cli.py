"""The commands `enas retrain`, `enas rank`, `enas export` and `enas verify`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
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


@click.command()
@_RUN
@click.option("--opset", type=click.IntRange(18, 23), default=18, help="ONNX opset; from 22 on a newer onnxruntime.")
@click.option("--atol", type=float, default=1e-4, help="Part of the tolerance on logits: atol + rtol · max |logit|.")
@click.option("--rtol", type=float, default=1e-4, help="See --atol.")
@click.option(
    "--align",
    type=click.Choice(["none", "auto"]),
    default="none",
    help="auto fills channels up to blocks of this CPU's kernels, measures, and keeps what is faster.",
)
@click.option("--resize-inside", is_flag=True, help="Write model-any-size.onnx, which resizes pictures itself, too.")
@click.option(
    "--triton",
    "repository",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the model into this folder as a Triton repository has it, too.",
)
@click.option("--int8", is_flag=True, help="Try model-int8.onnx, calibrated on training pictures, too.")
@click.option("--half", is_flag=True, help="Try model-fp16.onnx, for CUDA, too.")
@click.option(
    "--for",
    "goal",
    type=click.Choice(["speed", "size", "elsewhere"]),
    default="speed",
    help="What --int8 and --half must gain: 5 % of time here, bytes, or, for another machine, nothing.",
)
@click.option(
    "--max-accuracy-loss",
    "points",
    type=click.FloatRange(min=0),
    default=0.5,
    metavar="POINTS",
    help="Accuracy on valid that --int8 and --half may cost.",
)
@click.option("--resume", is_flag=True, help="Do nothing where the run's model is already that of its weights.")
def export(
    run: Path,
    opset: int,
    atol: float,
    rtol: float,
    align: Literal["none", "auto"],
    resize_inside: bool,
    repository: Path | None,
    int8: bool,
    half: bool,
    goal: Literal["speed", "size", "elsewhere"],
    points: float,
    resume: bool,
) -> None:
    """Convert a run's retrained network to model.onnx, verified against torch.

    Exits 1, writing no model, if the two differ on the test split or on edge cases. With --int8 and --half other forms
    are tried, and kept beside it where they lose little accuracy and pay; variants.json holds all that was tried.
    """
    from exporter.any_size import ANY_SIZE_MODEL, write_any_size
    from exporter.convert import Tolerance, least_onnxruntime
    from exporter.export import VerificationError, is_current
    from exporter.export import export as run_export
    from exporter.triton import write_triton
    from exporter.variants import remove_stale
    from exporter.verify import describe
    from runtime.models.artifact import MODEL, SEQUENCE_MODEL

    tolerance = Tolerance(atol, rtol)
    forms: list[Literal["int8", "fp16"]] = [*(["int8"] if int8 else []), *(["fp16"] if half else [])]  # type: ignore[list-item]
    if forms or resize_inside or repository is not None:
        _check_is_of_images(run)
    log = partial(click.echo, err=True)
    if resume and is_current(run, opset=opset, tolerance=tolerance, align=align):
        log(f"{run}: {MODEL} is verified and up to date")
    else:
        try:
            verification = run_export(run, opset=opset, tolerance=tolerance, align=align, log=log)
        except VerificationError as error:
            click.echo(describe(error.verification))
            log(f"error: {error}")
            click.get_current_context().exit(1)
        finally:
            remove_stale(run)
            (run / ANY_SIZE_MODEL).unlink(missing_ok=True)
        click.echo(describe(verification))
        written = [run / MODEL, *([run / SEQUENCE_MODEL] if verification.sequence_sha256 else [])]
        sizes = " and ".join(f"{path} ({path.stat().st_size:,} bytes)" for path in written)
        log(
            f"wrote {sizes}; opset {opset} opens in onnxruntime {least_onnxruntime(opset)} and later; "
            f"next: enas benchmark {shlex.quote(str(run))}"
        )
    if resize_inside:
        log(f"wrote {write_any_size(run)}")
    if repository is not None:
        log(f"wrote {write_triton(run, repository)}; next: enas serve {shlex.quote(str(repository))}")
    if forms:
        _try_variants(run, forms, points=points, goal=goal, resume=resume)


def _check_is_of_images(run: Path) -> None:
    """Raises: ConfigError: the run is one of text, whose models have one form alone."""
    from searcher.arch.catalog import find_spec
    from searcher.arch.document import ConfigError
    from searcher.arch.tasks import IMAGE_CLASSIFICATION

    if find_spec(run).task.kind != IMAGE_CLASSIFICATION:
        raise ConfigError("--int8, --half, --resize-inside and --triton are for image classifiers")


def _try_variants(
    run: Path,
    forms: Sequence[Literal["int8", "fp16"]],
    *,
    points: float,
    goal: Literal["speed", "size", "elsewhere"],
    resume: bool,
) -> None:
    from datasets.store import ImageStore
    from exporter import variants
    from searcher.arch.spec import read_spec
    from searcher.training.task_kinds import load_store

    if resume and variants.is_current(run, forms, points=points, goal=goal):
        click.echo(f"{run}: {variants.VARIANTS} is up to date", err=True)
        return
    spec = read_spec(run / "retrain" / "spec.json")
    store = load_store(spec.task.dataset, space=spec.space)
    assert isinstance(store, ImageStore)
    trials = variants.make_variants(
        run, store, forms, points=points, goal=goal, log=lambda line: click.echo(line, err=True)
    )
    click.echo(variants.describe(trials))


@click.command()
@_RUN
@click.option("--atol", type=float, default=1e-4, help="Part of the tolerance on logits: atol + rtol · max |logit|.")
@click.option("--rtol", type=float, default=1e-4, help="See --atol.")
def verify(run: Path, atol: float, rtol: float) -> None:
    """Compare a run's model.onnx with its retrained network again, on the CPU.

    Exits 1 if they differ on the test split or on edge cases.
    """
    from exporter.convert import Tolerance
    from exporter.export import verify_run
    from exporter.verify import describe

    verification = verify_run(run, tolerance=Tolerance(atol, rtol))
    click.echo(describe(verification))
    if not verification.passed:
        click.echo(f"error: {run}: the model does not match its torch network", err=True)
        click.get_current_context().exit(1)
