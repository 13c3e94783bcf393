"""Targets in this process: the models of the command line, and the peers that they are compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import click
import numpy as np

from foundation.options import OptionError
from foundation.packages import needs
from runtime.benchmarking.targets import Facts, FunctionTarget, OnnxTarget, Target, Transfer
from runtime.models.inputs import TensorSpec
from runtime.models.providers import Provider, Tuning

EAGER, COMPILED = "torch eager", "torch.compile"

_Made = TypeVar("_Made")


class Peers(Protocol):
    """Makes the peers of a model; passed in by the command line, so that nothing here imports torch."""

    def torch_network(self, run: Path, *, threads: int, device: str, compiled: bool) -> Callable[..., np.ndarray]: ...

    def references(self, *, image_shape: tuple[int, int, int], num_classes: int) -> Mapping[str, bytes]: ...


class LocalTargets:
    """Makes the targets of this process, anew for every number of threads."""

    def __init__(
        self,
        models: Sequence[str],
        *,
        provider: Provider,
        tuning: Tuning,
        transfer: Transfer,
        peers: Peers | None,
        compared: Sequence[str],
        with_references: bool,
    ) -> None:
        self._models = models
        self._provider = provider
        self._tuning = tuning
        self._transfer = transfer
        self._peers = peers
        self._compared = compared
        self._with_references = with_references
        self._is_announced = False

    def __call__(self, threads: int | None) -> Sequence[Target]:
        assert threads is not None
        targets = [self._load(name, Path(path), threads) for name, path in _distinct(self._models)]
        if not self._is_announced:
            _announce(targets)
            self._is_announced = True
        references = self._references(targets[0], threads) if self._with_references else []
        return [*targets, *references, *(self._torch(name, targets, threads) for name in self._compared)]

    def _load(self, name: str, source: Path | bytes, threads: int, *, note: str | None = None) -> OnnxTarget:
        return OnnxTarget.load(
            name,
            source,
            provider=self._provider,
            threads=threads,
            tuning=self._tuning,
            transfer=self._transfer,
            note=note,
        )

    def _references(self, like: OnnxTarget, threads: int) -> list[OnnxTarget]:
        flag = "--compare-reference"
        match like.inputs, like.num_classes:
            case (TensorSpec("images", shape=(_, int(height), int(width), int(channels))),), int(num_classes):
                shape = (height, width, channels)
            case _:
                raise OptionError(f"{flag} takes an image classifier of `enas export`; {like.name} is none")
        peers = self._needed_peers(flag)
        models = _with_torch(flag, lambda: peers.references(image_shape=shape, num_classes=num_classes))
        return [self._load(name, data, threads, note="untrained") for name, data in models.items()]

    def _torch(self, name: str, targets: Sequence[OnnxTarget], threads: int) -> Target:
        flag = {EAGER: "--compare-torch", COMPILED: "--compare-compiled"}[name]
        run = run_of(self._models)
        if run is None:
            raise OptionError(f"{flag} needs a run directory, where the torch network is; {self._models[0]} is a file")
        like = next(target for model, target in zip(self._models, targets, strict=True) if Path(model) == run)
        peers = self._needed_peers(flag)
        predict = _with_torch(
            flag,
            lambda: peers.torch_network(run, threads=threads, device=like.provider, compiled=name == COMPILED),
        )
        return FunctionTarget(name, like.inputs, like.limits, Facts(runs_on=like.provider.upper()), predict)

    def _needed_peers(self, flag: str) -> Peers:
        if self._peers is None:
            raise OptionError(f"{flag} works from the command line `enas` only")
        return self._peers


def _with_torch(flag: str, make: Callable[[], _Made]) -> _Made:
    try:
        return make()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "exporter":
            raise
        raise OptionError(f"{flag} {needs(error.name)}") from error


def _distinct(models: Sequence[str]) -> list[tuple[str, str]]:
    """Returns pairs of name and path; the name is the path as typed, with a number if it is repeated."""
    seen: Counter[str] = Counter()
    names = []
    for path in models:
        seen[path] += 1
        names.append((path if seen[path] == 1 else f"{path} #{seen[path]}", path))
    return names


def _announce(targets: Sequence[Target]) -> None:
    """Prints to stderr where models run."""
    for facts in dict.fromkeys((t.facts.runs_on, t.facts.provider_remark) for t in targets):
        runs_on, remark = facts
        click.echo(f"runs on {runs_on}" + (f" ({remark})" if remark else ""), err=True)


def run_of(models: Sequence[str]) -> Path | None:
    """Returns the first model that is a run directory, or None."""
    return next((path for model in models if (path := Path(model)).is_dir()), None)
