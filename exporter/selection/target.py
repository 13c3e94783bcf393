"""Fits the widths of networks to a search's latency target, then measures all networks together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from exporter.latency.measure import FITTING, QUICK, measure_at_pace, onnx_of
from exporter.latency.scaling import fit_widths, is_near
from exporter.selection.searches import FinishedSearch
from foundation.document import ConfigError
from searcher.arch.errors import ArchitectureError
from searcher.arch.spec import Spec
from searcher.latency.references import references_of

# How much two measurements of a network may differ, as a fraction of the target.
_MARGIN = 0.01
# The latency aimed at, as a fraction of the target: at 1, every second network would be too slow on a busy machine.
_AIM = 0.98


def brought_to_target(
    specs: Sequence[Spec], *, are_known: Sequence[bool], finished: FinishedSearch
) -> list[tuple[Spec, float]]:
    """Returns each network at widths fitted to the search's target, and its latency there in ms.

    All are measured in the same sittings, since opening and pacing take longer than the calls. Args: are_known: known
    networks, which are fitted more closely. Raises: BenchmarkError: see `measure`. ConfigError: no network is wide
    enough.
    """
    target, table, profiled = finished.search.config.latency, finished.table, finished.profiled
    assert target is not None
    assert table is not None
    assert profiled is not None
    known = references_of(profiled.space_name, profiled.space, profiled.task)
    paced = [(onnx_of(spec), table.references[name]) for name, spec in known.items() if name in table.references]
    ms_of = partial(measure_at_pace, paced=paced, batch=target.batch, threads=target.threads)
    aim_ms = _AIM * target.target_ms

    def shares(networks: Sequence[Spec]) -> list[float]:
        return [ms / aim_ms for ms in ms_of(networks, effort=FITTING)]

    def meets(share: float) -> bool:
        """Whether a share meets the target, with a margin, since the networks are measured once more."""
        return all(target.miss((share + margin) * aim_ms) == 0 for margin in (-_MARGIN, _MARGIN))

    try:
        fitted = fit_widths(specs, shares=shares, is_enough=[is_near if is_known else meets for is_known in are_known])
    except ArchitectureError as error:
        raise ConfigError(
            f"the target of {target.target_ms:.3g} ms takes wider networks than there can be: {error}"
        ) from error
    networks = [fit.spec for fit in fitted]
    measured = ms_of(networks, effort=QUICK)
    # If the machine was busy for a while, all networks can miss the target together, so these are measured again.
    if missing := [place for place, ms in enumerate(measured) if target.miss(ms) > 0]:
        for place, ms in zip(missing, ms_of([networks[place] for place in missing], effort=QUICK), strict=True):
            measured[place] = ms
    return list(zip(networks, measured, strict=True))
