"""Figures of a comparison, as PNG bytes.

Colours are those of Okabe and Ito, which readers with any kind of colour vision can tell apart; every line also has a
marker or a dash pattern of its own, so that the figures survive a black-and-white print.
"""

import base64
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogFormatter, NullFormatter

from jqlight.escape import THRESHOLD, WINDOW
from jqlight.names import majority
from jqlight.report.compare import TIMES, Comparison, Setting, mean_curve
from jqlight.report.verdicts import escapes_of

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_DASHES = ("-", "--", "-.", ":")
_PANEL_WIDTH, _PANEL_HEIGHT, _LEGEND_WIDTH, _DPI = 4.2, 3.4, 1.2, 110
_HIGHEST_SHARE = 1.05
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Two estimators with the same q are drawn side by side; commitments that are no number, to the right of q = 1.
_SHIFT, _FIRST_BEYOND, _STEP_BEYOND = 0.015, 1.2, 0.2
_FEWEST_BARS = 4

Settings = Mapping[Setting, pd.DataFrame]
"""The runs of each setting of a panel."""
Draw = Callable[[Axes, Settings], bool]
"""Draws a panel; False when there is nothing to draw."""
Style = tuple[str, str, str]
"""Colour, marker and dash pattern."""


@dataclass(frozen=True)
class Picture:
    """One figure of the report."""

    name: str
    """File name without ending."""
    caption: str
    png: bytes

    @property
    def base64(self) -> str:
        """The PNG as text."""
        return base64.b64encode(self.png).decode()


def pictures(comparison: Comparison) -> list[Picture]:
    """All figures that the runs have something for."""
    k = f"maj@{comparison.k}" if comparison.k else "maj@k"
    spread = "mean over seeds; bars: standard deviation, from three seeds on; dots: single runs"
    band = "line: mean over seeds; band: least to largest"
    escape = (
        f"triangle: median escape step, where half of the runs escaped (running success over {WINDOW} steps reaches "
        f"{THRESHOLD:g})"
    )
    planned: list[tuple[str, str, list[Draw]]] = [
        (
            "q",
            f"Held-out {k} and pass@1 at the best validation, and the escape step, against q; {spread}. "
            "The last panel has the runs that escaped; those that never did have no dot, so that a mean would mislead.",
            [
                partial(_against_q, column="maj", label=f"validation {k} (share)"),
                partial(_against_q, column="pass_1", label="validation pass@1 (share)"),
                partial(_against_q, column="escape", label="escape step (optimizer steps)"),
            ],
        ),
        (
            "validation",
            f"Validation {k} during training; {band}.",
            [partial(_curves, key=f"val/{majority(comparison.k or 'k')}", label=f"validation {k} (share)")],
        ),
        (
            "cold_start",
            f"Cold start. Left: mean log success; {band}; {escape}. Right: largest amplified advantage of a step "
            "(Lin & Ie 2026, Figure 3), mean over seeds; no mark where it is 0, since all rationales serve equally.",
            [
                partial(_curves, key="train/log_success", label="mean log P(answer) (nats)", escape=True),
                partial(_spots, key="train/max_amplified_advantage", label="largest amplified advantage, M score"),
            ],
        ),
        ("cost", f"What a run costs: {spread.split(';')[0]}.", [_minutes, _tokens]),
    ]
    with rc_context({"text.parse_math": False}):  # a $ in a name is a $
        figures = [(name, caption, _figure(comparison, draws)) for name, caption, draws in planned]
        return [Picture(name, caption, _png(figure)) for name, caption, figure in figures if figure is not None]


def _figure(comparison: Comparison, draws: Sequence[Draw]) -> Figure | None:
    """One line of panels for each benchmark, scenario and so on; None when nothing was drawn."""
    panels = comparison.panels()
    figure = Figure(
        figsize=(_PANEL_WIDTH * max(2, len(draws)) + _LEGEND_WIDTH, _PANEL_HEIGHT * len(panels)),
        dpi=_DPI,
        layout="constrained",
    )
    grid = figure.subplots(len(panels), len(draws), squeeze=False)
    anything = False
    for line, (title, settings) in zip(grid, panels.items(), strict=True):
        for axes, draw in zip(line, draws, strict=True):
            drawn = draw(axes, settings)
            anything = anything or drawn
            if not drawn:
                axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color="#666666")
                axes.set(xticks=[], yticks=[])
            axes.set_title(title, fontsize="medium")
            axes.grid(alpha=0.25)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = line[0].get_legend_handles_labels()
        if handles:
            line[-1].legend(
                handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small"
            )
    return figure if anything else None


def _against_q(axes: Axes, settings: Settings, *, column: str, label: str) -> bool:
    shown = {setting: runs[column].dropna() for setting, runs in settings.items() if runs[column].count()}
    commitments = list(dict.fromkeys(setting.q for setting in shown if setting.q and setting.q_number is None))
    beyond = {q: _FIRST_BEYOND + _STEP_BEYOND * i for i, q in enumerate(commitments)}
    with_q = list(dict.fromkeys(setting.estimator for setting in shown if setting.q))
    for estimator, style in zip(dict.fromkeys(setting.estimator for setting in settings), _styles()):
        own = {setting: found for setting, found in shown.items() if setting.estimator == estimator}
        shift = _SHIFT * (with_q.index(estimator) - (len(with_q) - 1) / 2) if estimator in with_q else 0.0
        for setting, found in own.items():
            if not setting.q and column != "escape":
                _level(axes, found, style[0], f"{estimator} (no q)")
        numbers = {s.q_number + shift: found for s, found in own.items() if s.q_number is not None}
        others = {beyond[s.q] + shift: found for s, found in own.items() if s.q in beyond}
        means = column != "escape"  # a mean over those that escaped would leave the late ones out
        _points(axes, numbers, style, estimator, means=means)
        _points(axes, others, (*style[:2], "none"), None if numbers else estimator, means=means)
    axes.set_xticks([*_TICKS, *beyond.values()], [*(f"{tick:g}" for tick in _TICKS), *beyond], fontsize="small")
    for tick in axes.get_xticklabels()[len(_TICKS) :]:
        tick.set(rotation=25, ha="right", rotation_mode="anchor")
    axes.set(xlabel="q (commitment)", ylabel=label, xlim=(-0.06, max([1.06, *(at + 0.12 for at in beyond.values())])))
    if column != "escape":
        axes.set_ylim(-0.02, min(_HIGHEST_SHARE, axes.get_ylim()[1]))
    return bool(shown)


def _level(axes: Axes, found: pd.Series, colour: str, label: str) -> None:
    """An estimator without q: a line across, with its spread as a band."""
    mean, deviation = found.mean(), found.std()
    axes.axhline(mean, color=colour, linestyle=":", linewidth=1.5, label=label)
    if deviation > 0:
        axes.axhspan(mean - deviation, mean + deviation, color=colour, alpha=0.12, linewidth=0)


def _points(axes: Axes, placed: Mapping[float, pd.Series], style: Style, label: str | None, *, means: bool) -> None:
    """The single runs as dots, and where ``means`` their means, with bars from three runs on."""
    if not placed:
        return
    colour, marker, dash = style
    if means:
        centres = [found.mean() for found in placed.values()]
        bars = [found.std() if len(found) > 2 else 0.0 for found in placed.values()]
        axes.errorbar(
            list(placed), centres, yerr=bars, color=colour, marker=marker, linestyle=dash, capsize=3, label=label
        )  # fmt: skip
    for x, found in placed.items():
        look: Any = {"alpha": 0.5, "markersize": 4} if means else {"markersize": 6, "label": label}
        axes.plot([x] * len(found), found, "." if means else marker, color=colour, **look)
        label = None


def _curves(axes: Axes, settings: Settings, *, key: str, label: str, escape: bool = False) -> bool:
    drawn = False
    for (setting, runs), (colour, marker, dash) in zip(settings.items(), _styles()):
        curve = mean_curve(runs, key).replace([math.inf, -math.inf], math.nan).dropna()
        if curve.empty:
            continue
        drawn = True
        look: Any = {"color": colour, "linestyle": dash, "linewidth": 1.5, "marker": marker, "markersize": 4}
        axes.plot(curve.index, curve["mean"], label=setting.method, markevery=max(1, len(curve) // 8), **look)
        axes.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.12, linewidth=0)
        if escape and (median := escapes_of(runs).median) is not None:
            at = int(np.abs(curve.index - median).argmin())
            axes.plot(
                curve.index[at], curve["mean"].iloc[at], "v", color=colour, markersize=9, markeredgecolor="black"
            )  # fmt: skip
    axes.set(xlabel="optimizer step", ylabel=label)
    axes.set_xlim(left=0)
    return drawn


def _spots(axes: Axes, settings: Settings, *, key: str, label: str) -> bool:
    """Positive values on a logarithmic axis, one mark a step: a line would dive between the steps that are 0."""
    drawn = False
    for (setting, runs), (colour, marker, _) in zip(settings.items(), _styles()):
        means = mean_curve(runs, key)["mean"]
        positive = means[(means > 0) & (means < math.inf)]
        if len(positive):
            drawn = True
            axes.plot(positive, marker, color=colour, markersize=3, alpha=0.8, label=setting.method)
    axes.set(xlabel="optimizer step", ylabel=label, yscale="log")
    # The stock ones write 10^-3 as mathematics.
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    return drawn


def _minutes(axes: Axes, settings: Settings) -> bool:
    """Stacked bars: minutes of training by phase."""
    shown = {setting.method: runs for setting, runs in settings.items() if runs["minutes"].count()}
    left = np.zeros(len(shown))
    for key, colour, hatch in zip(TIMES, _COLOURS, ("", "//", "..", "xx")):
        minutes = [np.mean([sum(dict(run.curve(key)).values()) / 60 for run in r["record"]]) for r in shown.values()]
        look: Any = {"color": colour, "hatch": hatch, "edgecolor": "white", "label": key.removeprefix("time/")}
        axes.barh(list(shown), minutes, left=left, **look)
        left += minutes
    _bars_from_the_top(axes, len(shown))
    axes.set(xlabel="training time per run (minutes)")
    return bool(shown)


def _tokens(axes: Axes, settings: Settings) -> bool:
    shown = {setting.method: runs["tokens"] for setting, runs in settings.items() if runs["tokens"].count()}
    means, errors = [tokens.mean() for tokens in shown.values()], [tokens.std() for tokens in shown.values()]
    axes.barh(list(shown), means, xerr=np.nan_to_num(errors), color=_COLOURS[-2], edgecolor="white", capsize=3)
    _bars_from_the_top(axes, len(shown))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set(xlabel="thinking tokens sampled per run")
    return bool(shown)


def _bars_from_the_top(axes: Axes, count: int) -> None:
    """The first bar on top, and a few bars no thicker than many."""
    axes.set_ylim(max(count, _FEWEST_BARS) - 0.5, -0.5)


def _styles() -> Iterator[Style]:
    """A new combination each time: 7 colours, then again with other markers and dashes."""
    i, colours = 0, len(_COLOURS)
    while True:
        cycle_number = i // colours
        yield (
            _COLOURS[i % colours],
            _MARKERS[(i + cycle_number) % colours],
            _DASHES[(i + 2 * cycle_number) % len(_DASHES)],
        )
        i += 1


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
