"""Labels from a table: a CSV file of paths and labels, or metadata.csv and metadata.jsonl as Hugging Face has them.

    FILE.csv                                    paths are relative to its folder
    FOLDER/metadata.csv, or .jsonl              paths are relative to FOLDER
    FOLDER/{train,valid,test}/metadata.csv      the same, one table for each split

FOLDER may be inside folders that contain nothing else, and it may be a ZIP archive.
Splits come from a column of splits or, if all paths begin with folders named like splits, from these folders.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from datasets.sources.class_folders import Labelled
from datasets.splits import split_called
from datasets.store import StoreError
from datasets.store_format import SPLITS
from foundation.file_tree import File, Folder, Problem, parts_of
from foundation.pictures import PictureError, has_picture_suffix, read_file
from foundation.text import listed, printable

_PATH_COLUMNS = (
    "file_name",
    "filename",
    "file",
    "path",
    "file_path",
    "filepath",
    "image",
    "image_path",
    "img",
    "img_path",
)
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")
_SPLIT_COLUMNS = ("split", "subset", "partition")
_NAMES = ("metadata.csv", "metadata.jsonl")
SUFFIXES = (".csv", ".tsv", ".jsonl")

Columns = tuple[str, str]
"""The columns of paths and of labels."""
_Row = tuple[str, str, str | None]
"""Path, label, and the split if the table names one."""


class ColumnError(StoreError):
    """A table has no column of paths or labels that can be recognised."""


def find_tables(root: Folder) -> dict[str | None, tuple[Folder, File]]:
    """Returns split -> its folder and the table in it; the split is None for a table of the whole folder.

    Empty if there are no tables. A folder that contains only one folder, as archives often do, is skipped.
    Raises: StoreError: two tables belong to one split.
    """
    for name in _NAMES:
        if name in root.files:
            return {None: (root, root.files[name])}
    found: dict[str | None, tuple[Folder, File]] = {}
    for folder_name, folder in root.folders.items():
        split = split_called(folder_name)
        table = next((folder.files[name] for name in _NAMES if name in folder.files), None)
        if split and table:
            if split in found:
                both = " and ".join(printable(one.path) for one in (found[split][1], table))
                raise StoreError(f"{both} are both tables of the split {split}")
            found[split] = (folder, table)
    if not found and not root.files and len(root.folders) == 1:
        (inner,) = root.folders.values()
        return find_tables(inner)
    return found


def labelled_by_tables(
    root: Folder,
    tables: Mapping[str | None, tuple[Folder, File]],
    problems: list[Problem],
    *,
    columns: Columns | None = None,
) -> Labelled:
    """Returns the files listed in the tables of a folder.

    Args: problems: receives files that are listed but missing, and files that are not listed.
    Raises: StoreError: a table cannot be read, none of the listed files exists, or train is missing.
    """
    rows: list[tuple[File, str, str]] = []
    absent: list[Problem] = []
    not_listed = {id(file): file for file in root.all_files()}
    for split, (folder, table) in tables.items():
        not_listed.pop(id(table))
        for path, label, own_split in _rows(table, columns):
            file = folder.find(path)
            if file is None:
                absent.append((f"{folder.path}/{path}", f"no such file, though {table.path} lists it"))
                continue
            not_listed.pop(id(file), None)
            rows.append((file, label, own_split or split or "train"))
    where = next(iter(tables.values()))[1].path
    if not rows:
        first = printable(absent[0][0])
        raise StoreError(f"{printable(where)}: none of the {len(absent)} files that it lists is there (first: {first})")
    problems += [*absent, *((file.path, "no table lists it") for file in not_listed.values())]
    return _labelled(rows, where=where)


def labelled_by_table(source: Path, *, columns: Columns | None = None) -> Labelled:
    """Returns the files listed in a table; paths are relative to its folder. Raises: StoreError: it cannot be read."""
    table = File(str(source), partial(read_file, source))
    rows = []
    for path, label, split in _rows(table, columns):
        place = source.parent / path
        rows.append((File(str(place), partial(read_file, place)), label, split or "train"))
    return _labelled(rows, where=str(source))


def _labelled(rows: Sequence[tuple[File, str, str]], *, where: str) -> Labelled:
    classes = sorted({label for _, label, _ in rows}, key=_by_number)
    number = {name: place for place, name in enumerate(classes)}
    given: dict[str, list[tuple[File, int]]] = {}
    for split in SPLITS:
        members = [(file, number[label]) for file, label, held in rows if held == split]
        if members:
            given[split] = members
    if len(classes) < 2:
        raise StoreError(
            f"{printable(where)}: {len(classes)} classes, expected at least 2 ({listed(classes) or 'no row'})"
        )
    if "train" not in given:
        raise StoreError(f"{printable(where)}: has rows of {', '.join(given)}, but none of train")
    return Labelled(classes, given)


def _by_number(label: str) -> tuple[int, str]:
    """Sort key that puts label 2 before label 10."""
    return (int(label), "") if label.isascii() and label.isdigit() and len(label) < 16 else (1 << 62, label)


# --- reading a table -------------------------------------------------------------------------------------------------


def _rows(table: File, columns: Columns | None) -> Iterator[_Row]:
    where = printable(table.path)
    try:
        text = table.read().decode("utf-8-sig")
    except PictureError as error:
        raise StoreError(f"{where}: {error}") from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    if table.path.endswith(".jsonl"):
        records = list(_json_records(text, where))
    else:
        records = list(_csv_records(text, where, has_header=columns is not None))
    if not records:
        raise StoreError(f"{where}: holds no row")
    path_column, label_column, split_column = _columns([record for _, record in records], columns, where=where)
    paths = [(record.get(path_column) or "").replace("\\", "/") for _, record in records]
    outermost = [split_called(next(iter(parts_of(path)), "")) for path in paths]
    # If every path begins with the folder of a split, the folders replace a column of splits.
    has_splits_in_paths = split_column is None and all(outermost)
    for (line, record), path, split in zip(records, paths, outermost, strict=True):
        label = record.get(label_column)
        if not path or not label:
            raise StoreError(f"{where}: line {line} has no {label_column if path else path_column}")
        if not has_splits_in_paths:
            value = record.get(split_column) if split_column else None
            split = split_called(value) if value else None
            if value and split is None:
                raise StoreError(
                    f"{where}: line {line} has the split '{printable(value)}'; expected {', '.join(SPLITS)}"
                )
        yield path, label, split


def _columns(
    records: Sequence[Mapping[str, str]], columns: Columns | None, *, where: str
) -> tuple[str, str, str | None]:
    """Returns the columns of paths, labels and splits: the given ones, else those with the usual names.

    JSON lines may omit some columns; a column that every line has takes precedence.
    Raises: ColumnError: there is no column of paths or labels.
    """
    found = list(dict.fromkeys(name for record in records for name in record))
    complete = [name for name in found if all(name in record for record in records)]
    by_name = {name.strip().lower(): name for name in found}

    def first(names: Sequence[str]) -> str | None:
        present = [by_name[name] for name in names if name in by_name]
        return next((name for name in present if name in complete), next(iter(present), None))

    wanted = ((columns[0].lower(),), (columns[1].lower(),)) if columns else (_PATH_COLUMNS, _LABEL_COLUMNS)
    path, label = first(wanted[0]), first(wanted[1])
    if path is None or label is None:
        missing = "paths" if path is None else "labels"
        raise ColumnError(
            f"{where}: no column of {missing}: it has {listed(found)}, "
            f"expected {' or '.join(wanted[path is not None])}; name both with --columns PATHS,LABELS"
        )
    return path, label, first(_SPLIT_COLUMNS)


def _csv_records(text: str, where: str, *, has_header: bool) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line number and fields of every row after the header, which names the columns.

    Args: has_header: the first row is a header; if not set, it is one unless it begins with the name of a picture.
    """
    first_line = text.partition("\n")[0].strip("\r")
    delimiter = max(",;\t", key=first_line.count)
    fields = first_line.split(delimiter)
    is_row = not has_header and has_picture_suffix(fields[0].strip(' "'))
    names = ("path", "label", "split")[: len(fields)] if is_row else None
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=delimiter, fieldnames=names, restval="", strict=True
    )
    try:
        for record in reader:
            yield reader.line_num, {name: value.strip() for name, value in record.items() if isinstance(name, str)}
    except csv.Error as error:
        raise StoreError(f"{where}: line {reader.line_num}: {error}") from error


def _json_records(text: str, where: str) -> Iterator[tuple[int, dict[str, str]]]:
    # Not splitlines, which also splits at characters that a JSON string may hold, such as U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise StoreError(f"{where}: line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise StoreError(f"{where}: line {number} is not a JSON object")
        yield number, {str(name): "" if value is None else str(value) for name, value in record.items()}
