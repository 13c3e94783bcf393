"""`enas generate`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foundation.command_options import FiniteRange, json_option, seed_option
from foundation.options import OptionError
from runtime.commands.options import PATH, announced, command_line, provider_option

if TYPE_CHECKING:
    from runtime.models.language_model import StepModel
    from runtime.models.providers import Provider
    from runtime.models.tokenizer import Tokenizer


@click.command()
@click.argument("model", type=PATH)
@click.option("--prompt", default="", show_default="a new line", metavar="TEXT", help="What the text begins with.")
@click.option("--length", "-n", type=click.IntRange(min=1), default=100, help="Words, or characters, to add.")
@click.option(
    "--temperature",
    type=FiniteRange(min=0),
    default=1.0,
    help="Below 1 the text surprises less; 0 takes the likeliest token always.",
)
@click.option(
    "--top-k", type=click.IntRange(min=1), show_default="all", help="Choose among that many likeliest tokens."
)
@seed_option("Another seed, another text.", default=0)
@provider_option
@json_option
def generate(
    *,
    model: Path,
    prompt: str,
    length: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    provider: Provider,
    as_json: bool,
) -> None:
    """Go on with a text, word by word or character by character.

    MODEL is a language model's file or a run directory. The text is printed as it comes.
    """
    from datasets.tokens import UNITS
    from foundation.progress import progress
    from runtime.scoring.generate import Sampling
    from runtime.scoring.generate import generate as sample

    opened = announced(_open_step_model(model, provider=provider))
    tokenizer = opened.tokenizer
    prompt_tokens, unknown = tokenizer.encode(prompt)
    if unknown:
        click.echo(f"read as {tokenizer.unknown}: {', '.join(map(repr, unknown))}", err=True)
    sampling = Sampling(temperature=temperature, top_k=top_k, seed=seed)
    tokens = sample(opened, prompt_tokens, length=length, sampling=sampling)
    if not as_json:
        _print_as_it_comes(tokens, prompt=prompt_tokens, tokenizer=tokenizer)
        return
    generated = []
    with progress(f"adding {length:,} {UNITS[tokenizer.tokens]}", total=length) as advance:
        for token in tokens:
            generated.append(token)
            advance(1)
    document = {
        "schema": 1,
        "kind": "generation",
        "command": command_line(),
        "file": str(opened.path),
        "sha256": opened.sha256,
        "providers": list(opened.session.providers),
        "prompt": prompt,
        "unknown": unknown,
        "temperature": temperature,
        "top_k": top_k,
        "seed": seed,
        "prompt_tokens": prompt_tokens,
        "tokens": generated,
        "text": tokenizer.decode([*prompt_tokens, *generated]),
    }
    click.echo(json.dumps(document))


def _open_step_model(model: Path, *, provider: Provider) -> StepModel:
    from runtime.models.artifact import MODEL
    from runtime.models.kinds import open_model
    from runtime.models.language_model import StepModel
    from runtime.models.model import Model

    opened = open_model(model, provider=provider)
    if isinstance(opened, StepModel):
        return opened
    cure = "use `enas predict`" if isinstance(opened, Model) else f"use {MODEL} beside it"
    raise OptionError(f"{opened.path} is {opened.kind}: {cure}")


def _print_as_it_comes(tokens: Iterable[int], *, prompt: Sequence[int], tokenizer: Tokenizer) -> None:
    text = tokenizer.decode(prompt)
    click.echo(text, nl=False)
    last = prompt[-1:]
    for token in tokens:
        text = tokenizer.decode([*last, token]).removeprefix(tokenizer.decode(last))
        click.echo(text, nl=False)
        last = [token]
    if not text.endswith("\n"):
        click.echo()
