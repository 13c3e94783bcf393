"""The commands `enas search`, `enas spec` and `enas report`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

if TYPE_CHECKING:
    from searcher.arch.spec import Spec

_INTERRUPTED = 130


@click.command()
@click.option("--space", default="micro", help="Search space: micro.")
@click.option("--preset", default="quick", help="Settings: quick, standard, paper or reference.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="A config.toml to use instead of a preset."
)
@click.option("--dataset", help="Name of a data set or path of a store.  [default: the preset's own]")
@click.option(
    "--run",
    "run_path",
    type=click.Path(path_type=Path),
    help="Run directory.  [default: runs/<space>-<dataset>-<preset>]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Fixes the run.  [default: 0]")
@click.option(
    "--policy", type=click.Choice(["lstm", "random"]), help="The controller, or uniform random search.  [default: lstm]"
)
@click.option(
    "--derive",
    "derivation",
    type=click.Choice(["thorough", "paper"]),
    default="thorough",
    help="How the architecture is chosen in the end.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run, if there is one.")
@click.option("--force", is_flag=True, help="Delete an existing search in the run directory first.")
def search(
    space: str,
    preset: str,
    config_file: Path | None,
    dataset: str | None,
    run_path: Path | None,
    seed: int | None,
    policy: str | None,
    derivation: str,
    device: str,
    resume: bool,
    force: bool,
) -> None:
    """Search for an architecture with ENAS and write it to the run's spec.json."""
    from datasets.catalog import load
    from datasets.store import ImageStore, StoreError
    from searcher.presets import DEFAULT_DATASETS, search_preset
    from searcher.training import device as devices
    from searcher.training.derive import PAPER_DERIVATION
    from searcher.training.interrupt import catch_signals
    from searcher.training.loop import SearchConfig, Stopped, config_types
    from searcher.training.loop import search as run_search
    from searcher.training.run_folder import RunFolder, read_config

    if config_file is not None:
        config = read_config(config_file, SearchConfig, types=config_types(space))
        dataset = dataset or config.dataset
    else:
        search_preset(space, preset, image_size=32)  # a wrong name is told before a data set is looked for
        dataset = dataset or DEFAULT_DATASETS[preset]
    store = load(dataset)
    if not isinstance(store, ImageStore):
        raise StoreError(f"{dataset} holds text; the space {space} needs images")
    if config_file is None:
        config = search_preset(space, preset, image_size=max(store.image_shape[:2]))
    config = replace(config, dataset=dataset)
    if seed is not None:
        config = replace(config, seed=seed)
    if policy is not None:
        config = replace(config, policy=replace(config.policy, kind=cast(Literal["lstm", "random"], policy)))
    if derivation == "paper":
        config = replace(config, derivation=PAPER_DERIVATION)

    run_path = run_path or Path("runs") / f"{config.space}-{_name_of(dataset)}-{config.preset}"
    torch_device = devices.resolve_device(device)
    devices.prepare(torch_device)
    again = f"enas search --run {run_path}"
    folder = RunFolder.open(run_path / "search", config, resume=resume, force=force, again=again)
    if folder.finished:
        click.echo(f"{run_path}: the search is finished; its architecture is in {run_path / 'spec.json'}", err=True)
        return
    click.echo(f"search in {run_path} on {devices.describe(torch_device)}", err=True)
    with catch_signals() as interrupt:
        try:
            spec = run_search(config, store=store, folder=folder, device=torch_device, interrupt=interrupt)
        except Stopped:
            click.echo(f"stopped; go on with: {again} --resume and the other options as before", err=True)
            click.get_current_context().exit(_INTERRUPTED)
    _show(spec)
    click.echo(f"\nwrote {run_path / 'spec.json'}; next: enas retrain {run_path}", err=True)


def _name_of(dataset: str) -> str:
    """A data set's name, or the stem of a store's path."""
    return Path(dataset).stem if dataset.endswith(".h5") else dataset


def _show(spec: Spec) -> None:
    click.echo(spec.to_json(), nl=False)
