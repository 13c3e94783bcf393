"""Widths of a spec: what is one, and what scaling leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from searcher.arch.catalog import published_spec
from searcher.arch.widths import scaled, widths, with_changes


@pytest.mark.parametrize("provenance", [{"channels": 16, "note": "x"}, {"data": {"channels": "RGB"}}])
def test_channels_that_the_provenance_names_are_no_widths(provenance: dict[str, object]) -> None:
    plain = replace(published_spec("resnet-20"), provenance={})
    spec = replace(plain, provenance=provenance)
    assert widths(spec) == widths(plain)
    assert scaled(spec, 2) == replace(scaled(plain, 2), provenance=provenance)
    changed = with_changes(plain, {0: 4})
    assert changed is not None
    assert with_changes(spec, {0: 4}) == replace(changed, provenance=provenance)
