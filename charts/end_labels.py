"""Labels to the right of a chart, one beside the end of each line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from charts.axes import NUM_COLOURS, Axis
from charts.spacing import separated
from charts.svg import element, number, text

_LABEL_LINE = 15.0


def colour_of(index: int) -> str:
    """Returns the CSS class that colours a chart's line of that index; the classes repeat."""
    return f"c{index % NUM_COLOURS}"


def end_labels(
    labels: Sequence[str],
    ends: Sequence[tuple[float, float]],
    x_axis: Axis,
    y_axis: Axis,
    *,
    leader: str | None = None,
) -> Iterator[str]:
    """Yields the labels, moved apart where they would touch, and a leader to each from its line.

    Args: ends: where each line ends, px. leader: the CSS classes of all leaders; None: each has its line's colour.
    """
    order = sorted(range(len(ends)), key=lambda index: ends[index][1])
    places = separated([ends[index][1] for index in order], [_LABEL_LINE] * (len(order) - 1))
    overhang = max(0.0, places[-1] - y_axis.start_px)
    for index, place in zip(order, (place - overhang for place in places), strict=True):
        (x, y), colour = ends[index], colour_of(index)
        path = f"M{number(x)} {number(y)}L{number(x_axis.end_px + 8)} {number(place)}"
        yield element("path", class_=leader or f"{colour} leader", d=path)
        yield text(labels[index], x_axis.end_px + 12, place + 4, f"{colour} name")
