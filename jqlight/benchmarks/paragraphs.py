"""What the benchmarks of questions over titled paragraphs share: the choice of paragraphs and the official scores."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

from jqlight.benchmarks import prompts
from jqlight.benchmarks.base import Benchmark
from jqlight.benchmarks.examples import Item
from jqlight.benchmarks.records import Record
from jqlight.errors import ConfigError
from jqlight.metrics.official import fold_answer, official_em
from jqlight.metrics.verifiers import Verifier, on_answer, word_match
from jqlight.metrics.voting import visible


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

    def question(self, record: Record, paragraphs: Sequence[tuple[str, str]], missing: Collection[str]) -> Item:
        """The item of a record's paragraphs, already chosen; unusable where it lacks supporting ones or any text.

        Args:
            record: has question, answer and, where the data have them, ``answer_aliases``.
            paragraphs: title and text of each.
            missing: names of supporting paragraphs that are not in the record.
        """
        missing = missing or {title for title, text in paragraphs if not visible(text)}
        if self.context == "gold" and (missing or not paragraphs):
            lacks = f"lacks the supporting paragraph {min(missing)!r}" if missing else "names no supporting paragraph"
            problem = f"data.context: given gold, but {record.where} {lacks}; allowed for such data is full"
            return Item("", "", unusable="gold paragraph missing", problem=problem)
        question = record.text("question")
        if not visible(question):
            return Item("", "", unusable="empty question")
        if not any(visible(text) for _, text in paragraphs):
            return Item("", "", unusable="paragraphs without text")
        text = prompts.question_over_paragraphs(paragraphs, question)
        return Item(text, record.text("answer"), tuple(record.aliases("answer_aliases")), question=question)

    @staticmethod
    def normalise(answer: str) -> str:
        """The official normal form, or the folded text where that is empty; see :func:`fold_answer`."""
        return fold_answer(answer)
