"""Checks that a file is a valid store, and lists its problems; `store.py` describes the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import h5py
import numpy as np

from datasets.tokens import Tokens
from foundation.pictures import Resize
from foundation.text import shape_text

SPLITS = ("train", "valid", "test")
FORMAT = "enas-data-set"
VERSION = 1


def problems_of(file: h5py.File) -> list[str]:
    """Lists all reasons why an open file is not a complete and consistent store; pixels are not read."""
    problems = _header_problems(file)
    if problems:
        return problems
    return _image_problems(file) if file.attrs["kind"] == "images" else _text_problems(file)


def _header_problems(file: h5py.File) -> list[str]:
    attributes = file.attrs
    if attributes.get("format") != FORMAT:
        return ["an HDF5 file, but not a data set store of ours"]
    if attributes.get("version") != VERSION:
        return [f"store version {attributes.get('version')}, but this program reads version {VERSION}"]
    if not attributes.get("complete", False):
        return ["not finished: its writing was interrupted"]
    problems = [f"attribute '{key}' is missing" for key in ("name", "source", "licence") if key not in attributes]
    if attributes.get("kind") not in ("images", "text"):
        problems.append(f"kind is {attributes.get('kind')!r}, expected 'images' or 'text'")
    if "train" not in file:
        problems.append("it has no split 'train'")
    for split in (split for split in SPLITS if split in file):
        if not isinstance(file[split], h5py.Group):
            problems.append(f"'{split}' is not a group")
        elif "sha256" not in file[split].attrs:
            problems.append(f"{split}: attribute 'sha256' is missing")
    return problems


def _image_problems(file: h5py.File) -> list[str]:
    problems = _string_list_problems(file, "classes")
    if file.attrs.get("resize") not in get_args(Resize):
        problems.append(f"resize is {file.attrs.get('resize')!r}, expected one of {', '.join(get_args(Resize))}")
    num_classes = len(file["classes"]) if not problems else 0
    shapes = {}
    for split in (split for split in SPLITS if split in file):
        missing = [name for name in ("images", "labels") if not isinstance(file[split].get(name), h5py.Dataset)]
        if missing:
            problems.append(f"{split}: no dataset {' and no dataset '.join(missing)}")
            continue
        images, labels = file[split]["images"], file[split]["labels"]
        if images.dtype != np.uint8 or images.ndim != 4:
            problems.append(f"{split}/images is {images.dtype} with {images.ndim} axes, expected uint8 [N, H, W, C]")
        else:
            shapes[split] = images.shape[1:]
        if labels.dtype != np.int64 or labels.ndim != 1:
            problems.append(f"{split}/labels is {labels.dtype} with {labels.ndim} axes, expected int64 [N]")
        elif len(images) != len(labels):
            problems.append(f"{split} has {len(images)} images but {len(labels)} labels")
        elif len(labels) == 0:
            problems.append(f"{split} is empty")
        elif num_classes and not 0 <= labels[:].min() <= labels[:].max() < num_classes:
            problems.append(
                f"{split}/labels run from {labels[:].min()} to {labels[:].max()}, but there are {num_classes} classes"
            )
    if len(set(shapes.values())) > 1:
        problems.append(f"splits differ in image size: {_listed_shapes(shapes)}")
    for key in ("mean", "std"):
        values = np.asarray(file["train"].attrs.get(key, ()))
        if "train" in shapes and (values.shape != shapes["train"][-1:] or not np.isfinite(values).all()):
            problems.append(f"train: attribute '{key}' must hold one finite number a channel")
        elif key == "std" and not (values > 0).all():
            problems.append("train: attribute 'std' must be above 0")
    return problems


def _text_problems(file: h5py.File) -> list[str]:
    problems = _string_list_problems(file, "vocabulary")
    num_words = len(file["vocabulary"]) if not problems else 0
    if file.attrs.get("tokens", "word") not in get_args(Tokens):
        problems.append(f"tokens is {file.attrs['tokens']!r}, expected one of {', '.join(get_args(Tokens))}")
    for split in (split for split in SPLITS if split in file):
        tokens = file[split].get("tokens")
        if not isinstance(tokens, h5py.Dataset) or tokens.dtype not in (np.uint16, np.uint32) or tokens.ndim != 1:
            problems.append(f"{split}/tokens is not a dataset uint16 [N] or uint32 [N]")
        elif len(tokens) == 0:
            problems.append(f"{split} is empty")
        elif num_words and tokens[:].max() >= num_words:
            problems.append(f"{split}/tokens reach {tokens[:].max()}, but the vocabulary has {num_words} words")
    return problems


def _string_list_problems(file: h5py.File, name: str) -> list[str]:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset) or h5py.check_string_dtype(dataset.dtype) is None or dataset.ndim != 1:
        return [f"'{name}' is not a dataset of strings"]
    return [] if len(dataset) else [f"'{name}' is empty"]


def _listed_shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{split} {shape_text(shape)}" for split, shape in shapes.items())
