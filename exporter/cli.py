"""The commands `enas retrain`, `enas export` and `enas verify`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from searcher.arch.spec import Spec

T = TypeVar("T")
_INTERRUPTED = 130
_RUN = click.argument("run", type=click.Path(path_type=Path))


@click.command()
@click.argument("source", metavar="RUN|SPEC", type=click.Path(path_type=Path))
@click.option("--preset", help="Settings: quick, standard, paper or reference.  [default: the search's]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="A config.toml instead of a preset.")
@click.option("--run", "run_path", type=click.Path(path_type=Path), help="Run directory, where SPEC is a file.")
@click.option("--dataset", help="Name of a data set or path of a store.  [default: the spec's]")
@click.option("--channels", type=click.IntRange(min=2), help="Width of the first cell.  [default: the spec's]")
@click.option("--cells", type=click.IntRange(min=3), help="Number of cells.  [default: the spec's]")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over train.  [default: the preset's]")
@click.option("--seed", type=click.IntRange(min=0), help="Fixes the run.  [default: the search's, or 0]")
@click.option(
    "--memory-budget", type=click.IntRange(min=1), metavar="MB", help="Images beyond it stream.  [default: 2048]"
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished retraining, if there is one.")
@click.option("--force", is_flag=True, help="Delete an existing retraining first.")
def retrain(
    source: Path,
    preset: str | None,
    config_file: Path | None,
    run_path: Path | None,
    dataset: str | None,
    channels: int | None,
    cells: int | None,
    epochs: int | None,
    seed: int | None,
    memory_budget: int | None,
    device: str,
    resume: bool,
    force: bool,
) -> None:
    """Train the network of a run's spec.json, or of a spec file, from scratch.

    The best epoch is chosen on the valid split; the test split is scored once, at the end.
    """
    from datasets.catalog import load_images
    from exporter.presets import retrain_preset
    from exporter.retrain import RetrainConfig, spec_digest
    from exporter.retrain import retrain as run_retrain
    from searcher.arch.spec import read_spec
    from searcher.training import device as devices
    from searcher.training.interrupt import Stopped, catch_signals
    from searcher.training.run_folder import RunFolder, command_again, read_config

    spec_path, run_path = _spec_and_run(source, run_path)
    spec = read_spec(spec_path)
    if dataset is not None:
        spec = replace(spec, task=replace(spec.task, dataset=dataset))
    changes = {name: value for name, value in (("channels", channels), ("cells", cells)) if value is not None}
    spec = replace(spec, network=replace(spec.network, **changes))
    store = load_images(spec.task.dataset)
    if config_file is not None:
        config = read_config(config_file, RetrainConfig)
    else:
        config = retrain_preset(preset or _provenance(spec, "preset", str) or "quick")
    if seed is None and config_file is None:
        seed = _provenance(spec, "seed", int)
    config = replace(
        config,
        spec_sha256=spec_digest(spec),
        dataset_sha256=store.digest,
        memory_budget_mb=memory_budget or config.memory_budget_mb,
        seed=config.seed if seed is None else seed,
        num_epochs=epochs or config.num_epochs,
    )

    torch_device = devices.resolve_device(device)
    devices.prepare(torch_device)
    again = command_again()
    folder = RunFolder.open(run_path / "retrain", config, resume=resume, force=force, again=again)
    if folder.finished:
        click.echo(f"{run_path}: the retraining is finished", err=True)
        return
    click.echo(f"retraining in {run_path} on {devices.describe(torch_device)}", err=True)
    with catch_signals() as interrupt:
        try:
            summary = run_retrain(spec, config, store=store, folder=folder, device=torch_device, interrupt=interrupt)
        except Stopped:
            click.echo(f"stopped; go on with: {again} --resume", err=True)
            click.get_current_context().exit(_INTERRUPTED)
    valid = f", valid {summary['valid_accuracy']:.2%}" if "valid_accuracy" in summary else ""
    click.echo(
        f"test accuracy {summary['test_accuracy']:.2%} of {summary['test_count']} images "
        f"(epoch {summary['best_epoch']}{valid}; {summary['parameters']:,} parameters)"
    )
    click.echo(f"next: enas export {run_path}", err=True)


def _spec_and_run(source: Path, run_path: Path | None) -> tuple[Path, Path]:
    """The spec to train and the run directory to train it in, from a run directory or a spec file."""
    from searcher.training.run_folder import RunError, RunFolder

    if source.suffix == ".json":
        if run_path is None:
            raise RunError("say where to train this spec: --run DIRECTORY")
        return source, run_path
    search = RunFolder(source / "search")
    if search.begun and not search.finished:
        raise RunError(f"{source}: the search is not finished; go on with it: `enas search --run {source} --resume`")
    if not (source / "spec.json").exists():
        raise RunError(f"{source}: no spec.json here; make it with `enas search --run {source}`")
    return source / "spec.json", run_path or source


def _provenance(spec: Spec, key: str, kind: type[T]) -> T | None:
    """What the spec says of where it comes from, if it says it and as it should."""
    value = spec.provenance.get(key)
    return value if type(value) is kind else None


@click.command()
@_RUN
@click.option("--opset", type=click.IntRange(18, 23), default=18, help="ONNX opset.")
@click.option("--atol", type=float, default=1e-4, help="Part of the tolerance on logits: atol + rtol · max |logit|.")
@click.option("--rtol", type=float, default=1e-4, help="See --atol.")
@click.option("--resume", is_flag=True, help="Do nothing where the run's model is already that of its weights.")
def export(run: Path, opset: int, atol: float, rtol: float, resume: bool) -> None:
    """Convert a run's retrained network to model.onnx, verified against torch.

    Exits 1, writing no model, if the two differ on the test split or on edge cases.
    """
    from exporter.convert import Tolerance
    from exporter.export import MODEL, VerificationError, is_current
    from exporter.export import export as run_export
    from exporter.verify import describe

    tolerance = Tolerance(atol, rtol)
    if resume and is_current(run, opset=opset, tolerance=tolerance):
        click.echo(f"{run}: {MODEL} is verified and up to date", err=True)
        return

    def log(line: str) -> None:
        click.echo(line, err=True)

    try:
        verification = run_export(run, opset=opset, tolerance=tolerance, log=log)
    except VerificationError as error:
        click.echo(describe(error.verification))
        click.echo(f"error: {error}", err=True)
        click.get_current_context().exit(1)
    click.echo(describe(verification))
    model = run / MODEL
    click.echo(f"wrote {model} ({model.stat().st_size:,} bytes); next: enas benchmark {run}", err=True)


@click.command()
@_RUN
@click.option("--atol", type=float, default=1e-4, help="Part of the tolerance on logits: atol + rtol · max |logit|.")
@click.option("--rtol", type=float, default=1e-4, help="See --atol.")
def verify(run: Path, atol: float, rtol: float) -> None:
    """Compare a run's model.onnx with its retrained network again, on the CPU.

    Exits 1 if they differ on the test split or on edge cases.
    """
    from exporter.convert import Tolerance
    from exporter.export import verify_run
    from exporter.verify import describe

    verification = verify_run(run, tolerance=Tolerance(atol, rtol))
    click.echo(describe(verification))
    if not verification.passed:
        click.echo(f"error: {run}: the model does not match its torch network", err=True)
        click.get_current_context().exit(1)
