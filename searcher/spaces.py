"""The search spaces: one object each, which leads to all that there is of a space.

A space is a module of its name in each of four rooms: `arch/spaces/` (its decisions, sizes and documents), `nn/` (its
wiring), `views/` (costs and graphs of its networks), and `presets/` (its searches). To add one is to add these four:
what is in `arch/spaces/` is found there, and what needs torch is loaded when it is asked for.
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
    """What a module `nn/<space>.py` offers. options: see its network."""

    def build_shared(self, space: Any, size: Any, **options: Any) -> Any:
        """The supernet."""
        ...

    def build_fixed(self, architecture: Any, size: Any, *, form: str, **options: Any) -> Any:
        """The network of one architecture."""
        ...

    def make_operation(self, name: str, in_channels: int, out_channels: int, *, stride: int, norm: Any) -> Any:
        """One operation of the space by itself, for a probe of its latency; spaces of images alone have this.

        [B, in_channels, H, W] -> [B, out_channels, ⌈H/stride⌉, ⌈W/stride⌉].
        """
        ...


class View(Protocol):
    """What a module `views/<space>.py` offers: a network's parts, as `nn/complexity.py` and `report/graph.py` say."""

    def parts(self, spec: Spec) -> Iterator[Any]: ...

    def graphs(self, spec: Spec) -> tuple[Any, ...]: ...

    def outline(self, spec: Spec) -> tuple[Any, ...]: ...


class LatencyView(Protocol):
    """What a view offers beside, of a space of images, so that its networks' latency can be predicted."""

    def blocks(self, spec: Spec) -> Iterator[Any]:
        """The fused blocks of a network, see `latency/blocks.py`, from its input to its output."""
        ...

    def covering(self, space: Any) -> Iterator[Any]:
        """Architectures that between them have every block that any architecture of the space has."""
        ...

    def reference(self, architecture: Any, space: Any) -> Any | None:
        """A published architecture as a latency target names it, at the space's smallest maps; None: none does."""
        ...


class Presets(Protocol):
    """What a module `presets/<space>.py` offers."""

    @property
    def PRESETS(self) -> Mapping[str, Callable[..., Any]]:  # noqa: N802 - a constant, named as the modules name it
        """Functions by name; those of convolutional spaces take the image_size to which the stem is fitted."""
        ...

    @property
    def LATENCY(self) -> str | None:  # noqa: N802
        """What a deployed network is to take when the user does not say, see `latency/target.py`; None for any."""
        ...


@dataclass(frozen=True)
class SearchSpace:
    """A space: its decisions at once, all else when it is asked for."""

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
        """None where networks are not of images."""
        return cast(LatencyView, self.view) if self.arch.TASK_KIND == IMAGE_CLASSIFICATION else None

    @property
    def presets(self) -> Presets:
        return cast(Presets, import_module(f"searcher.presets.{self.name}"))


def search_space(name: str) -> SearchSpace:
    """The space of that name. Raises: ArchitectureError: there is none."""
    return SearchSpace(name, space_module(name))
