"""Settings as MLflow's parameters: flat, short, and numbers where a chart needs numbers."""

import math
from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``a.b`` -> primitive, without empty ones, private ones and the words ``init_args``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or str(key).startswith("_"):
            continue
        name = prefix.rstrip(".") if key == "init_args" else f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}." if name else "")
        elif isinstance(value, float) and math.isfinite(value):
            flat[name] = f"{value:.12g}"
        else:
            flat[name] = value
    return flat


def numeric_q(params: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` without a ``q`` that is no number: MLflow takes a parameter for text if one run's is.

    What makes a splice or a schedule is in ``commitment`` and ``commitment.tau``, ``commitment.steps`` and so on.
    """
    return {name: value for name, value in params.items() if name != "q" or _is_number(value)}


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
