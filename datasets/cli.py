"""`enas data`: list, inspect, fetch and import data sets. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from datasets import catalog
from datasets.import_cli import import_command, store_force_option
from datasets.store import ImageStore, StoreError, StoreInUseError, TextStore, open_store
from datasets.store_format import SPLITS
from datasets.summary import class_table, summary, token_table, unknown_counts
from foundation.command_options import json_option
from foundation.files import whole_file
from foundation.progress import steps
from foundation.tables import aligned


@click.group()
def data() -> None:
    """List, inspect, fetch and import data sets."""


@data.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """All data sets: embedded, fetched or to be fetched, and your own."""
    rows = [_known_row(entry) for entry in catalog.entries()] + [_own_row(name) for name in catalog.imported()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    header = ["name", "state", "summary"]
    click.echo(aligned(header, [[row[key] for key in header] for row in rows], left=(0, 1, 2)))
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
        text, state = summary(open_store(path)), "imported"
    except StoreError as error:
        text, state = str(error), "in use" if isinstance(error, StoreInUseError) else "damaged"
    return {"name": name, "state": state, "summary": text, "path": str(path)}


@data.command()
@click.option("--space", default="stages", help="Search space, as `enas search` takes it.")
@click.option("--preset", default="quick", help="Settings: quick, paper, or another of the space's.")
@click.pass_context
def default(context: click.Context, space: str, preset: str) -> None:
    """The data set that a search of a space is meant for."""
    click.echo(context.obj.default_dataset(space, preset))


@data.command()
@click.argument("name_or_path", metavar="NAME|PATH")
@click.option("--verify", is_flag=True, help="Read all of it and compare with its SHA-256.")
@json_option
def info(name_or_path: str, verify: bool, as_json: bool) -> None:
    """What a data set holds."""
    store = catalog.load(name_or_path)
    if verify:
        store.verify()
    facts = _facts(store)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    click.echo(f"{store.name}: {summary(store)}\n")
    if isinstance(store, ImageStore):
        click.echo(class_table(store))
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (store.mean, store.std))
        click.echo(f"\nmean     {mean}   (of pixel / 255, train)\nstd      {std}")
    else:
        click.echo(token_table(store))
        common = store.vocabulary[:12] if store.tokens != "char" else map(repr, store.vocabulary[:12])
        click.echo(f"\ncommon   {' '.join(common)}")
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
        return facts | {
            "tokens": store.tokens,
            "vocabulary_size": len(store.vocabulary),
            "unknown_counts": unknown_counts(store),
        }
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


@data.command()
@click.argument("name")
@click.option(
    "--from",
    "originals",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the published files, instead of the network.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), show_default="by name", help="The store's path."
)
@store_force_option
def fetch(name: str, originals: Path | None, out: Path | None, force: bool) -> None:
    """Download a published data set and build its store."""
    path = catalog.fetch(name, originals=originals, out=out, force=force)
    click.echo(f"{path}: {summary(open_store(path))}")


@data.command()
@click.argument("name_or_path", metavar="NAME|PATH")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The sheet, a PNG or JPEG file."
)
@click.option("--split", type=click.Choice(SPLITS), default="train", show_default=True, help="Where to take them from.")
@click.option("--columns", type=click.IntRange(1, 50), default=8, show_default=True, help="Images of each class.")
@click.option(
    "--augmented", is_flag=True, help="Each kind of augmentation, a row each; with --set, that one on classes."
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="With --augmented: a setting of training.augmentation, as rotation=15; may be given many times.",
)
def show(name_or_path: str, out: Path, split: str, columns: int, augmented: bool, assignments: tuple[str, ...]) -> None:
    """Draw a contact sheet: a few images of each class, as a network will see them."""
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise StoreError(f"{out}: a sheet is a PNG or a JPEG file, so its name ends in .png or .jpg")
    if assignments and not augmented:
        raise click.UsageError("--set is for --augmented")
    store = catalog.load_images(name_or_path)
    if augmented:
        from datasets.augmented_sheet import augmentation_of, augmented_sheet

        augmentation = augmentation_of(assignments) if assignments else None
        sheet = augmented_sheet(store, split, augmentation=augmentation, num_columns=columns)
        told = f"{columns} images of {split}, augmented"
    else:
        from datasets.contact_sheet import contact_sheet

        sheet = contact_sheet(store, split, num_columns=columns)
        told = f"{columns} images of each class of {split}"
    with whole_file(out) as temporary:
        sheet.save(temporary, "PNG" if out.suffix.lower() == ".png" else "JPEG")
    click.echo(f"{out}: {told}")


@data.command()
@click.argument("name_or_path", metavar="NAME|PATH")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
def export(name_or_path: str, out: Path) -> None:
    """Write a data set back as files: pictures in folders of splits and classes, or texts."""
    from datasets.export import export as write

    store = catalog.load(name_or_path)
    total = sum(store.counts.values()) if isinstance(store, ImageStore) else 0
    with steps(store.name, total=total, unit="image") as step:
        write(store, out, on_step=step)
    click.echo(f"{out}: {summary(store)}")
    if isinstance(store, ImageStore) and store.resize == "center_crop":
        click.echo("to keep how a model resizes pictures, import it with --fit crop", err=True)
    if isinstance(store, TextStore) and store.tokens != "word":
        click.echo(f"to keep what its tokens are, import it with --tokens {store.tokens}", err=True)


data.add_command(import_command)
