"""The commands `enas export` and `enas verify`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import click

from exporter.delivery.forms import FORMS
from foundation.command_options import Command, FiniteRange
from foundation.options import OptionError

_RUN = click.argument("run", type=click.Path(path_type=Path))
_FORM_OPTIONS = [form.option for form in FORMS.values()]


def _form_options(command: Command) -> Command:
    """Adds a flag for each form; its parameter has the form's name."""
    for form in reversed(FORMS.values()):
        words = f"Try {form.file}, {form.note}, too."
        command = click.option(form.option, form.name, is_flag=True, help=words)(command)
    return command


def _tolerance_options(command: Command) -> Command:
    """Adds --atol and --rtol, the fields of `Tolerance`."""
    words = "Part of the tolerance on logits: atol + rtol · max |logit|."
    command = click.option("--rtol", type=FiniteRange(min=0), default=1e-4, help="See --atol.")(command)
    return click.option("--atol", type=FiniteRange(min=0), default=1e-4, help=words)(command)


@click.command()
@_RUN
@click.option("--opset", type=click.IntRange(18, 23), default=18, help="ONNX opset; from 22 on a newer onnxruntime.")
@_tolerance_options
@click.option(
    "--align",
    type=click.Choice(["none", "auto"]),
    default="none",
    help="auto fills channels up to blocks of this CPU's kernels, measures, and keeps what is faster.",
)
@click.option("--resize-inside", is_flag=True, help="Write model-any-size.onnx, which resizes pictures itself, too.")
@click.option(
    "--triton",
    "repository",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the model into this folder as a Triton repository has it, too, with a manifest for KServe.",
)
@click.option("--triton-gpu", is_flag=True, help="The folder of --triton is for GPUs, with an instance on each.")
@click.option(
    "--web",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write this folder, a page that classifies pictures in browsers, too.",
)
@click.option(
    "--web-runtime",
    type=click.Path(path_type=Path, exists=True),
    help="The package onnxruntime-web for --web, a folder or an archive, where npm is not to fetch it.",
)
@_form_options
@click.option(
    "--for",
    "goal",
    type=click.Choice(["speed", "size", "elsewhere"]),
    default="speed",
    help=f"What {' and '.join(_FORM_OPTIONS)} must gain: 5 % of time here, bytes, or, for another machine, nothing.",
)
@click.option(
    "--max-accuracy-loss",
    "points",
    type=FiniteRange(min=0),
    default=0.5,
    metavar="POINTS",
    help=f"Accuracy on valid that {' and '.join(_FORM_OPTIONS)} may cost.",
)
@click.option("--resume", is_flag=True, help="Do nothing where the run's model is already that of its weights.")
def export(
    run: Path,
    opset: int,
    atol: float,
    rtol: float,
    align: Literal["none", "auto"],
    resize_inside: bool,
    repository: Path | None,
    triton_gpu: bool,
    web: Path | None,
    web_runtime: Path | None,
    goal: Literal["speed", "size", "elsewhere"],
    points: float,
    resume: bool,
    **wanted: bool,
) -> None:
    """Convert a run's retrained network to model.onnx, verified against torch.

    Exits 1, writing no model, if the two differ on the test split or on edge cases. With --int8, --half and the like
    other forms are tried, and kept beside it where they lose little accuracy and pay; variants.json holds all that was
    tried.
    """
    from exporter.conversion import any_size
    from exporter.conversion.convert import least_onnxruntime
    from exporter.delivery.export import VerificationError, is_current
    from exporter.delivery.export import export as run_export
    from exporter.delivery.onnxruntime_web import runtime_files
    from exporter.delivery.triton import folder_of, write_triton
    from exporter.delivery.verify import describe
    from exporter.delivery.web import check_is_ours, write_web
    from runtime.models.artifact import MODEL, SEQUENCE_MODEL
    from runtime.models.tolerance import Tolerance

    if web_runtime is not None and web is None:
        raise OptionError("--web-runtime says where --web takes onnxruntime-web from; give --web, too")
    if triton_gpu and repository is None:
        raise OptionError("--triton-gpu says what --triton is for; give --triton, too")
    tolerance = Tolerance(atol, rtol)
    forms = [name for name in FORMS if wanted[name]]
    if forms or resize_inside or web is not None or align != "none":
        _check_is_of_images(run)
    if repository is not None:
        folder_of(run, repository)
    if web is not None:
        check_is_ours(web)
    if web_runtime is not None:
        runtime_files(web_runtime)
    log = partial(click.echo, err=True)
    if resume and is_current(run, opset=opset, tolerance=tolerance, align=align):
        log(f"{run}: {MODEL} is verified and up to date")
    else:
        try:
            verification = run_export(run, opset=opset, tolerance=tolerance, align=align, log=log)
        except VerificationError as error:
            _remove_stale_forms(run)
            click.echo(describe(error.verification))
            log(f"error: {error}")
            click.get_current_context().exit(1)
        click.echo(describe(verification))
        written = [run / MODEL, *([run / SEQUENCE_MODEL] if verification.sequence_sha256 else [])]
        sizes = " and ".join(f"{path} ({path.stat().st_size:,} bytes)" for path in written)
        log(
            f"wrote {sizes}; opset {opset} opens in onnxruntime {least_onnxruntime(opset)} and later; "
            f"next: enas benchmark {shlex.quote(str(run))}"
        )
    _remove_stale_forms(run)
    if resize_inside:
        log(f"wrote {any_size.write_any_size(run)}")
    if repository is not None:
        log(f"wrote {write_triton(run, repository, gpu=triton_gpu)}; next: enas serve {shlex.quote(str(repository))}")
    if web is not None:
        log(f"wrote {write_web(run, web, runtime=web_runtime)}; next: python -m http.server -d {shlex.quote(str(web))}")
    if forms:
        _try_variants(run, forms, points=points, goal=goal, resume=resume)


def _remove_stale_forms(run: Path) -> None:
    """Remove the forms of a model that is no longer the run's."""
    from exporter.conversion import any_size
    from exporter.delivery import variants

    variants.remove_stale(run)
    any_size.remove_stale(run)


def _check_is_of_images(run: Path) -> None:
    """Raises: ConfigError: the run is for text, whose models do not have these forms."""
    from foundation.document import ConfigError
    from searcher.arch.catalog import check_is_run, find_spec
    from searcher.arch.tasks import IMAGE_CLASSIFICATION

    check_is_run(run)
    if find_spec(run).task.kind != IMAGE_CLASSIFICATION:
        raise ConfigError(f"{', '.join(_FORM_OPTIONS)}, --align, --resize-inside and --web are for image classifiers")


def _try_variants(
    run: Path,
    forms: Sequence[str],
    *,
    points: float,
    goal: Literal["speed", "size", "elsewhere"],
    resume: bool,
) -> None:
    from datasets.store import ImageStore
    from exporter.delivery import variants
    from searcher.arch.spec import read_spec
    from searcher.training.task_kinds import load_store_of

    if resume and variants.is_current(run, forms, points=points, goal=goal):
        click.echo(f"{run}: {variants.VARIANTS} is up to date", err=True)
        return
    spec = read_spec(run / "retrain" / "spec.json")
    store = load_store_of(spec, named_by=f"{run} was trained on")
    assert isinstance(store, ImageStore)
    trials = variants.make_variants(
        run, store, forms, points=points, goal=goal, log=lambda line: click.echo(line, err=True)
    )
    click.echo(variants.describe(trials))


@click.command()
@_RUN
@_tolerance_options
def verify(run: Path, atol: float, rtol: float) -> None:
    """Compare a run's model.onnx with its retrained network again, on the CPU.

    Exits 1 if they differ on the test split or on edge cases.
    """
    from exporter.delivery.export import verify_run
    from exporter.delivery.verify import describe
    from runtime.models.tolerance import Tolerance

    verification = verify_run(run, tolerance=Tolerance(atol, rtol), log=partial(click.echo, err=True))
    click.echo(describe(verification))
    if not verification.passed:
        click.echo(f"error: {run}: the model does not match its torch network", err=True)
        click.get_current_context().exit(1)
