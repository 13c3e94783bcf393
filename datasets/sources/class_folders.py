"""Labels from folders: one folder for each class, optionally inside one folder for each split.

    FOLDER/<class>/**
    FOLDER/{train,valid,test}/<class>/**      under any of the splits' usual names

A folder of another form is rejected with a message that lists its content, so that nothing is trained on wrong labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets.splits import split_called
from datasets.store import StoreError
from datasets.store_format import SPLITS
from foundation.file_tree import File, Folder, Problem
from foundation.text import is_utf8, listed, printable

_OF_PICTURES = {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "rgb", "jpegimages"}
_OF_ANSWERS = {
    "mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations",
    "segmentationclass", "gt", "groundtruth", "ground_truth", "bboxes", "boxes",
}  # fmt: skip
_WAY_OUT = "give the folder that holds one folder a class, or take these as the classes with --as-classes"


@dataclass
class Labelled:
    """Files with their classes."""

    classes: Sequence[str]
    given: dict[str, list[tuple[File, int]]]
    """Split -> its files, each with the index of its class; a source without splits is all train."""


def labelled_by_folders(root: Folder, problems: list[Problem], *, as_classes: bool = False) -> Labelled:
    """Returns the files of each class and split.

    Args: problems: receives the files that are in no class. as_classes: always take the folders, or those in the
        folders of splits, as classes.
    Raises: StoreError: the folders have neither form, or, without `as_classes`, look like something else.
    """
    root = _below_wrappers(root)
    roots = _split_folders(root, problems, as_classes=as_classes)
    classes = list(roots["train"].folders)
    where = printable(roots["train"].path)
    if len(classes) < 2:
        raise StoreError(f"{where}: {len(classes)} class folders, expected one for each of at least 2 classes")
    for name in classes:
        if not is_utf8(name):
            raise StoreError(f"{where}: the class folder '{printable(name)}' has a name that is not UTF-8; rename it")
    if not as_classes:
        _refuse_other_forms(roots["train"], where)
    given = {}
    for split, folder in roots.items():
        strange = [name for name in folder.folders if name not in classes]
        if strange:
            names = ", ".join(map(printable, strange[:5]))
            raise StoreError(f"{printable(folder.path)}: classes that train does not have: {names}")
        given[split] = [
            (file, label)
            for label, name in enumerate(classes)
            if name in folder.folders
            for file in folder.folders[name].all_files()
        ]
        problems += [(file.path, "lies beside the class folders, in none of them") for file in folder.files.values()]
    return Labelled(classes, given)


def _below_wrappers(root: Folder) -> Folder:
    """Skips folders that contain only one folder, because an archive often has one folder around everything."""
    while len(root.folders) == 1 and not root.files:
        (name, inner), *_ = root.folders.items()
        if not inner.folders or split_called(name):
            break
        root = inner
    return root


def _split_folders(root: Folder, problems: list[Problem], *, as_classes: bool) -> dict[str, Folder]:
    """Returns split -> its folder, in the order of SPLITS; if there are no splits, the root is train.

    Raises: StoreError: without `as_classes`, folders have names of splits, but do not form one split each.
    """
    named = {name: split for name in root.folders if (split := split_called(name))}
    # A class may be called `train`, beside `car` and `plane`: only the folder of a split contains folders.
    holders = {name: split for name, split in named.items() if root.folders[name].folders}
    problem = _problem_of_splits(root, named, holders)
    if problem and not as_classes:
        raise StoreError(f"{printable(root.path)}: {problem}; if all folders are classes, add --as-classes")
    if problem or not holders:
        return {"train": root}
    problems += [(file.path, "lies beside the folders of splits") for file in root.files.values()]
    return {split: root.folders[name] for split in SPLITS for name, held in holders.items() if held == split}


def _problem_of_splits(root: Folder, named: Mapping[str, str], holders: Mapping[str, str]) -> str | None:
    """Returns why folders with names of splits do not form one split each; None if they do, or if they are classes.

    Args: named: folder name -> split. holders: the entries of `named` whose folders contain folders.
    """
    if not holders:
        if named and len(named) == len(root.folders):
            return (
                f"{_counted(root.folders)} are names of splits, but hold no class folders, so the "
                "labels of their files are unknown; if a table has them, import that: a CSV file of paths and labels"
            )
        return None
    if "train" not in holders.values():
        first = next(iter(holders))
        return f"has a folder '{printable(first)}' but no folder 'train'"
    beside = [name for name in root.folders if name not in holders]
    if beside:
        return (
            f"folders of splits ({', '.join(holders)}) and others beside them "
            f"({', '.join(map(printable, beside[:5]))}); expected either one folder a class, or train, valid and test "
            "with one folder a class inside each"
        )
    for split in SPLITS:
        names = [name for name, held in holders.items() if held == split]
        if len(names) > 1:
            return f"{listed(names)} are all names of the split {split}"
    return None


def _refuse_other_forms(folder: Folder, where: str) -> None:
    """Raises: StoreError: the class folders are a level deeper, or the folders are pictures and their annotations."""
    inside = list(folder.folders.values())
    shared = set(inside[0].folders).intersection(*(part.folders for part in inside))
    if shared and not any(part.files for part in inside):
        raise StoreError(
            f"{where}: {_counted(folder.folders)} hold no files themselves, but all hold folders of the same names "
            f"({listed(sorted(shared))}), so they do not look like classes; {_WAY_OUT}"
        )
    names = {name.lower() for name in folder.folders}
    if names & _OF_PICTURES and names & _OF_ANSWERS:
        raise StoreError(
            f"{where}: {_counted(folder.folders)} look like pictures and their annotations, not classes; {_WAY_OUT}"
        )


def _counted(folders: Mapping[str, Folder], limit: int = 5) -> str:
    """Lists folders with their number of files: `photos (12 files), samples (12 files)`."""
    texts = [f"{printable(name)} ({sum(1 for _ in folder.all_files())} files)" for name, folder in folders.items()]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if len(texts) > limit else "")
