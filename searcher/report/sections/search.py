"""The report's section on the search: its curves, and how its architecture was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from charts.curves import Series
from charts.dots import Row, dot_chart
from foundation.tables import ABSENT
from searcher.arch.spec import Spec
from searcher.report import html, values
from searcher.report.figures import Figures
from searcher.report.run_files import Stage, table_in
from searcher.report.sections.elements import line_charts, numbers, progress, quoted, scalars, versions


def search_section(run: Path, search: Stage, spec: Spec | None, figures: Figures) -> Iterator[str]:
    """Yields the facts, curves and choice of the search, or the command that begins one."""
    if not search.begun:
        if spec is None:
            yield html.missing("Nothing has been searched yet", f"enas search --run {quoted(run)}")
        else:
            yield "<p>The architecture does not come from a search of this run.</p>"
            yield scalars(spec.provenance)
        return
    config, summary = search.config, search.summary
    yield html.facts(
        [
            ("preset", config.get("preset")),
            ("data set", config.get("dataset")),
            ("policy", table_in(config, "policy").get("kind")),
            ("seed", config.get("seed")),
            ("epochs", progress(search)),
            ("time", values.duration(summary.get("seconds"))),
            ("device", summary.get("device")),
        ]
    )
    if not summary:
        yield html.missing("The search is not finished", f"enas search --run {quoted(run)} --resume")
    reward, control = search.series("controller", "reward"), search.series("random", "random_reward", dashed=True)
    if reward.points and control.points:
        yield f"<p>{html.escaped(_comparison(reward, control, figures))}</p>"
    yield line_charts(
        [
            (
                "Mean reward of a policy step",
                f"{figures.reward}, both on the same minibatches",
                figures.percent,
                [reward, control, search.series("moving average", "baseline")],
            ),
            ("Entropy of the policy", "nats per architecture", False, [search.series("entropy", "entropy")]),
            ("Training loss of the shared weights", f"nats per {figures.unit}", False, [search.series("loss", "loss")]),
            (
                f"Training {figures.metric} of the shared weights",
                "of the architectures sampled",
                figures.percent,
                [search.series(figures.metric, f"train_{figures.metric}")],
            ),
        ]
    )
    reward_found, chance = summary.get("reward"), summary.get("chance_reward")
    if isinstance(reward_found, int | float) and isinstance(chance, int | float) and not reward_found > chance:
        yield (
            f'<p class="bad">The reward of the architecture chosen, {figures.written_reward(reward_found)}, is within '
            f"chance ({figures.written_reward(chance)}): it is as good as a random one.</p>"
        )
    if sampled := numbers(summary.get("sampled_rewards")):
        yield from _derivation(sampled, numbers(summary.get("finalist_rewards")), summary.get("reward"), figures)
    yield versions(summary)


def _comparison(reward: Series, control: Series, figures: Figures) -> str:
    """A sentence that compares the last values of the two curves."""
    (epoch, ours), (_, theirs) = reward.points[-1], control.points[-1]
    difference = f"{100 * (ours - theirs):+.1f} points" if figures.percent else f"{ours - theirs:+.3g}"
    where = f"in epoch {epoch:g} the policy's architectures score {figures.written_reward(ours)} on average"
    return (
        f"With the same shared weights, {where}, uniformly random ones {figures.written_reward(theirs)}: {difference}."
    )


def _derivation(sampled: Sequence[float], finals: Sequence[float], chosen: object, figures: Figures) -> Iterator[str]:
    """Yields how the architecture was chosen after the last epoch."""
    rows = [
        Row(
            "sampled",
            sampled,
            f"{len(sampled)}, on few minibatches",
            marked=None if finals else _index_of(sampled, chosen),
        )
    ]
    if finals:
        rows.append(Row("finalists", finals, f"{len(finals)}, on the whole split", marked=_index_of(finals, chosen)))
    reward = figures.written_reward(chosen) or ABSENT
    yield (
        f"<p>{len(sampled)} different architectures were drawn from the trained policy and scored with the shared "
        f"weights after the last epoch. The ringed one was chosen; its reward is {reward}.</p>"
    )
    title = "Rewards at the end of the search"
    chart = dot_chart(rows, title=title, x_label=figures.reward, percent=figures.percent)
    yield f'<div class="scroll">{chart}</div>'


def _index_of(among: Sequence[float], value: object) -> int | None:
    """The index of a value among others; None if it is not one of them."""
    return among.index(value) if isinstance(value, int | float) and value in among else None
