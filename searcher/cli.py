"""The commands `enas search`, `enas spec` and `enas report`."""

from __future__ import annotations

import json
import os
import random as random_module
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click
from click.core import ParameterSource

from datasets.files import write_text
from searcher.cli_options import (
    command_again,
    exit_stopped,
    flip_option,
    graphs_option,
    leading_speaker,
    pace_options,
    settings_options,
    speaker,
    threads_option,
)
from searcher.latency.options import latency_options

if TYPE_CHECKING:
    from searcher.arch.spec import Spec
    from searcher.arch.tasks import Task
    from searcher.latency.table import LatencyTable
    from searcher.training.search_config import SearchConfig

_MISTAKE = 2
_PATH = click.Path(path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])

_space_option = click.option("--space", default="micro", help="Search space: micro, macro, stages or recurrent.")
_dataset_option = click.option(
    "--dataset", show_default="the preset's own", help="Name of a data set, or path of a store."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
_preset_option = click.option("--preset", default="quick", help="Settings: quick, paper, or another of the space's.")


# --- search -----------------------------------------------------------------------------------------------------------


@click.command()
@click.option(
    "--space",
    show_default="the config's, or stages; of published presets micro",
    help="Search space: micro, macro, stages or recurrent.",
)
@click.option(
    "--preset", show_default="the config's, or quick", help="Settings: quick, paper, or another of the space's."
)
@settings_options
@_dataset_option
@click.option(
    "--run",
    "run_path",
    type=_PATH,
    metavar="RUN",
    show_default="runs/<space>-<dataset>-<preset>",
    help="Run directory, made if it is not there.",
)
@click.option("--seed", type=click.IntRange(min=0), show_default="the config's, or 0", help="Fixes the run.")
@click.option(
    "--policy",
    type=click.Choice(["lstm", "random"]),
    show_default="the config's, or lstm",
    help="The controller, or uniform random search.",
)
@click.option(
    "--derive",
    "derivation",
    type=click.Choice(["thorough", "paper"]),
    show_default="the config's, or thorough",
    help="How the architecture is chosen in the end: in rounds, or as published, the best of 10 on one minibatch.",
)
@click.option(
    "--memory-budget", type=click.IntRange(min=1), metavar="MB", show_default="2048", help="Images beyond it stream."
)
@flip_option
@threads_option
@latency_options
@pace_options
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
@graphs_option
@click.option("--resume", is_flag=True, help="Go on with an unfinished search, if there is one.")
@click.option("--force", is_flag=True, help="Delete an existing search in the run directory first.")
def search(
    space: str | None,
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    dataset: str | None,
    run_path: Path | None,
    seed: int | None,
    policy: str | None,
    derivation: str | None,
    memory_budget: int | None,
    flip: bool | None,
    threads: int | None,
    latency: str | None,
    latency_batch: int,
    latency_threads: int,
    checkpoint_minutes: float,
    max_hours: float | None,
    device: str,
    cuda_graphs: bool,
    resume: bool,
    force: bool,
) -> None:
    """Search for an architecture with ENAS and write it to the run's spec.json."""
    from searcher.arch.tasks import image_size_of
    from searcher.nn.graphs import cuda_graphs as graphs_of
    from searcher.presets.catalog import default_dataset, default_latency, default_space, search_preset
    from searcher.report.text import describe_spec
    from searcher.training import device as devices
    from searcher.training.derive import PAPER_DERIVATION, DeriveConfig
    from searcher.training.distributed import joined
    from searcher.training.interrupt import Stopped, catch_signals
    from searcher.training.loop import search as run_search
    from searcher.training.mirroring import FLIP, decide_flip
    from searcher.training.pacing import pace_of
    from searcher.training.run_folder import RunFolder
    from searcher.training.search_config import config_types
    from searcher.training.settings import Settings
    from searcher.training.task_kinds import check_images, load_store, task_of

    pace = pace_of(checkpoint_minutes=checkpoint_minutes, max_hours=max_hours)
    settings = Settings.read(config_file, assignments)
    preset = settings.name("preset", preset) or "quick"
    space = settings.name("space", space) or default_space(preset)
    dataset = dataset or settings.text("dataset") or default_dataset(space, preset)
    store = load_store(dataset, space=space)
    # Tells now what would otherwise be found out when the search is over.
    task = task_of(store, dataset=dataset)
    config = settings.apply(search_preset(space, preset, image_size=image_size_of(task)), types=config_types(space))
    config = replace(
        config,
        dataset=dataset,
        dataset_sha256=store.digest,
        memory_budget_mb=memory_budget or config.memory_budget_mb,
        threads=threads or config.threads,
    )
    if seed is not None:
        config = replace(config, seed=seed)
    if policy is not None:
        config = replace(config, policy=replace(config.policy, kind=cast(Literal["lstm", "random"], policy)))
    if derivation == "paper":
        config = replace(config, derivation=PAPER_DERIVATION)
    elif derivation == "thorough" and config.derivation == PAPER_DERIVATION:
        config = replace(config, derivation=DeriveConfig())
    config = decide_flip(config, store, flip=flip, is_own=settings.has(FLIP), say=partial(leading_speaker(), err=True))
    check_images(config.training, store)

    run_path = run_path or Path("runs") / f"{config.space}-{_name_of(dataset)}-{config.preset}"
    torch_device = devices.resolve_device(device)
    devices.prepare(torch_device)
    graphs = graphs_of(torch_device) if cuda_graphs else None
    if latency is None and config_file is None:
        latency = default_latency(space)
    if latency == "none":
        latency, config = None, replace(config, latency=None)
    config, table = _with_latency(config, task, goal=latency, batch=latency_batch, threads=latency_threads)
    again = command_again()
    with joined(torch_device) as world, catch_signals() as interrupt, devices.threads(config.threads):
        say = speaker(speaks=world.leads)
        folder = RunFolder.open(run_path / "search", config, resume=resume, force=force, again=again, world=world)
        if folder.finished:
            say(f"{run_path}: the search is finished; its architecture is in {run_path / 'spec.json'}", err=True)
            return
        say(f"search in {run_path} on {devices.describe(torch_device, count=world.size)}", err=True)
        try:
            spec = run_search(
                config,
                store=store,
                folder=folder,
                device=torch_device,
                interrupt=interrupt,
                pace=pace,
                graphs=graphs,
                latency=None if table is None else table.predictor(config.final_network, task),
            )
        except Stopped as stopped:
            exit_stopped(stopped, again=again, say=say)
    say(describe_spec(spec), nl=False)
    say(f"\nwrote {run_path / 'spec.json'}; next: enas retrain {shlex.quote(str(run_path))}", err=True)


def _with_latency(
    config: SearchConfig, task: Task, *, goal: str | None, batch: int, threads: int
) -> tuple[SearchConfig, LatencyTable | None]:
    """The config with its latency target, and the table that predicts; without a goal, the config's own target.

    Raises: ConfigError: the goal is none, or no network of the space is as fast.
    """
    from searcher.arch.document import ConfigError
    from searcher.latency.fastest import fastest
    from searcher.latency.target import LatencyTarget, target_ms

    asked = config.latency
    if goal is None and asked is None:
        return config, None
    if goal is None and asked is not None:
        batch, threads = asked.batch, asked.threads
    table = click.get_current_context().obj.latency_table(
        config.space, config.search_space, config.final_network, task, batch=batch, threads=threads
    )
    if goal is not None:
        asked = LatencyTarget(target_ms(goal, references=table.references), batch, threads)
    assert asked is not None
    if asked.table_sha256 not in ("", table.digest):
        raise ConfigError("the latency table of this machine is not the one of the config; give --latency anew")
    least = fastest(config.search_space, table.predictor(config.final_network, task))
    # A width that the space does not decide on is fitted to the target afterwards.
    if asked.target_ms < least and not hasattr(config.final_network, "channels"):
        raise ConfigError(f"no network of this space takes {asked.target_ms:.3g} ms; the fastest takes {least:.3g} ms")
    return replace(config, latency=replace(asked, table_sha256=table.digest)), table


def _name_of(dataset: str) -> str:
    """A data set's name, or the stem of a store's path."""
    return Path(dataset).stem if dataset.endswith(".h5") else dataset


# --- spec -------------------------------------------------------------------------------------------------------------


@click.group()
def spec() -> None:
    """Show, check, draw and convert architecture specs.

    A spec is a spec.json, which names an architecture, the size of its network and its task. SPEC is such a file, a
    run directory that holds one, or the name of a published architecture (`enas spec list`).
    """


def _output_options(command: _Command) -> _Command:
    command = click.option("--force", is_flag=True, help="Replace an existing file.")(command)
    return click.option("--out", type=_PATH, metavar="FILE", show_default="stdout", help="Where the spec goes.")(
        command
    )


@spec.command("list")
@_json_option
def list_(as_json: bool) -> None:
    """List the published architectures: name, search space, parameters, source."""
    from searcher.arch.catalog import published_names, published_spec
    from searcher.nn.complexity import complexity_of

    specs = {name: published_spec(name) for name in published_names()}
    parameters = {name: complexity_of(found).total.parameters for name, found in specs.items()}
    if as_json:
        rows = [
            {"name": name, "space": found.space, "parameters": parameters[name], "provenance": dict(found.provenance)}
            for name, found in specs.items()
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    width = max(map(len, specs))
    for name, found in specs.items():
        click.echo(f"{name:{width}}  {found.space:9}  {parameters[name]:>10,}  {found.provenance['source']}")


@spec.command()
@click.argument("source", metavar="SPEC", type=_PATH)
@click.option("--dataset", help="Show the network that it makes for this data set.  [default: the spec's]")
@click.option("--svg", type=_PATH, metavar="FILE", help="Draw the architecture into this file, too.")
@_json_option
def show(source: Path, dataset: str | None, svg: Path | None, as_json: bool) -> None:
    """Write out an architecture node by node, and what its network costs.

    Multiply-adds and activations are those of convolutions and linear layers, for one image or one token. The
    auxiliary head, which only training has, is not counted.
    """
    from searcher.arch.catalog import find_spec
    from searcher.nn.complexity import complexity_of
    from searcher.report.complexity import describe_complexity
    from searcher.report.drawing import draw_spec
    from searcher.report.text import describe_spec

    found = find_spec(source)
    if dataset is not None:
        found = _retargeted(found, dataset)
    complexity = complexity_of(found)
    if as_json:
        document = {"spec": found.to_document(), "complexity": complexity.to_document()}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{describe_spec(found)}\n{describe_complexity(complexity)}", nl=False)
    if svg is not None:
        write_text(svg, draw_spec(found))
        click.echo(f"wrote {svg}", err=True)


@spec.command()
@click.argument("sources", metavar="SPEC...", nargs=-1, required=True, type=_PATH)
def validate(sources: tuple[Path, ...]) -> None:
    """Check specs and name every problem. Exits 2 if there is one."""
    from searcher.arch.catalog import find_spec
    from searcher.arch.document import ArchitectureError
    from searcher.report.text import headline

    broken = False
    for source in sources:
        try:
            click.echo(f"{source}: ok, {headline(find_spec(source))}")
        except (ArchitectureError, OSError) as error:
            click.echo(str(error), err=True)
            broken = True
    if broken:
        click.get_current_context().exit(_MISTAKE)


@spec.command()
@_space_option
@_dataset_option
@_preset_option
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Fixes the architecture.")
@_output_options
def random(space: str, dataset: str | None, preset: str, seed: int, out: Path | None, force: bool) -> None:
    """Draw an architecture with every decision uniform and independent.

    The network gets the size that a search with the preset would give it.
    """
    made = _make_spec(
        space,
        dataset=dataset,
        preset=preset,
        architecture=lambda options: options.random(random_module.Random(seed)),
        provenance={"source": "uniformly random", "preset": preset, "seed": seed},
    )
    _write(made, out, force=force)


@spec.command("import")
@click.argument("text_or_file")
@_space_option
@_dataset_option
@_preset_option
@_output_options
@click.pass_context
def import_(
    context: click.Context,
    text_or_file: str,
    space: str,
    dataset: str | None,
    preset: str,
    out: Path | None,
    force: bool,
) -> None:
    """Make a spec of an architecture in the published integer encoding, or of a SPEC for another data set.

    A SPEC, a file, a run or a published name, keeps its widths unless --preset is given.

    An encoding is the text itself, a file that holds it, or - for stdin. For the space micro it has, for every node of
    the normal and then of the reduction cell: input, operation, input, operation. For macro, for layer k: the
    operation, then k - 1 times 0 or 1, whether it skips from the stem, layer 1, and so on. For recurrent: the first
    node's activation, then previous node and activation for each further one; without the first number it is enas_lm's.
    For stages, an encoding of our own: the stem's width and stride; for each stage its width, its number of layers, and
    each one's operation. The network gets the size that a search with the preset would give it.
    """
    from searcher.arch.spaces import space_module

    if _is_spec(text_or_file):
        given = [
            name for name in ("space", "preset") if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ]
        options = {"space": space, "preset": preset}
        made = _imported(text_or_file, dataset, **{name: options[name] for name in given})
        _write(made, out, force=force)
        return
    architecture = space_module(space).from_published(_encoding(text_or_file))
    made = _make_spec(
        space,
        dataset=dataset,
        preset=preset,
        architecture=lambda _: architecture,
        provenance={"source": "published encoding", "preset": preset},
    )
    _write(made, out, force=force)


@spec.command()
@click.argument("source", metavar="SPEC", type=_PATH)
def export(source: Path) -> None:
    """Write an architecture in the published integer encoding."""
    from searcher.arch.catalog import find_spec
    from searcher.arch.spaces import space_module

    found = find_spec(source)
    click.echo(space_module(found.space).to_published(found.architecture))


def _retargeted(found: Spec, dataset: str) -> Spec:
    """The spec's architecture for another data set."""
    from searcher.arch.retarget import retarget
    from searcher.training.task_kinds import load_store, task_of

    return retarget(found, task_of(load_store(dataset, space=found.space), dataset=dataset))


def _is_spec(text_or_file: str) -> bool:
    from searcher.arch.catalog import published_names

    # os.path, to which a long encoding is no path rather than an error.
    return text_or_file in published_names() or text_or_file.endswith(".json") or os.path.isdir(text_or_file)


def _imported(source: str, dataset: str | None, *, space: str | None = None, preset: str | None = None) -> Spec:
    """A spec for another data set. Raises: ConfigError: none is given, or the spec is of another space."""
    from searcher.arch.catalog import find_spec
    from searcher.arch.document import ConfigError
    from searcher.arch.tasks import image_size_of
    from searcher.presets.catalog import search_preset

    found = find_spec(Path(source))
    if space is not None and space != found.space:
        raise ConfigError(f"{source} is of the space {found.space}, but --space is {space}")
    if dataset is None:
        raise ConfigError(f"{source} is a spec already; --dataset says which data set to make it for")
    made = _retargeted(found, dataset)
    if preset is None:
        return made
    size = search_preset(found.space, preset, image_size=image_size_of(made.task)).final_network
    return replace(made, network=size, provenance={**made.provenance, "preset": preset})


def _make_spec(
    space: str,
    *,
    dataset: str | None,
    preset: str,
    architecture: Callable[[Any], Any],
    provenance: dict[str, Any],
) -> Spec:
    """A spec for a data set. Args: architecture: gets the preset's options of the space."""
    from searcher.arch.spec import Spec
    from searcher.arch.tasks import image_size_of
    from searcher.presets.catalog import default_dataset, search_preset
    from searcher.training.task_kinds import load_store, task_of

    dataset = dataset or default_dataset(space, preset)
    task = task_of(load_store(dataset, space=space), dataset=dataset)
    config = search_preset(space, preset, image_size=image_size_of(task))
    return Spec(
        space=space,
        architecture=architecture(config.search_space),
        network=config.final_network,
        task=task,
        provenance=provenance,
    )


def _encoding(text_or_file: str) -> str:
    from searcher.arch.document import ArchitectureError

    if text_or_file == "-":
        return sys.stdin.read()
    if os.path.isfile(text_or_file):
        return Path(text_or_file).read_text(encoding="utf-8")
    if any(letter.isalpha() for letter in text_or_file):
        raise ArchitectureError(text_or_file, ["no such file, and not the whole numbers of an encoding either"])
    return text_or_file


def _write(made: Spec, out: Path | None, *, force: bool) -> None:
    from searcher.arch.document import ArchitectureError

    if out is None:
        click.echo(made.to_json(), nl=False)
        return
    if out.exists() and not force:
        raise ArchitectureError(str(out), ["is there already; --force replaces it"])
    write_text(out, made.to_json())
    click.echo(f"wrote {out}", err=True)


# --- report -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("run", metavar="RUN", type=_PATH)
def report(run: Path) -> None:
    """Write a run's page, report.html, from whatever the run directory holds so far.

    One file with the architecture, learning curves and results, which opens offline. Prints its path.
    """
    from searcher.report.page import write_report

    click.echo(write_report(run))
