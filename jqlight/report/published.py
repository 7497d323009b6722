"""Published numbers beside ours: the ``published`` section of a sweep file, matched with a comparison's rows.

::

    published:
      source: Lin & Ie (2026), cold start, Qwen3-0.6B, test split
      rows:                             # percent; a method without our own runs is shown all the same
        - {benchmark: FinQA, scenario: cold, estimator: GARL, q: 0.75, pass_at_1: 30.5, maj_at_16: 38.3}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jqlight.errors import ConfigError
from jqlight.names import majority, pass_at
from jqlight.report.compare import Comparison, Row, Setting, Spread, as_number

_WHAT = ("benchmark", "scenario", "estimator", "q")
_COLUMNS = {pass_at(1): "pass_1", pass_at(16): "pass_k", majority(16): "maj"}


@dataclass(frozen=True)
class Published:
    """One published result."""

    setting: Setting
    percent: Mapping[str, float]
    """Metric name -> percent."""


@dataclass(frozen=True)
class Beside:
    """One published number with ours."""

    published: Published
    metric: str
    ours: Spread
    """Shares in [0, 1]."""
    split: str
    """Which of our numbers it is: ``test``, ``validation``, or empty without a run."""


def read_published(section: Mapping[str, Any] | None, where: str) -> tuple[str, list[Published]]:
    """Source and results of a ``published`` section; nothing for None.

    Raises:
        ConfigError: a row that names no metric, or something that is neither a metric nor a setting.
    """
    if not section:
        return "", []
    found = []
    for row in section.get("rows") or []:
        percent = {name: float(row[name]) for name in _COLUMNS if name in row}
        unknown = [key for key in row if key not in (*_WHAT, *_COLUMNS)]
        if unknown or not percent:
            allowed = ", ".join([*_WHAT, *_COLUMNS])
            raise ConfigError(f"{where}: published: given {dict(row)!r}, allowed are {allowed}, one metric at least")
        benchmark, scenario, estimator, q = (_spelled(row.get(key, "")) for key in _WHAT)
        found.append(Published(Setting(benchmark, scenario, estimator, q), percent))
    return str(section.get("source", "published")), found


def beside(comparison: Comparison, published: Sequence[Published]) -> list[Beside]:
    """Every published number with ours: the test split's where we have it, else the best validation's."""
    table = []
    for result in published:
        row = next((row for row in comparison.rows if _same(row, result.setting)), None)
        for metric in result.percent:
            tested = row.spread(f"test_{_COLUMNS[metric]}") if row else Spread(0)
            ours = tested if tested.n or row is None else row.spread(_COLUMNS[metric])
            split = "" if not ours.n else "test" if tested.n else "validation"
            table.append(Beside(result, metric, ours, split))
    return table


def _same(row: Row, setting: Setting) -> bool:
    mine = row.setting
    if (mine.benchmark, mine.scenario, mine.estimator) != (setting.benchmark, setting.scenario, setting.estimator):
        return False
    return mine.q == setting.q or (mine.q_number is not None and mine.q_number == setting.q_number)


def _spelled(value: Any) -> str:
    number = as_number(str(value))
    return f"{number:g}" if number is not None else str(value)
