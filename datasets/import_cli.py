"""`enas data import`: a store from a person's own pictures or text."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource
from tqdm import tqdm

from datasets import catalog
from datasets.sources import image_folder, own_text
from datasets.store import StoreError, open_store
from datasets.summary import summary
from datasets.tokens import Tokens

_LISTED_FILES = 10
_FOR_PICTURES = ("size", "fit", "colour", "seed")
force_option = click.option("--force", is_flag=True, help="Replace a store that is there already.")


class _Size(click.ParamType):
    name = "N or HxW"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", value)
        if match is None:
            self.fail(f"'{value}' is not a size: expected N or HxW in pixels, for example 32 or 48x64", param, ctx)
        return int(match[1]), int(match[2] or match[1])


@click.command("import")
@click.argument("source", metavar="FOLDER|FILE", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What to call it: letters, digits, '-', '_' and '.'.")
@click.option("--size", type=_Size(), help="Pixels of every image; needed if the pictures differ.")
@click.option(
    "--fit",
    type=click.Choice(["resize", "crop"]),
    default="resize",
    show_default=True,
    help="To --size: take the whole picture, or the largest middle part that keeps proportions.",
)
@click.option("--colour", type=click.Choice(["auto", "grey", "rgb"]), default="auto", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the pictures' split into train, valid, test.")
@click.option(
    "--tokens",
    type=click.Choice(["word", "char"]),
    help="It is text; what is to be a token of it.  [default: word, if there are .txt files and nothing else]",
)
@click.option(
    "--vocabulary",
    type=int,
    metavar="SIZE",
    help="The most different tokens; rarer ones become <unk>.  [default: 10,000 words, or all characters]",
)
@force_option
@click.pass_context
def import_command(
    context: click.Context,
    source: Path,
    name: str,
    size: tuple[int, int] | None,
    fit: str,
    colour: str,
    seed: int,
    tokens: Tokens | None,
    vocabulary: int | None,
    force: bool,
) -> None:
    """Build a store from your own pictures or text.

    Pictures: a FOLDER with one sub-folder a class. Folders train, valid and test, each with one sub-folder a class,
    are kept as splits; a missing split takes a tenth of train.

    Text: a FILE, or a FOLDER with train.txt, valid.txt and test.txt; a missing split takes a twentieth from the end of
    train. Words are lower-cased and parted from punctuation marks, and a line's end is one, <eos>.
    """
    path = _own_path(name, force=force)
    given = [key for key in _FOR_PICTURES if context.get_parameter_source(key) is ParameterSource.COMMANDLINE]
    if tokens or _is_text(source):
        if given:
            raise StoreError(f"--{given[0]} is for pictures, but {source} is taken as text")
        _import_text(source, path, name=name, tokens=tokens or "word", vocabulary_size=vocabulary)
    elif vocabulary is not None:
        raise StoreError(f"--vocabulary is for text, but {source} is taken as pictures; --tokens word says it is text")
    elif source.is_file():
        raise StoreError(f"{source}: a file, not a folder of pictures; if it is text, say so with --tokens word")
    else:
        _import_pictures(source, path, name=name, size=size, fit=fit, colour=colour, seed=seed)
    click.echo(f"{path}: {summary(open_store(path))}")


def _is_text(source: Path) -> bool:
    """Whether it can be nothing but text: a .txt file, or a folder of such files alone."""
    if source.is_dir():
        inside = [entry for entry in source.iterdir() if not entry.name.startswith(".")]
        return bool(inside) and all(entry.suffix == ".txt" and entry.is_file() for entry in inside)
    return source.suffix == ".txt"


def _import_text(source: Path, path: Path, *, name: str, tokens: Tokens, vocabulary_size: int | None) -> None:
    taken = own_text.build(source, path, name=name, tokens=tokens, vocabulary_size=vocabulary_size)
    if taken:
        click.echo(f"{' and '.join(taken)} were taken from the end of train", err=True)


def _import_pictures(
    folder: Path, path: Path, *, name: str, size: tuple[int, int] | None, fit: str, colour: str, seed: int
) -> None:
    with tqdm(
        total=2 * image_folder.count_files(folder), unit="file", desc=name, disable=not sys.stderr.isatty()
    ) as progress:
        report = image_folder.build(
            folder,
            path,
            name=name,
            size=size,
            resize="center_crop" if fit == "crop" else "squash",
            channels={"auto": None, "grey": 1, "rgb": 3}[colour],
            seed=seed,
            on_picture=progress.update,
        )
    _note_files("cannot be read and were left out", [f"{file}: {why}" for file, why in report.unreadable])
    _note_files("stand in two splits, so scores will flatter", [f"{file} is {other}" for file, other in report.leaked])


def _own_path(name: str, *, force: bool) -> Path:
    if not re.fullmatch(r"[\w-][\w.-]*", name) or name.endswith(".h5"):
        raise StoreError(f"'{name}' is not a name for a data set: expected letters, digits, '-', '_' and '.'")
    if catalog.is_known(name):
        raise StoreError(f"the name '{name}' is taken by a published data set; choose another --name")
    path = catalog.store_path(name)
    catalog.refuse_existing(path, force=force)
    return path


def _note_files(what: str, lines: Sequence[str]) -> None:
    if lines:
        click.echo(f"{len(lines)} files {what}:", err=True)
        for line in lines[:_LISTED_FILES]:
            click.echo(f"  {line}", err=True)
        if len(lines) > _LISTED_FILES:
            click.echo(f"  and {len(lines) - _LISTED_FILES} more", err=True)
