"""The pool of a ranking: random architectures from the cheapest to the most expensive, and their folders."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

from exporter.selection.strata import one_of_each_stratum
from foundation.document import ConfigError
from foundation.seeds import stream_seed
from searcher.arch.spec import Spec, spec_digest
from searcher.nn.complexity import complexity_of
from searcher.running.run_folder import RunError, RunFolder, read_toml
from searcher.training.loop import Search

# Random architectures for each one wanted: size of a stratum, and most draws.
_STRATUM = 20
_MOST_DRAWS = 2000


def stratified(search: Search, count: int, *, seed: int) -> list[Spec]:
    """`count` different architectures, one from each of `count` strata of random ones by multiply-adds.

    If the search has a latency target, they are near it: further away the shared weights are not trained.
    """
    rng = random.Random(stream_seed(seed, "ranking"))
    draws = (search.space.random(rng) for _ in range(_MOST_DRAWS * count))
    near = islice((one for one in draws if search.is_near_target(one)), _STRATUM * count)
    specs: list[Spec] = [
        Spec(
            search.config.space, one, search.config.final_network, search.task, {"source": "random, by strata of cost"}
        )
        for one in dict.fromkeys(near)
    ]
    if len(specs) < count:
        raise ConfigError(f"of the space's architectures {len(specs)} were found, fewer than {count}")
    specs.sort(key=lambda spec: complexity_of(spec).total.multiply_adds)
    return one_of_each_stratum(specs, count, rng=rng)


def folder_of(number: int) -> str:
    """The name of the folder that holds an architecture's trainings."""
    return f"{number:02d}"


def check_pool(folder: Path, specs: Sequence[Spec], *, recipes: Collection[str], again: str) -> None:
    """Raises: RunError: a training in the folder by one of these recipes is not of this pool."""
    for number, spec in enumerate(specs):
        for recipe in recipes:
            begun = RunFolder(folder / folder_of(number) / recipe)
            if begun.begun and read_toml(begun.config_path).get("spec_sha256") != spec_digest(spec):
                raise RunError(
                    f"{folder} holds trainings of another pool, as another --count, --seed or search makes: go on with "
                    f"the options that it was begun with and --resume, or start anew with `{again} --force`"
                )
