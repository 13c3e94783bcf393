"""The search spaces: one object each, with access to all modules of the space.

A space has a module with its name in each of four packages: `arch/spaces/` (its decisions, sizes and documents), `nn/`
(its wiring), `views/` (costs and graphs of its networks), and `presets/` (its searches). To add a space, add these four
modules: `arch/spaces/` is scanned for spaces, and modules that need torch are imported on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

from searcher.arch.space import SpaceModule, space_module
from searcher.arch.spec import Spec
from searcher.arch.tasks import IMAGE_CLASSIFICATION


class Wiring(Protocol):
    """The interface of a module `nn/<space>.py`. options: see its network."""

    def build_shared(self, space: Any, size: Any, **options: Any) -> Any:
        """The supernet."""
        ...

    def build_fixed(self, architecture: Any, size: Any, *, form: str, **options: Any) -> Any:
        """The network of one architecture."""
        ...

    def make_operation(self, name: str, in_channels: int, out_channels: int, *, stride: int, norm: Any) -> Any:
        """One operation of the space by itself, for measuring its latency; only image spaces have this.

        [B, in_channels, H, W] -> [B, out_channels, ⌈H/stride⌉, ⌈W/stride⌉].
        """
        ...


class View(Protocol):
    """The interface of a module `views/<space>.py`: the parts of `nn/complexity.py`, and the graphs and stages of
    `report/graph.py`.
    """

    def parts(self, spec: Spec) -> Iterator[Any]: ...

    def graphs(self, spec: Spec) -> tuple[Any, ...]: ...

    def outline(self, spec: Spec) -> tuple[Any, ...]: ...


class LatencyView(Protocol):
    """The additional interface of an image space's view, for predicting the latency of its networks."""

    def blocks(self, spec: Spec) -> Iterator[Any]:
        """The fused blocks of a network, see `latency/blocks.py`, from its input to its output."""
        ...

    def covering(self, space: Any) -> Iterator[Any]:
        """Architectures that together contain every block of any architecture of the space."""
        ...

    def reference(self, architecture: Any, space: Any) -> Any | None:
        """A published architecture as a latency target means it, with the space's smallest maps; None if no target may
        name one of this space.
        """
        ...


class Presets(Protocol):
    """The interface of a module `presets/<space>.py`."""

    @property
    def PRESETS(self) -> Mapping[str, Callable[..., Any]]:  # noqa: N802 - a constant, named as the modules name it
        """Functions by name; in convolutional spaces they take the image_size to which the stem is fitted."""
        ...

    @property
    def LATENCY(self) -> str | None:  # noqa: N802
        """The default latency target of a deployed network, see `latency/target.py`; None if there is none."""
        ...


@dataclass(frozen=True)
class SearchSpace:
    """A space: its decisions are loaded at once, everything else on first use."""

    name: str
    arch: SpaceModule

    @property
    def wiring(self) -> Wiring:
        return cast(Wiring, import_module(f"searcher.nn.{self.name}"))

    @property
    def view(self) -> View:
        return cast(View, import_module(f"searcher.views.{self.name}"))

    @property
    def latency_view(self) -> LatencyView | None:
        """None if the space is not for images."""
        return cast(LatencyView, self.view) if self.arch.TASK_KIND == IMAGE_CLASSIFICATION else None

    @property
    def presets(self) -> Presets:
        return cast(Presets, import_module(f"searcher.presets.{self.name}"))


def search_space(name: str) -> SearchSpace:
    """The space with this name. Raises: ArchitectureError: there is none."""
    return SearchSpace(name, space_module(name))
