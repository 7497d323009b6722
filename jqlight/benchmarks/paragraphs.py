"""What the benchmarks of questions over titled paragraphs share: the choice of paragraphs and the official scores."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from jqlight.benchmarks.base import Benchmark
from jqlight.errors import ConfigError
from jqlight.metrics.official import fold_answer, official_em
from jqlight.metrics.verifiers import Verifier, on_answer, word_match


class ParagraphBenchmark(Benchmark):
    """A question over paragraphs, some of which hold the answer and the others distract from it.

    Args:
        context: full (all paragraphs) or gold (only the supporting ones).
        **kwargs: see :class:`Benchmark`.

    Raises:
        ConfigError: another context, or what :class:`Benchmark` refuses.
    """

    verifiers: ClassVar[Mapping[str, Verifier]] = {
        **Benchmark.verifiers,
        "word_": on_answer(word_match),
        "em_": official_em,
    }

    def __init__(self, context: Literal["full", "gold"] = "full", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if context not in ("full", "gold"):
            raise ConfigError(f"data.context: given '{context}', allowed are full and gold")
        self.context = context

    @staticmethod
    def normalise(answer: str) -> str:
        """The official normal form, or the folded text where that is empty; see :func:`fold_answer`."""
        return fold_answer(answer)
