"""A spec for another data set: the same architecture for other pictures and classes, or another vocabulary."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

from searcher.arch.errors import ArchitectureError
from searcher.arch.space import SPACES, ImageSpaceModule
from searcher.arch.spec import Spec
from searcher.arch.stems import stem_stride
from searcher.arch.tasks import Task, image_size_of


def retarget(spec: Spec, task: Task) -> Spec:
    """Returns the spec with another task of the same kind.

    The stem's stride is adapted to the pictures: it is the smallest with which the first layers get a map no larger
    than in the spec. So a network for 32 pixels, stride 1, has stride 1 for 28 pixels and stride 8 for 224.
    Raises: ArchitectureError: the spec's space does not support this kind of task.
    """
    if task.kind != spec.task.kind:
        raise ArchitectureError("task", [f"{spec.space} networks are for {spec.task.kind}, not for {task.kind}"])
    before, after = image_size_of(spec.task), image_size_of(task)
    if before is None or after is None or before == after:
        return replace(spec, task=task)
    largest_map = math.ceil(before / _space_of_images(spec).stem_stride_of(spec.architecture, spec.network))
    return with_stem_stride(replace(spec, task=task), stem_stride(after, largest_map=largest_map))


def with_stem_stride(spec: Spec, stride: int) -> Spec:
    """The same image network with another stride of its stem."""
    architecture, network = _space_of_images(spec).with_stem_stride(spec.architecture, spec.network, stride)
    return replace(spec, architecture=architecture, network=network)


def with_larger_maps(spec: Spec) -> Spec | None:
    """The same network on maps twice as large per side; None if the stem has stride 1 already."""
    stride = _space_of_images(spec).stem_stride_of(spec.architecture, spec.network)
    return with_stem_stride(spec, stride // 2) if stride > 1 else None


def _space_of_images(spec: Spec) -> ImageSpaceModule:
    """The module of the spec's space, which is one of images."""
    return cast(ImageSpaceModule, SPACES[spec.space])
