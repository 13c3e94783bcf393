"""`enas data`: list, inspect, fetch and import data sets. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from datasets import catalog
from datasets.sources import image_folder
from datasets.store import ImageStore, StoreError, TextStore, open_store

_LISTED_FILES = 10
_json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
_force_option = click.option("--force", is_flag=True, help="Replace a store that is there already.")


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


@click.group()
def data() -> None:
    """List, inspect, fetch and import data sets."""


@data.command("list")
@_json_option
def list_command(as_json: bool) -> None:
    """All data sets: embedded, fetched or to be fetched, and your own."""
    rows = [_known_row(entry) for entry in catalog.entries()] + [_own_row(name) for name in catalog.imported()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    widths = [max(len(row[key]) for row in rows) for key in ("name", "state")]
    for row in rows:
        click.echo(f"{row['name']:<{widths[0]}}  {row['state']:<{widths[1]}}  {row['summary']}")
    click.echo(f"\nStores lie in {catalog.data_folder()} ($ENAS_DATA moves them).", err=True)


def _known_row(entry: catalog.Entry) -> dict[str, Any]:
    path = catalog.store_path(entry.name)
    state = "embedded" if entry.remote is None else "fetched" if path.is_file() else f"enas data fetch {entry.name}"
    return {
        "name": entry.name,
        "state": state,
        "summary": entry.summary,
        "path": str(path) if path.is_file() else None,
    }


def _own_row(name: str) -> dict[str, Any]:
    path = catalog.store_path(name)
    try:
        summary = _summary(open_store(path))
        state = "imported"
    except StoreError as error:
        summary, state = str(error), "damaged"
    return {"name": name, "state": state, "summary": summary, "path": str(path)}


def _summary(store: ImageStore | TextStore) -> str:
    total = sum(store.counts.values())
    if isinstance(store, TextStore):
        return f"{total:,} words, vocabulary of {len(store.vocabulary):,}"
    return f"{total:,} images {_shape_text(store)} in {len(store.classes)} classes"


@data.command()
@click.argument("name_or_path", metavar="NAME|PATH")
@click.option("--verify", is_flag=True, help="Read all of it and compare with its SHA-256.")
@_json_option
def info(name_or_path: str, verify: bool, as_json: bool) -> None:
    """What a data set holds."""
    store = catalog.load(name_or_path)
    if verify:
        store.verify()
    facts = _facts(store)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    click.echo(f"{store.name}: {_summary(store)}\n")
    if isinstance(store, ImageStore):
        _show_classes(facts)
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (store.mean, store.std))
        click.echo(f"\nmean     {mean}   (of pixel / 255, train)\nstd      {std}")
    else:
        _show_words(store)
    click.echo(f"source   {store.source}\nlicence  {store.licence}")
    click.echo(f"file     {store.path} ({facts['file_bytes'] / 1e6:.1f} MB{', verified' if verify else ''})")


def _facts(store: ImageStore | TextStore) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": store.name,
        "kind": store.kind,
        "path": str(store.path),
        "file_bytes": store.path.stat().st_size,
        "counts": dict(store.counts),
        "sha256": dict(store.sha256),
        "source": store.source,
        "licence": store.licence,
    }
    if isinstance(store, TextStore):
        return facts | {"vocabulary_size": len(store.vocabulary)}
    return facts | {
        "image_shape": list(store.image_shape),
        "classes": list(store.classes),
        "class_counts": {
            split: np.bincount(store.labels(split), minlength=len(store.classes)).tolist() for split in store.counts
        },
        "mean": list(store.mean),
        "std": list(store.std),
        "resize": store.resize,
    }


def _show_classes(facts: dict[str, Any], limit: int = 20) -> None:
    """A table: images of each class in each split; only the first classes if there are many."""
    splits = list(facts["counts"])
    width = max(8, *(len(name) for name in facts["classes"][:limit]))
    click.echo(_table_row(["", *splits], width))
    for label, name in enumerate(facts["classes"][:limit]):
        click.echo(_table_row([name, *(facts["class_counts"][split][label] for split in splits)], width))
    if len(facts["classes"]) > limit:
        click.echo(f"and {len(facts['classes']) - limit} classes more")
    click.echo(_table_row(["all", *facts["counts"].values()], width))


def _table_row(cells: Sequence[str | int], width: int) -> str:
    texts = [cell if isinstance(cell, str) else f"{cell:,}" for cell in cells]
    return f"{texts[0]:<{width}}" + "".join(f"{text:>10}" for text in texts[1:])


def _show_words(store: TextStore) -> None:
    for split, count in store.counts.items():
        click.echo(f"{split:<8} {count:>10,} words")
    click.echo(f"\ncommon   {' '.join(store.vocabulary[:12])}")


def _shape_text(store: ImageStore) -> str:
    return "×".join(map(str, store.image_shape))


@data.command()
@click.argument("name")
@click.option(
    "--from",
    "originals",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the published files, instead of the network.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The store's path.  [default: by name]")
@_force_option
def fetch(name: str, originals: Path | None, out: Path | None, force: bool) -> None:
    """Download a published data set and build its store."""
    path = catalog.fetch(name, originals=originals, out=out, force=force)
    click.echo(f"{path}: {_summary(open_store(path))}")


@data.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
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
@click.option("--seed", type=int, default=0, show_default=True, help="Of the split into train, valid and test.")
@_force_option
def import_command(
    folder: Path, name: str, size: tuple[int, int] | None, fit: str, colour: str, seed: int, force: bool
) -> None:
    """Build a store from your own FOLDER of pictures: one sub-folder a class.

    Folders train, valid and test, each with one sub-folder a class, are kept as splits; a missing split takes a tenth
    of train.
    """
    path = _own_path(name, force=force)
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
    click.echo(f"{path}: {_summary(open_store(path))}")


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
