"""Training rollouts that people can read: a step's rationales with the weight that each had in its gradient."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.benchmarks.evaluator import sample_row
from jqlight.metrics.verifiers import judge
from jqlight.objective import Coefficients
from jqlight.sampling import Rollout
from jqlight.token_format import TokenFormat

if TYPE_CHECKING:
    from jqlight.estimators.base import Estimator

EVERY = 100
"""Steps between two kept ones where no validation keeps any."""


class KeptGroup(NamedTuple):
    """One prompt's rollouts in the step that has just been taken."""

    example: Example
    rollouts: Sequence[Rollout]
    coefficients: Coefficients
    """Those of the backward pass, (1, M), in the step's unit; zeros where none was run."""
    told: Mapping[str, Tensor]
    """``log_likelihood`` of the gold answer (nats) and ``reward``, (M,) each, as far as the step has them."""


def due(step: int, max_steps: int) -> bool:
    """Whether a step's rollouts are kept, validated or not: the first step, every ``EVERY`` and the last."""
    return step in (1, max_steps) or step % EVERY == 0


def group_rows(group: KeptGroup, module: "Estimator") -> list[dict[str, Any]]:
    """One record per rollout, its keys those of ``Evaluator.rows`` and of :func:`rollout_facts`, and further:

    ``weight``, the rationale's coefficient over the sum of the group's absolute ones, in [-1, 1], and
    ``answer_weight``, the same of the answer's tokens; ``log_likelihood``, log p(gold answer | prompt, rationale) in
    nats, null where the step scored a sampled answer instead; ``reward``, null where the estimator has none. ``answer``
    and ``verdicts`` are null where none was sampled.
    """
    weights, answer_weights = (_shares(part[0]) for part in group.coefficients)
    told = {name: group.told[name].tolist() if name in group.told else None for name in ("log_likelihood", "reward")}
    rows = []
    for m, rollout in enumerate(group.rollouts):
        answer, verdicts = _judged(group.example, rollout, module) if module.samples_answers else (None, None)
        numbers = {name: _finite(values[m]) if values else None for name, values in told.items()}
        shares = {"weight": weights[m], "answer_weight": answer_weights[m]}
        rationale = module.token_format.decode(rollout.rationale_ids)
        facts = {**shares, **numbers, **rollout_facts(rollout, module.token_format)}
        rows.append({**sample_row(group.example, m, rationale, answer, verdicts), **facts})
    return rows


def rollout_facts(rollout: Rollout, token_format: TokenFormat) -> dict[str, Any]:
    """``length`` of a rationale in tokens, whether the thinking budget ``truncated`` it, whether it is ``empty``."""
    ids = rollout.rationale_ids
    return {"length": len(ids), "truncated": rollout.truncated, "empty": token_format.is_blank(ids)}


def _judged(example: Example, rollout: Rollout, module: "Estimator") -> tuple[str, dict[str, float]]:
    answer = module.token_format.decode_answer(rollout.answer_ids)
    verifiers = module.benchmark.verifiers
    return answer, {p.rstrip("_") or "match": judge(v, [answer], example.references)[0] for p, v in verifiers.items()}


def _shares(coefficients: Tensor) -> list[float]:
    total = coefficients.abs().sum()
    return (coefficients / total if total > 0 else coefficients * 0).tolist()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON knows no infinity
