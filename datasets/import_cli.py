"""`enas data import`: a store from a person's own pictures or text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, get_args

import click
from click.core import ParameterSource

from datasets import catalog
from datasets.claims import claimed
from datasets.mirroring import look_alikes
from datasets.sources import own_pictures, own_text
from datasets.sources.import_report import ImportReport
from datasets.sources.picture_table import SUFFIXES, Columns
from datasets.store import ImageStore, StoreError, open_store
from datasets.summary import class_table, summary, token_table
from datasets.tokens import Tokens
from foundation.command_options import force_option, seed_option
from foundation.progress import steps
from foundation.text import printable

_LISTED_FILES = 10
_FOR_PICTURES = ("size", "fit", "colour", "seed", "columns", "as_classes", "list_copies")
_PACKED = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
store_force_option = force_option("Replace a store that is there already.")


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


class _Columns(click.ParamType):
    name = "PATHS,LABELS"

    def convert(self, value: str | Columns, param: click.Parameter | None, ctx: click.Context | None) -> Columns:
        if isinstance(value, tuple):
            return value
        names = [name.strip() for name in value.split(",")]
        if len(names) != 2 or not all(names):
            self.fail(
                f"'{value}' does not name two columns: expected PATHS,LABELS, for example image_id,diagnosis",
                param,
                ctx,
            )
        return names[0], names[1]


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
@seed_option("Of the pictures' split into train, valid, test.", default=0)
@click.option(
    "--columns", type=_Columns(), help="A table's columns of paths and labels, where they have unusual names."
)
@click.option(
    "--as-classes",
    is_flag=True,
    help="The folders, or those in train, valid and test, are the classes, even if they look like something else.",
)
@click.option("--list-copies", is_flag=True, help="List all files that are copies of one another.")
@click.option(
    "--tokens",
    type=click.Choice(get_args(Tokens)),
    show_default="word, if there are .txt files and nothing else",
    help="It is text; what is to be a token of it.",
)
@click.option(
    "--vocabulary",
    type=int,
    metavar="SIZE",
    show_default="10,000 of --tokens word, all of the others",
    help="The most different tokens; rarer ones become <unk>.",
)
@store_force_option
@click.pass_context
def import_command(
    context: click.Context,
    source: Path,
    name: str,
    size: tuple[int, int] | None,
    fit: str,
    colour: str,
    seed: int,
    columns: Columns | None,
    as_classes: bool,
    list_copies: bool,
    tokens: Tokens | None,
    vocabulary: int | None,
    force: bool,
) -> None:
    """Build a store from your own pictures or text.

    Pictures: a FOLDER, or a ZIP archive of it, with one sub-folder a class. Folders train, valid and test (val, Testing
    and the like are known), each with one sub-folder a class, are kept as splits; a missing split takes a tenth of
    train. Or a table: a CSV FILE with columns of paths, labels and, if you like, splits, or a FOLDER with a
    metadata.csv or metadata.jsonl as Hugging Face has it.

    Text: a FILE, or a FOLDER with train.txt, valid.txt and test.txt; a missing split takes a twentieth from the end of
    train. Words are lower-cased and parted from punctuation marks, and a line's end is one, <eos>; with --tokens
    whitespace they are kept as they are written.
    """
    path = _own_path(name)
    given = [key for key in _FOR_PICTURES if context.get_parameter_source(key) is ParameterSource.COMMANDLINE]
    is_text = bool(tokens) or _is_text(source)
    if is_text and given:
        raise StoreError(f"--{given[0].replace('_', '-')} is for pictures, but {source} is taken as text")
    if not is_text and vocabulary is not None:
        raise StoreError(f"--vocabulary is for text, but {source} is taken as pictures; --tokens word says it is text")
    if not is_text:
        _check_form(source)
    with claimed(path, force=force):
        if is_text:
            _import_text(source, path, name=name, tokens=tokens or "word", vocabulary_size=vocabulary)
        else:
            channels: dict[str, Literal[1, 3] | None] = {"auto": None, "grey": 1, "rgb": 3}
            with _step_counter(name) as (on_start, on_picture):
                report = own_pictures.build(
                    source,
                    path,
                    name=name,
                    size=size,
                    resize="center_crop" if fit == "crop" else "squash",
                    channels=channels[colour],
                    seed=seed,
                    columns=columns,
                    as_classes=as_classes,
                    on_start=on_start,
                    on_picture=on_picture,
                )
            _tell(report, list_copies=list_copies)
    store = open_store(path)
    if isinstance(store, ImageStore):
        click.echo(class_table(store))
        click.echo(_mirroring(store), err=True)
        click.echo(f"what a network will see of it: enas data show {name} --out sheet.png", err=True)
    else:
        click.echo(token_table(store))
    click.echo(f"{path}: {summary(store)}")


def _mirroring(store: ImageStore) -> str:
    """Returns a line that reports whether training will mirror the pictures, and why."""
    found = look_alikes(store)
    if found is None:
        return (
            "no class was found to look like another one mirrored: training mirrors pictures, unless --no-flip says so"
        )
    if found.is_clear:
        return f"{found}: training does not mirror pictures, unless --flip says so"
    return f"{found}: if left and right matter, train with --no-flip"


def _check_form(source: Path) -> None:
    """Raises: StoreError: the source is a file, but neither a table nor a ZIP archive."""
    suffix = source.suffix.lower()
    if source.is_file() and suffix not in (*SUFFIXES, ".zip"):
        if suffix in _PACKED:
            raise StoreError(f"{source}: of packed files only .zip is read; unpack it and give the folder")
        raise StoreError(f"{source}: a file, not a folder of pictures; if it is text, say so with --tokens word")


def _is_text(source: Path) -> bool:
    """Whether the source can only be text: a .txt file, or a folder that contains only .txt files."""
    if source.is_dir():
        inside = [entry for entry in source.iterdir() if not entry.name.startswith(".")]
        return bool(inside) and all(entry.suffix.lower() == ".txt" and entry.is_file() for entry in inside)
    return source.suffix.lower() == ".txt"


def _import_text(source: Path, path: Path, *, name: str, tokens: Tokens, vocabulary_size: int | None) -> None:
    notes: list[str] = []
    taken = own_text.build(source, path, name=name, tokens=tokens, vocabulary_size=vocabulary_size, note=notes.append)
    for note in notes:
        click.echo(note, err=True)
    if taken:
        click.echo(f"{' and '.join(taken)} were taken from the end of train", err=True)


@contextmanager
def _step_counter(name: str) -> Iterator[tuple[Callable[[int], None], Callable[[], object]]]:
    """Yields two callbacks: one takes the number of steps once it is known, the other is called at every step."""
    with ExitStack() as stack:
        step: Callable[[], object] = lambda: None  # noqa: E731

        def on_start(total: int) -> None:
            nonlocal step
            step = stack.enter_context(steps(name, total=total, unit="file"))

        yield on_start, lambda: step()


def _tell(report: ImportReport, *, list_copies: bool) -> None:
    """Print on stderr what a user should know before training on the pictures."""
    _note("left out, since they cannot be read", [f"{path}: {why}" for path, why in report.unreadable])
    _note("files or folders passed over", [f"{path}: {why}" for path, why in report.passed_over])
    _note("files shown otherwise than they are stored", [f"{path}: {how}" for path, how in report.remarks])
    _note("pictures under two labels, of which one is wrong", [", ".join(group) for group in report.two_labels])
    _note("files in two splits, so scores will flatter", [f"{file} is {other}" for file, other in report.leaked])
    if report.copies and list_copies:
        _note("groups of equal files", [", ".join(group) for group in report.copies], limit=len(report.copies))
    elif report.copies:
        count = sum(len(group) - 1 for group in report.copies)
        click.echo(f"copies of other files: {count}; --list-copies names them", err=True)
    _note("classes to look at", report.doubtful, limit=2 * _LISTED_FILES)


def _own_path(name: str) -> Path:
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".h5"):
        raise StoreError(
            f"'{name}' is not a name for a data set: expected letters, digits and '_', then also '-' and '.'"
        )
    if catalog.is_known(name):
        raise StoreError(f"the name '{name}' is taken by a published data set; choose another --name")
    return catalog.store_path(name)


def _note(what: str, lines: Sequence[str], *, limit: int = _LISTED_FILES) -> None:
    if lines:
        click.echo(f"{what}: {len(lines)}", err=True)
        for line in lines[:limit]:
            click.echo(f"  {printable(line)}", err=True)
        if len(lines) > limit:
            click.echo(f"  and {len(lines) - limit} more", err=True)
