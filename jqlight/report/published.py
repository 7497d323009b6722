"""Published numbers and ours: the ``published`` section of a sweep file, matched with a comparison's settings.

::

    published:
      source: Lin & Ie (2026), cold start, Qwen3-0.6B, test split
      rows:                             # percent; a method without our own runs is shown all the same
        - {benchmark: FinQA, scenario: cold, estimator: GARL, q: 0.75, pass_at_1: 30.5, maj_at_16: 38.3}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from jqlight.errors import ConfigError
from jqlight.names import format_value, majority, pass_at
from jqlight.report.compare import COLUMNS, Comparison, Setting
from jqlight.report.tables import spread_text

_WHAT = ("benchmark", "scenario", "estimator", "q")
_METRICS = {pass_at(1): "pass_1", pass_at(16): "pass_k", majority(16): "maj"}


@dataclass(frozen=True)
class Published:
    """One published result."""

    setting: Setting
    percent: Mapping[str, float]
    """Metric name -> percent."""


def read_published(section: Mapping[str, Any] | None, where: str) -> tuple[str, list[Published]]:
    """Source and results of a ``published`` section; nothing for None.

    Raises:
        ConfigError: a row that names no metric, or something that is neither a metric nor a setting.
    """
    if not section:
        return "", []
    found = []
    for row in section.get("rows") or []:
        percent = {name: float(row[name]) for name in _METRICS if name in row}
        unknown = [key for key in row if key not in (*_WHAT, *_METRICS)]
        if unknown or not percent:
            allowed = ", ".join([*_WHAT, *_METRICS])
            raise ConfigError(f"{where}: published: given {dict(row)!r}, allowed are {allowed}, one metric at least")
        benchmark, scenario, estimator, q = (format_value(row.get(key, "")) for key in _WHAT)
        found.append(Published(Setting(benchmark, scenario, estimator, q), percent))
    return str(section.get("source", "published")), found


def compare_with_published(comparison: Comparison, published: Sequence[Published]) -> pd.DataFrame:
    """Table of text: every published number and ours in percent, the test split's or else the best validation's."""
    rows = []
    for result in published:
        alike = [runs for setting, runs in comparison.settings().items() if _key(setting) == _key(result.setting)]
        ours = alike[0] if alike else pd.DataFrame(columns=list(COLUMNS), dtype=float)
        for metric, percent in result.percent.items():
            tested, validated = (100 * ours[f"{split}{_METRICS[metric]}"] for split in ("test_", ""))
            best = tested if tested.count() else validated
            split = "" if not best.count() else "test" if tested.count() else "validation"
            rows.append(
                {
                    "setting": result.setting.panel,
                    "method": result.setting.method,
                    "metric": metric.replace("_at_", "@"),
                    "published": f"{percent:.1f}",
                    "ours": spread_text(best, 1),
                    "n": str(best.count() or ""),
                    "our split": split,
                }
            )
    return pd.DataFrame(rows).set_index(["setting", "method", "metric"]) if rows else pd.DataFrame()


def _key(setting: Setting) -> tuple[str, str, str, str | float]:
    q = setting.q if setting.q_number is None else setting.q_number
    return (setting.benchmark, setting.scenario, setting.estimator, q)
