"""Classifies pictures: each readable picture gets an answer, each other picture a reason for the failure."""

# B batch, H height, W width, C channels

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from foundation.file_tree import File, Problem, TreeError, read_tree
from foundation.parallel import in_order
from foundation.pictures import Picture, PictureError, has_picture_suffix, read_file, read_header
from foundation.text import is_utf8, printable
from runtime.models.classes import top_classes
from runtime.models.images import ImageError, Preprocess, prepare_file
from runtime.models.model import Model

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Answer:
    """The model's prediction for a picture."""

    image: str
    """Its path."""
    best: list[tuple[str, float]]
    """The likeliest classes and their probabilities."""
    remark: str | None
    """How the decoded picture differs from the stored file; None if it does not."""


@dataclass(frozen=True)
class Failure:
    """A picture without an answer."""

    image: str
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.image}: {self.reason}")


def find_pictures(paths: Sequence[Path], problems: list[Problem]) -> list[File]:
    """Returns the named files, and the pictures in the named folders.

    A file in a folder counts as a picture by its suffix or by its content. problems: receives what cannot be read.
    Raises: ImageError: there is no picture.
    """
    files = []
    for path in paths:
        if not path.is_dir():
            files.append(File(str(path), partial(read_file, path)))
            continue
        try:
            inside = read_tree(path, problems).all_files()
        except TreeError as error:
            raise ImageError(str(error)) from error
        files += [file for file in inside if has_picture_suffix(file.path) or _is_picture(file)]
    if not files and not problems:
        raise ImageError(f"{', '.join(printable(str(path)) for path in paths)}: holds no picture")
    return files


def predictions(model: Model, files: Sequence[File], *, top: int) -> Iterator[Answer | Failure]:
    """Yields the prediction for each file, in order, one batch at a time; several threads decode the pictures."""
    decoded = in_order(partial(_decoded, preprocess=model.preprocess), files)
    while batch := list(islice(decoded, _BATCH_SIZE)):
        pictures = [picture for _, picture in batch if isinstance(picture, Picture)]
        pixels = [picture.pixels for picture in pictures]
        probabilities = iter(model.predict(np.stack(pixels)).probabilities if pixels else ())  # rows [K]
        for file, picture in batch:
            if not isinstance(picture, Picture):
                yield Failure(file.path, picture)
                continue
            row = next(probabilities)
            if not np.isfinite(row).all():
                yield Failure(file.path, "the model answers with numbers that are not finite")
                continue
            best = [(model.classes[k], float(row[k])) for k in top_classes(row, top=top)]
            yield Answer(file.path, best, picture.remark)


def _decoded(file: File, *, preprocess: Preprocess) -> tuple[File, Picture | str]:
    """Returns the file with its picture as the model takes it, or with the reason why it cannot be read."""
    try:
        return file, prepare_file(file.read(), preprocess=preprocess)
    except PictureError as error:
        return file, str(error)


def _is_picture(file: File) -> bool:
    try:
        read_header(file.read())
    except PictureError:
        return False
    return True


# --- how answers are written ------------------------------------------------------------------------------------------


def document(answers: Sequence[Answer], failures: Sequence[Failure], *, model: Model) -> dict[str, Any]:
    """Returns predictions and failures as JSON types, for programs."""
    return {
        "schema": 1,
        "kind": "predictions",
        "file": str(model.path),
        "sha256": model.sha256,
        "predictions": [
            {
                "image": answer.image,
                "classes": [{"class": name, "probability": value} for name, value in answer.best],
                **({"remark": answer.remark} if answer.remark else {}),
            }
            for answer in answers
        ],
        "failures": [{"image": failure.image, "error": failure.reason} for failure in failures],
    }


def as_table(answers: Sequence[Answer], *, top: int) -> str:
    """Returns CSV, for spreadsheets: one row for each picture, with its likeliest classes from left to right."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    later = [f"{name}_{place}" for place in range(2, top + 1) for name in ("class", "probability")]
    writer.writerow(["image", "class", "probability", *later])
    for answer in answers:
        image = answer.image if is_utf8(answer.image) else printable(answer.image)
        writer.writerow([image, *(cell for name, value in answer.best for cell in (name, f"{value:.6f}"))])
    return buffer.getvalue()


def as_text(answers: Sequence[Answer]) -> str:
    """Returns text, for people: one line for each picture."""
    width = max(len(printable(answer.image)) for answer in answers)
    return "\n".join(
        f"{printable(answer.image):{width}}  "
        + "  ".join(f"{printable(name)} {value:.1%}" for name, value in answer.best)
        for answer in answers
    )
