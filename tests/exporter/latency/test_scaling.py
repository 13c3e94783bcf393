"""Widths fitted to a time: what is tried, and when that ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from exporter.latency.scaling import fit_widths, scaled
from searcher.arch.catalog import published_spec
from searcher.arch.spec import Spec

SPEC = published_spec("inverted-small")


def widths(spec: Spec) -> list[int]:
    architecture = spec.architecture
    return [architecture.stem.channels, *(stage.channels for stage in architecture.stages)]


def products(spec: Spec) -> float:
    """A time that grows with every width."""
    return sum(a * b for a, b in zip(widths(spec), [*widths(spec)[1:], 10], strict=True))


@pytest.mark.parametrize("factor", [0.25, 0.7, 1.0, 2.3])
def test_one_factor_for_all_widths_is_found(factor: float) -> None:
    wanted = products(scaled(SPEC, factor))
    (fit,) = fit_widths([SPEC], shares=lambda networks: [products(one) / wanted for one in networks])
    assert fit.fits
    assert widths(fit.spec) == pytest.approx([factor * width for width in widths(SPEC)], rel=0.1, abs=4)


def test_where_no_factor_gives_the_time_single_widths_are_changed() -> None:
    narrow = scaled(SPEC, 0.125)  # 4, 4, 8, 16: the next ones are far away
    wanted = products(narrow) + 4 * 4  # as with one more block of four in a single place
    sittings: list[int] = []

    def shares(networks: Sequence[Spec]) -> list[float]:
        sittings.append(len(networks))
        return [products(one) / wanted for one in networks]

    (fit,) = fit_widths([narrow], shares=shares)
    assert fit.ratio == pytest.approx(1.0, abs=0.03)
    assert all(width > 0 and width % 4 == 0 for width in widths(fit.spec))
    assert widths(fit.spec) not in [widths(scaled(narrow, factor / 100)) for factor in range(1, 400)]
    assert max(sittings) <= 4  # one width at a time, of four


def test_what_cannot_be_fitted_ends_with_the_nearest() -> None:
    (fit,) = fit_widths([SPEC], shares=lambda networks: [100 + products(one) for one in networks])
    assert not fit.fits
    assert widths(fit.spec) == [4, 4, 4, 4]
    assert math.isfinite(fit.ratio)
