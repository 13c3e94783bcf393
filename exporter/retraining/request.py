"""Turns the user's options for a retraining into a request: spec, data, and a configuration for each model."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch

from exporter.retraining.config import RetrainConfig, config_types
from exporter.retraining.presets import retrain_preset
from exporter.retraining.retrain import check_task, open_teachers
from exporter.retraining.text import task_text
from foundation.allowance import usable_memory
from foundation.document import ConfigError
from searcher.arch.catalog import find_spec
from searcher.arch.limits import MAX_WIDTH
from searcher.arch.retarget import retarget
from searcher.arch.spec import Spec, spec_digest
from searcher.arch.tasks import LANGUAGE_MODELLING
from searcher.arch.widths import MULTIPLE, has_one_width, is_same_network, scaled, widths
from searcher.lineage import is_lstm_of
from searcher.nn.complexity import complexity_of
from searcher.running.run_folder import Opening, RunError, RunFolder, read_toml
from searcher.running.settings import Settings
from searcher.training.image_learner import ImageTraining
from searcher.training.mirroring import FLIP, decide_flip
from searcher.training.task_kinds import Store, check_images, check_training, load_store, load_store_of, task_of

Model = Literal["spec", "lstm"]
T = TypeVar("T")
_LEAST_BYTES = 8
"""Least memory that training needs for a parameter: a weight and its gradient in float32."""


@dataclass(frozen=True, kw_only=True)
class RetrainOptions:
    """The user's options for a retraining, as in `enas retrain`; None: not given."""

    source: Path
    """A run directory, a spec file, or the name of a published spec."""
    run_path: Path | None = None
    """Where to train, if not in the run that `source` is."""
    preset: str | None = None
    config_file: Path | None = None
    assignments: tuple[str, ...] = ()
    """Each KEY=VALUE."""
    dataset: str | None = None
    """The data set that the spec is re-targeted to."""
    channels: int | None = None
    cells: int | None = None
    hidden_size: int | None = None
    skip_merge: Literal["sum", "concat", "residual"] | None = None
    teachers: tuple[Path, ...] = ()
    epochs: int | None = None
    seed: int | None = None
    class_weights: Literal["none", "balanced"] | None = None
    lstm: bool | None = None
    """For text: whether to train torch's LSTM as well; None: yes."""
    memory_budget_mb: int | None = None
    flip: bool | None = None
    threads: int | None = None
    begun: Spec | None = None
    """The spec that the retraining began with, used if it differs from the source's only in sizes or data."""

    @property
    def going_on(self) -> RetrainOptions:
        """These options, filled in from the spec and the configuration that the run began with.

        The configuration is not used if the options name another preset, which it would not fit. Another network or
        other data are detected when the run is opened.
        """
        run = self.run_path or self.source
        folder = RunFolder(run / "retrain")
        if not folder.begun:
            return self
        sizes = (self.channels, self.cells, self.hidden_size, self.skip_merge)
        of_begun = self if (self.dataset, *sizes) != (None,) * 5 else replace(self, begun=_begun_spec(run))
        if self.config_file is not None:
            return of_begun
        if self.preset not in (None, read_toml(folder.config_path).get("preset")):
            return of_begun
        lstm = self.lstm
        if lstm is None:
            beside = RunFolder(run / "retrain-lstm")
            lstm = beside.begun and is_lstm_of(read_toml(folder.config_path), read_toml(beside.config_path))
        return replace(of_begun, config_file=folder.config_path, lstm=lstm)


@dataclass(frozen=True)
class RetrainRequest:
    """A retraining: the network, its data, where to train and how."""

    spec: Spec
    store: Store
    run_path: Path
    config: RetrainConfig
    """For the spec's network; that of the LSTM beside it differs only in `model`."""
    models: tuple[Model, ...]

    @property
    def folders(self) -> dict[Model, Path]:
        """The run folder of each model."""
        return {model: self.run_path / ("retrain" if model == "spec" else f"retrain-{model}") for model in self.models}

    @property
    def configs(self) -> dict[Model, RetrainConfig]:
        return {model: replace(self.config, model=model) for model in self.models}

    def check_size(self, *, again: str) -> None:
        """Raises: RunError: the run began with this network at another size, for other data, or as an earlier search or
        derivation chose it. Comparing configurations would only report other digests. again: see `Opening`."""
        begun = _begun_spec(self.run_path)
        if begun is None or spec_digest(begun) == self.config.spec_sha256 or not is_same_network(begun, self.spec):
            return
        if replace(begun, provenance=self.spec.provenance) == self.spec:
            how, without = "of this very network, chosen before as well", ""
        else:
            how = "of this network at another size or for other data"
            without = ", without other --channels, --cells, --hidden-size, --skip-merge or --dataset"
        resume = f"`enas retrain {shlex.quote(str(self.run_path))} --resume`"
        raise RunError(
            f"{self.folders['spec']} is {how}: go on with {resume}{without}, or start anew with `{again} --force`"
        )

    def with_examined_teachers(
        self, *, device: torch.device, opening: Opening, say: Callable[[str], object]
    ) -> RetrainRequest:
        """The request with the digests of its teachers, which are opened once and whose accuracy is reported to `say`.

        If all trainings are finished, the teachers may be gone: the recorded ones stay. Raises: as `Teachers`.
        """
        config, begun = self.config, RunFolder(self.folders["spec"])
        if begun.begun and not opening.force:
            config = replace(config, teacher=config.teacher.begun_in(begun.config_path) or config.teacher)
        if opening.resume and all(RunFolder(path).finished for path in self.folders.values()):
            return replace(self, config=config)
        examined = open_teachers(config, self.store, device=device)
        if examined is None:
            return self
        for one in examined.examined:
            say(str(one))
        return replace(self, config=replace(self.config, teacher=examined.config))


def retrain_request(options: RetrainOptions, *, say: Callable[[str], object]) -> RetrainRequest:
    """The request that the options make, with the data set opened. say: takes a line for the user.

    Raises: ArchitectureError, ConfigError, DocumentError, RunError, StoreError: an option is invalid.
    """
    spec, run_path = _spec_and_run(options.source, options.run_path)
    if options.begun is not None and is_same_network(options.begun, spec):
        spec = options.begun
    spec = _resized(spec, options)
    spec, store = with_data(spec, options.dataset, say=say)
    _check_memory(spec)
    settings = Settings.read(options.config_file, options.assignments)
    if "search_space" in settings.table:
        raise ConfigError(f"{settings.file} is a search's; a retraining takes that of another, RUN/retrain/config.toml")
    preset = preset_of(spec, settings, options.preset)
    config = settings.apply(retrain_preset(spec.space, preset), types=config_types(spec.space))
    config = config.for_epochs(options.epochs, is_min_steps_own=settings.has("min_steps"))
    seed = options.seed
    if seed is None and not settings.has("seed"):
        seed = provenance_of(spec, "seed", int)
    models: tuple[Model, ...] = ("spec",)
    if options.lstm is not False and spec.task.kind == LANGUAGE_MODELLING:
        models = ("spec", "lstm")
    config = replace(
        config,
        spec_sha256=spec_digest(spec),
        dataset_sha256=store.digest,
        memory_budget_mb=options.memory_budget_mb or config.memory_budget_mb,
        seed=config.seed if seed is None else seed,
        # Each of several trainings uses one thread, whether they run side by side or not.
        threads=options.threads or config.threads or int(len(models) > 1),
    )
    if options.class_weights is not None:
        config = _with_class_weights(config, options.class_weights)
    config = suited_to(
        spec,
        store,
        config,
        flip=options.flip,
        is_own=settings.has(FLIP),
        run=options.source if options.source.is_dir() else run_path,
        say=say,
    )
    teacher = config.teacher.of_any_file
    if options.teachers:
        teacher = replace(teacher, models=tuple(map(str, options.teachers)))
    config = replace(config, teacher=teacher)
    return RetrainRequest(spec, store, run_path, config, models)


def preset_of(spec: Spec, settings: Settings, preset: str | None) -> str:
    """The preset to train a spec with: the user's, else that of its search, which the spec names, else quick."""
    return settings.name("preset", preset) or provenance_of(spec, "preset", str) or "quick"


def provenance_of(spec: Spec, key: str, kind: type[T]) -> T | None:
    """An entry of the spec's provenance; None if it is missing or of another type."""
    value = spec.provenance.get(key)
    return value if type(value) is kind else None


def _spec_and_run(source: Path, run_path: Path | None) -> tuple[Spec, Path]:
    """The spec to train and the run directory to train it in."""
    if source.is_dir():
        search = RunFolder(source / "search")
        if search.begun and not search.finished:
            again = f"`enas search --run {shlex.quote(str(source))} --resume`"
            raise RunError(f"{source}: the search is not finished; go on with it: {again}")
    spec = find_spec(source)
    if run_path is None:
        if source.is_dir():
            return spec, source
        raise RunError("say where to train this spec: --run DIRECTORY")
    if (run_path / "spec.json").exists() and not is_same_network(find_spec(run_path), spec):
        raise RunError(f"{run_path} is for another network, that of its spec.json; train this one in another --run")
    return spec, run_path


def _begun_spec(run: Path) -> Spec | None:
    """The spec that the retraining of a run trains; None if there is none. Raises: ArchitectureError: it is damaged."""
    path = run / "retrain" / "spec.json"
    return find_spec(path) if path.exists() else None


def _resized(spec: Spec, options: RetrainOptions) -> Spec:
    """The spec with the sizes a user gave. Raises: ConfigError: networks of its space have no such size."""
    channels = options.channels
    if channels is not None and _has_widths_of_its_own(spec):
        spec, channels = _widened(spec, channels), None
    sizes: dict[str, int | str | None] = {
        "channels": channels,
        "cells": options.cells,
        "hidden_size": options.hidden_size,
        "skip_merge": options.skip_merge,
    }
    given = {name: value for name, value in sizes.items() if value is not None}
    for name in given:
        if not hasattr(spec.network, name):
            raise ConfigError(f"--{name.replace('_', '-')} is not for {spec.space} networks")
    return replace(spec, network=replace(spec.network, **given))


def _has_widths_of_its_own(spec: Spec) -> bool:
    """Whether the parts of an architecture, such as stages, have their own widths, instead of one for the network."""
    return bool(widths(spec)) and not has_one_width(spec.network)


def _widened(spec: Spec, channels: int) -> Spec:
    """The spec with all of its widths scaled alike, so that the first is `channels`. Raises: ConfigError."""
    if channels % MULTIPLE:
        raise ConfigError(f"--channels is {channels}; widths of {spec.space} networks are multiples of {MULTIPLE}")
    first, widest = widths(spec)[0], max(widths(spec))
    if channels * widest > MAX_WIDTH * first:
        raise ConfigError(f"--channels is {channels:,}; above {MAX_WIDTH * first // widest:,} this spec is too wide")
    return scaled(spec, channels / first)


def with_data(spec: Spec, dataset: str | None, *, say: Callable[[str], object]) -> tuple[Spec, Store]:
    """The spec for a data set, by default its own, and the data set.

    Raises: StoreError: the data set is missing, or the spec's own does not fit the spec.
    """
    store = load_store(dataset, space=spec.space) if dataset else load_store_of(spec)
    if dataset is None:
        check_task(spec, store, cure=f"; `--dataset {shlex.quote(spec.task.dataset)}` makes a network for what it has")
        return spec, store
    made = retarget(spec, task_of(store, dataset=dataset))
    if made.task != replace(spec.task, dataset=dataset):
        say(f"a network for {task_text(made.task)}; the spec is for {task_text(spec.task)}")
    return made, store


def suited_to(
    spec: Spec,
    store: Store,
    config: RetrainConfig,
    *,
    flip: bool | None,
    is_own: bool,
    run: Path,
    say: Callable[[str], object],
) -> RetrainConfig:
    """The configuration with mirroring decided for the store's pictures, see `decide_flip`, and checked.

    Args: spec: made for the store. run: its search, if on the same data set, is taken into account.
    Raises: ConfigError: networks of the spec's space lack what the training uses. AugmentationError: see
    `check_images`.
    """
    without = _searched_without_flip(run, store, dataset=spec.task.dataset)
    config = decide_flip(config, store, flip=flip, is_own=is_own, searched_without=without, say=say)
    check_training(spec.space, config.training)
    check_images(config.training, store)
    return config


def _check_memory(spec: Spec) -> None:
    """Raises: ConfigError: this machine's memory does not even hold the weights and their gradients."""
    parameters, memory = complexity_of(spec).total.parameters, usable_memory()
    needed = _LEAST_BYTES * parameters
    if memory is not None and needed > memory:
        raise ConfigError(
            f"the network has {parameters:,} parameters; with their gradients they take {needed / 2**30:,.0f} GiB, "
            f"more than the {memory / 2**30:,.1f} GiB that there are; train a narrower one"
        )


def _with_class_weights(config: RetrainConfig, class_weights: Literal["none", "balanced"]) -> RetrainConfig:
    """Raises: ConfigError: the task has no classes."""
    if not isinstance(config.training, ImageTraining):
        raise ConfigError("--class-weights is for images; a language model has no classes")
    return replace(config, training=replace(config.training, class_weights=class_weights))


def is_of(store: Store, *, sha256: str, is_named_so: bool) -> bool:
    """Whether a stage had the store's data: by the digest that it recorded, by the data set's name if it has none.

    A path can be written in several ways, and a name can be given to other data.
    """
    return store.digest == sha256 if sha256 else is_named_so


def _searched_without_flip(run: Path, store: Store, *, dataset: str) -> bool:
    """Whether the run has a search on this data set that mirrored no pictures."""
    search = RunFolder(run / "search")
    config = read_toml(search.config_path) if search.begun else {}
    is_on_it = is_of(store, sha256=config.get("dataset_sha256", ""), is_named_so=config.get("dataset") == dataset)
    return is_on_it and config.get("training", {}).get("augmentation", {}).get("flip") is False
