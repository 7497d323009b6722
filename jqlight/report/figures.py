"""Figures of a comparison, as PNG bytes.

Colours are those of Okabe and Ito, which readers with any kind of colour vision can tell apart; every line also has a
marker or a dash pattern of its own, so that the figures survive a black-and-white print.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from jqlight.escape import THRESHOLD, WINDOW
from jqlight.names import majority
from jqlight.report.compare import TIMES, Comparison, Row

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_DASHES = ("-", "--", "-.", ":")
_PANEL_WIDTH, _PANEL_HEIGHT, _LEGEND_WIDTH, _DPI = 4.2, 3.4, 1.2, 110
_HIGHEST_SHARE = 1.05
_SHIFT = 0.015
_FEWEST_BARS = 4


@dataclass(frozen=True)
class Picture:
    """One figure of the report."""

    name: str
    """File name without ending."""
    caption: str
    png: bytes


def pictures(comparison: Comparison) -> list[Picture]:
    """All figures that the runs have something for."""
    k = f"maj@{comparison.k}" if comparison.k else "maj@k"
    spread = "mean over seeds; bars: standard deviation; dots: single runs"
    band = "line: mean over seeds; band: least to largest"
    escape = f"triangle: mean escape step (running success over {WINDOW} steps reaches {THRESHOLD:g})"
    drawn = [
        (
            "q",
            f"Held-out {k} and pass@1 at the best validation, and the escape step, against q; {spread}. "
            "A method without a mark in the last panel never escaped.",
            _panels(
                comparison,
                [
                    _against_q("maj", f"validation {k} (share)"),
                    _against_q("pass_1", "validation pass@1 (share)"),
                    _against_q("escape", "escape step (optimizer steps)"),
                ],
            ),
        ),
        (
            "validation",
            f"Validation {k} during training; {band}.",
            _panels(comparison, [_curves(f"val/{majority(comparison.k or 0)}", f"validation {k} (share)")]),
        ),
        (
            "cold_start",
            f"Cold start. Left: mean log success; {band}; {escape}. Right: largest amplified advantage of a step "
            "(Lin & Ie 2026, Figure 3), mean over seeds; no mark where it is 0, since all rationales serve equally.",
            _panels(
                comparison,
                [
                    _curves("train/log_success", "mean log P(answer) (nats)", escape=True),
                    _spots("train/max_amplified_advantage", "largest amplified advantage, M score"),
                ],
            ),
        ),
        ("cost", f"What a run costs: {spread.split(';')[0]}.", _panels(comparison, [_minutes, _tokens])),
    ]
    return [Picture(name, caption, _png(figure)) for name, caption, figure in drawn if figure is not None]


Panel = Callable[[Axes, Sequence[Row]], bool]
"""Draws rows; False when they have nothing to draw."""


def _panels(comparison: Comparison, panels: Sequence[Panel]) -> Figure | None:
    """One line of panels for each place; None when nothing was drawn."""
    places = comparison.places()
    figure = Figure(
        figsize=(_PANEL_WIDTH * max(2, len(panels)) + _LEGEND_WIDTH, _PANEL_HEIGHT * len(places)),
        dpi=_DPI,
        layout="constrained",
    )
    grid = figure.subplots(len(places), len(panels), squeeze=False)
    anything = False
    for axes_of_place, (place, rows) in zip(grid, places.items(), strict=True):
        for axes, panel in zip(axes_of_place, panels, strict=True):
            drawn = panel(axes, rows)
            anything = anything or drawn
            if not drawn:
                axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color="#666666")
                axes.set(xticks=[], yticks=[])
            axes.set_title(place, fontsize="medium")
            axes.grid(alpha=0.25)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes_of_place[0].get_legend_handles_labels()
        if handles:
            axes_of_place[-1].legend(
                handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small"
            )
    return figure if anything else None


def _against_q(column: str, label: str) -> Panel:
    def draw(axes: Axes, rows: Sequence[Row]) -> bool:
        shown = [row for row in rows if row.spread(column).n]
        commitments = list(
            dict.fromkeys(row.setting.q for row in shown if row.setting.q and row.setting.q_number is None)
        )
        styles = dict(zip(dict.fromkeys(row.setting.estimator for row in rows), _styles()))
        with_q = list(dict.fromkeys(row.setting.estimator for row in shown if row.setting.q))
        for estimator, (colour, marker, dash) in styles.items():
            own = [row for row in shown if row.setting.estimator == estimator]
            for row in (row for row in own if not row.setting.q):
                _level(axes, row, column, colour, dash)
            # Side by side, where two estimators have the same q.
            shift = _SHIFT * (with_q.index(estimator) - (len(with_q) - 1) / 2) if estimator in with_q else 0.0
            placed = [(row, _place(row, commitments) + shift) for row in own if row.setting.q]
            _points(axes, placed, column, (colour, marker, dash), estimator)
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
        beyond = [_beyond(number) for number in range(len(commitments))]
        axes.set_xticks([*ticks, *beyond], [*(f"{tick:g}" for tick in ticks), *commitments], fontsize="small")
        for tick in axes.get_xticklabels()[len(ticks) :]:
            tick.set(rotation=25, ha="right", rotation_mode="anchor")
        axes.set(xlabel="q (commitment)", ylabel=label, xlim=(-0.06, max([1.06, *(at + 0.12 for at in beyond)])))
        if column != "escape":
            axes.set_ylim(-0.02, min(_HIGHEST_SHARE, axes.get_ylim()[1]))
        return bool(shown)

    return draw


def _level(axes: Axes, row: Row, column: str, colour: str, dash: str) -> None:
    """An estimator without q: a line across, with its spread as a band."""
    found = row.spread(column)
    assert found.mean is not None
    axes.axhline(found.mean, color=colour, linestyle=":", linewidth=1.5, label=f"{row.setting.estimator} (no q)")
    if found.deviation:
        axes.axhspan(found.mean - found.deviation, found.mean + found.deviation, color=colour, alpha=0.12, linewidth=0)


def _points(
    axes: Axes, placed: list[tuple[Row, float]], column: str, style: tuple[str, str, str], estimator: str
) -> None:
    colour, marker, dash = style
    for numbers in (True, False):
        own = [(row, x) for row, x in placed if (row.setting.q_number is not None) == numbers]
        found = [row.spread(column) for row, _ in own]
        label = (
            estimator if own and (numbers or not any(row.setting.q_number is not None for row, _ in placed)) else None
        )
        axes.errorbar(
            [x for _, x in own],
            [spread.mean or 0.0 for spread in found],
            yerr=[spread.deviation or 0.0 for spread in found],
            color=colour,
            marker=marker,
            linestyle=dash if numbers else "none",
            capsize=3,
            label=label,
        )
        for row, x in own:
            singles = [outcome.values[column] for outcome in row.outcomes if column in outcome.values]
            axes.plot([x] * len(singles), singles, ".", color=colour, alpha=0.5, markersize=4)


def _place(row: Row, commitments: list[str]) -> float:
    number = row.setting.q_number
    return number if number is not None else _beyond(commitments.index(row.setting.q))


def _beyond(number: int) -> float:
    """Where the commitments that are not a number stand, to the right of q = 1."""
    return 1.2 + 0.2 * number


def _curves(key: str, label: str, *, escape: bool = False) -> Panel:
    def draw(axes: Axes, rows: Sequence[Row]) -> bool:
        drawn = False
        for row, (colour, marker, dash) in zip(rows, _styles(), strict=False):
            curve = [point for point in row.mean_curve(key) if all(map(math.isfinite, point))]
            if not curve:
                continue
            drawn = True
            steps, means, least, largest = zip(*curve)
            every = max(1, len(steps) // 8)
            axes.plot(
                steps,
                means,
                color=colour,
                linestyle=dash,
                linewidth=1.5,
                label=row.setting.method,
                marker=marker,
                markersize=4,
                markevery=every,
            )
            axes.fill_between(steps, least, largest, color=colour, alpha=0.12, linewidth=0)
            escaped = row.spread("escape")
            if escape and escaped.mean is not None:
                at = min(range(len(steps)), key=lambda i: abs(steps[i] - escaped.mean))
                axes.plot(steps[at], means[at], "v", color=colour, markersize=9, markeredgecolor="black")
        axes.set(xlabel="optimizer step", ylabel=label)
        axes.set_xlim(left=0)
        return drawn

    return draw


def _spots(key: str, label: str) -> Panel:
    """Positive values on a logarithmic axis, one mark a step: a line would dive between the steps that are 0."""

    def draw(axes: Axes, rows: Sequence[Row]) -> bool:
        drawn = False
        for row, (colour, marker, _) in zip(rows, _styles(), strict=False):
            positive = [(step, mean) for step, mean, _, _ in row.mean_curve(key) if 0 < mean < math.inf]
            if positive:
                drawn = True
                axes.plot(*zip(*positive), marker, color=colour, markersize=3, alpha=0.8, label=row.setting.method)
        axes.set(xlabel="optimizer step", ylabel=label, yscale="log")
        return drawn

    return draw


def _minutes(axes: Axes, rows: Sequence[Row]) -> bool:
    """Stacked bars: minutes of training by phase."""
    shown = [row for row in rows if row.spread("minutes").n]
    left = [0.0] * len(shown)
    for key, colour, hatch in zip(TIMES, _COLOURS, ("", "//", "..", "xx")):
        seconds = [
            sum(sum(value for _, value in outcome.record.curve(key)) for outcome in row.outcomes) / len(row.outcomes)
            for row in shown
        ]
        minutes = [value / 60 for value in seconds]
        axes.barh(
            [row.setting.method for row in shown],
            minutes,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=key.removeprefix("time/"),
        )
        left = [before + value for before, value in zip(left, minutes)]
    _bars_from_the_top(axes, len(shown))
    axes.set(xlabel="training time per run (minutes)")
    return bool(shown)


def _tokens(axes: Axes, rows: Sequence[Row]) -> bool:
    shown = [(row.setting.method, row.spread("tokens")) for row in rows if row.spread("tokens").n]
    means = [spread.mean or 0.0 for _, spread in shown]
    errors = [spread.deviation or 0.0 for _, spread in shown]
    axes.barh([name for name, _ in shown], means, xerr=errors, color=_COLOURS[-2], edgecolor="white", capsize=3)
    _bars_from_the_top(axes, len(shown))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set(xlabel="thinking tokens sampled per run")
    return bool(shown)


def _bars_from_the_top(axes: Axes, count: int) -> None:
    """The first bar on top, and a few bars no thicker than many."""
    axes.set_ylim(max(count, _FEWEST_BARS) - 0.5, -0.5)


def _styles() -> "cycle[tuple[str, str, str]]":
    """Colour, marker and dash pattern, a new combination each time: 7 colours, then again with others."""
    count = len(_COLOURS)
    return cycle(
        (_COLOURS[i % count], _MARKERS[(i + turn) % count], _DASHES[(i + 2 * turn) % len(_DASHES)])
        for i in range(4 * count)
        for turn in [i // count]
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
