"""The command `enas spec`."""

from __future__ import annotations

import json
import os
import random as random_module
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from foundation.command_options import Command, force_option, json_option, seed_option
from foundation.files import write_text
from searcher.commands.options import space_option

if TYPE_CHECKING:
    from searcher.arch.spec import Spec

_MISTAKE = 2
_PATH = click.Path(path_type=Path)

_space_option = space_option(default="micro")
_dataset_option = click.option(
    "--dataset", show_default="the preset's own", help="Name of a data set, or path of a store."
)
_preset_option = click.option("--preset", default="quick", help="Settings: quick, paper, or another of the space's.")


@click.group()
def spec() -> None:
    """Show, check, draw and convert architecture specs.

    A spec is a spec.json, which names an architecture, the size of its network and its task. SPEC is such a file, a
    run directory that holds one, or the name of a published architecture (`enas spec list`).
    """


def _output_options(command: Command) -> Command:
    out = click.option("--out", type=_PATH, metavar="FILE", show_default="stdout", help="Where the spec goes.")
    return out(force_option("Replace an existing file.")(command))


@spec.command("list")
@json_option
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
@click.option("--dataset", show_default="the spec's", help="Show the network that it makes for this data set.")
@click.option("--svg", type=_PATH, metavar="FILE", help="Draw the architecture into this file, too.")
@json_option
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
    from searcher.arch.errors import ArchitectureError
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
@seed_option("Fixes the architecture.", default=0)
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
    from searcher.arch.space import space_module

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
    from searcher.arch.space import space_module

    found = find_spec(source)
    click.echo(space_module(found.space).to_published(found.architecture))


def _retargeted(found: Spec, dataset: str) -> Spec:
    """The spec's architecture for another data set."""
    from searcher.arch.retarget import retarget
    from searcher.training.task_kinds import load_store, task_of

    return retarget(found, task_of(load_store(dataset, space=found.space), dataset=dataset))


def _is_spec(text_or_file: str) -> bool:
    from searcher.arch.catalog import published_names

    # os.path returns False for a long encoding, where pathlib may raise.
    return text_or_file in published_names() or text_or_file.endswith(".json") or os.path.isdir(text_or_file)


def _imported(source: str, dataset: str | None, *, space: str | None = None, preset: str | None = None) -> Spec:
    """Returns a spec for another data set. Raises: ConfigError: `dataset` is None, or the spec is of another space."""
    from foundation.document import ConfigError
    from searcher.arch.catalog import find_spec
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
    """Returns a spec for a data set. Args: architecture: called with the preset's options of the space."""
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
    from searcher.arch.errors import ArchitectureError

    if text_or_file == "-":
        return sys.stdin.read()
    if os.path.isfile(text_or_file):
        try:
            return Path(text_or_file).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 text ({error.reason} at byte {error.start})"
            raise ArchitectureError(text_or_file, [problem]) from error
    if any(letter.isalpha() for letter in text_or_file):
        raise ArchitectureError(text_or_file, ["no such file, and not the whole numbers of an encoding either"])
    return text_or_file


def _write(made: Spec, out: Path | None, *, force: bool) -> None:
    from searcher.arch.errors import ArchitectureError

    if out is None:
        click.echo(made.to_json(), nl=False)
        return
    if out.exists() and not force:
        raise ArchitectureError(str(out), ["is there already; --force replaces it"])
    write_text(out, made.to_json())
    click.echo(f"wrote {out}", err=True)
