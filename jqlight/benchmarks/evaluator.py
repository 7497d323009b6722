"""One evaluator for validation, test and ``jqlight evaluate``: sampled answers in, metrics and readable rows out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from jqlight.benchmarks.examples import Example
from jqlight.metrics.base import QuestionMean
from jqlight.metrics.sampled import MajorityAtK, MeanScore, PassAtK
from jqlight.metrics.verifiers import Verifier, judge
from jqlight.metrics.voting import fold
from jqlight.names import majority, pass_at


class Evaluator(nn.Module):
    """Metrics of k sampled answers per example, for each verifier of a benchmark.

    For the prefix p of a verifier: ``{p}pass_at_1``, ``{p}pass_at_{k}``, ``{p}maj_at_{k}``; for prefixes other than the
    empty one and ``exact_`` also the mean score over all samples under the prefix's own name (``em``, ``f1``). Besides
    ``tie_rate`` and ``unanswered_rate`` of the vote. All are shares in [0, 1].

    Args:
        verifiers: metric prefix to verifier.
        k: samples per example.
        normalise: what the majority vote takes for the same answer.
        rationale_verifiers: name of a metric to the verifier whose mean score over the samples' rationales it is; see
            :attr:`jqlight.benchmarks.Benchmark.rationale_verifiers`.
    """

    def __init__(
        self,
        verifiers: Mapping[str, Verifier],
        k: int,
        normalise: Callable[[str], str] = fold,
        rationale_verifiers: Mapping[str, Verifier] | None = None,
    ) -> None:
        super().__init__()
        self.verifiers = dict(verifiers)
        self.rationale_verifiers = dict(rationale_verifiers or {})
        self.k = k
        self.metrics = nn.ModuleDict()
        self._prefixes: dict[str, str] = {}
        for prefix, verifier in verifiers.items():
            kinds: dict[str, QuestionMean] = {pass_at(n, prefix): PassAtK(n, verifier) for n in sorted({1, k})}
            kinds[majority(k, prefix)] = MajorityAtK(k, verifier, normalise)
            if prefix not in ("", "exact_"):
                kinds[prefix.rstrip("_")] = MeanScore(verifier)
            self.metrics.update(kinds)
            self._prefixes |= dict.fromkeys(kinds, prefix)
        for name, verifier in self.rationale_verifiers.items():
            self.metrics[name] = MeanScore(verifier)
            self._prefixes[name] = name
        self._rows: list[dict[str, Any]] = []
        self._ids: list[str] = []

    def update(
        self,
        examples: Sequence[Example],
        predictions: Sequence[Sequence[str]],
        rationales: Sequence[Sequence[str]] | None = None,
        facts: Sequence[Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        """Count examples: ``predictions[i]`` are the answers sampled for example i, ``rationales[i]`` their thoughts.

        ``facts[i]`` are further keys of the samples' rows. Every answer is judged once by each verifier; all metrics
        take their scores from that.

        Raises:
            ValueError: fewer than k answers for an example.
        """
        texts = dict.fromkeys(self.verifiers, (predictions, [example.references for example in examples]))
        if rationales is not None:
            subjects = [(example.prompt, *example.references) for example in examples]
            texts |= dict.fromkeys(self.rationale_verifiers, (rationales, subjects))
        verifiers = {**self.verifiers, **self.rationale_verifiers}
        scores = {
            prefix: [judge(verifiers[prefix], *question) for question in zip(*judged, strict=True)]
            for prefix, judged in texts.items()
        }
        for name, metric in self._all().items():
            if (prefix := self._prefixes[name]) in scores:
                metric.update(*texts[prefix], scores[prefix])
        self._ids += [example.id for example in examples]
        for i, example in enumerate(examples):
            for m, answer in enumerate(predictions[i]):
                verdicts = {prefix.rstrip("_") or "match": scores[prefix][i][m] for prefix in scores}
                row = sample_row(example, m, rationales[i][m] if rationales else "", answer, verdicts)
                self._rows.append({**row, **(facts[i][m] if facts else {})})

    def compute(self) -> dict[str, Tensor]:
        """All metrics by name, over all ranks; without a stage prefix."""
        values = {name: metric.compute() for name, metric in self._all().items()}
        vote = next(metric for metric in self._all().values() if isinstance(metric, MajorityAtK))
        return {**values, "tie_rate": vote.tie_rate, "unanswered_rate": vote.unanswered_rate}

    def rows(self) -> list[dict[str, Any]]:
        """One record per sample of this rank.

        Keys: id, sample, prompt, rationale, answer, reference, references and verdicts (verifier name to score; the
        paper's rule is named ``match``), and those of ``facts``.
        """
        return self._rows

    def questions(self) -> list[dict[str, Any]]:
        """One record per question of this rank: id, and the question's value of each metric that is a mean of them."""
        columns = {name: metric.values for name, metric in self._all().items()}
        return [{"id": id, **{name: column[i] for name, column in columns.items()}} for i, id in enumerate(self._ids)]

    def reset(self) -> None:
        """Forget everything counted so far."""
        for metric in self._all().values():
            metric.reset()
        self._rows, self._ids = [], []

    def _all(self) -> dict[str, QuestionMean]:
        return {name: cast(QuestionMean, metric) for name, metric in self.metrics.items()}


def sample_row(
    example: Example, sample: int, rationale: str, answer: str | None, verdicts: Mapping[str, float] | None
) -> dict[str, Any]:
    """The record of one sample, see :meth:`Evaluator.rows`; answer and verdicts are None where none was sampled."""
    return {
        "id": example.id,
        "sample": sample,
        "prompt": example.prompt,
        "rationale": rationale,
        "answer": answer,
        "reference": example.answer,
        "references": list(example.references),
        "verdicts": verdicts,
    }
