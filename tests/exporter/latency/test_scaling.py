"""Widths fitted to a time: what is tried, and when that ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from exporter.latency.scaling import fit_widths
from searcher.arch.catalog import published_spec
from searcher.arch.spec import Spec, parse_spec
from searcher.arch.widths import scaled

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


def whole_blocks(spec: Spec) -> float:
    """A time that grows with every block of 16 channels."""
    blocks = [math.ceil(width / 16) for width in widths(spec)]
    return sum(a * b for a, b in zip(blocks, [*blocks[1:], 1], strict=True))


def test_widths_are_filled_up_to_whole_blocks_where_that_costs_nothing() -> None:
    narrow = parse_spec(with_widths(8, 12, 24, 40), source="narrow")
    wanted = whole_blocks(narrow)
    (fit,) = fit_widths([narrow], shares=lambda networks: [whole_blocks(one) / wanted for one in networks])
    assert fit.fits
    assert widths(fit.spec) == [16, 16, 32, 48]


def test_a_filled_network_that_is_too_slow_is_not_taken() -> None:
    narrow = parse_spec(with_widths(12, 12, 24, 48), source="narrow")
    wanted = products(narrow)
    (fit,) = fit_widths([narrow], shares=lambda networks: [products(one) / wanted for one in networks])
    assert widths(fit.spec) == [12, 12, 24, 48]


def test_of_the_widths_that_take_the_time_the_ones_that_compute_most_are_taken() -> None:
    """A first try that is a little fast does, and so does a wider one that takes the same time."""
    tried: list[list[int]] = []

    def shares(networks: Sequence[Spec]) -> list[float]:
        tried.extend(widths(one) for one in networks)
        return [1.0] * len(networks)

    (fit,) = fit_widths([parse_spec(with_widths(16, 12, 32, 40), source="narrow")], shares=shares)
    assert tried == [[16, 12, 32, 40], [16, 16, 32, 40], [16, 12, 32, 48], [16, 16, 32, 48]]
    assert widths(fit.spec) == [16, 16, 32, 48]


def with_widths(stem: int, *stages: int) -> dict[str, Any]:
    document = SPEC.to_document()
    document["architecture"]["stem"]["channels"] = stem
    for stage, channels in zip(document["architecture"]["stages"], stages, strict=True):
        stage["channels"] = channels
    return document
