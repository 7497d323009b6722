"""HotpotQA, distractor setting (Yang et al., 2018): two-hop questions over ten paragraphs."""

from collections.abc import Mapping
from typing import Any, ClassVar

from jqlight.benchmarks import prompts, records
from jqlight.benchmarks.examples import Item
from jqlight.benchmarks.paragraphs import ParagraphBenchmark
from jqlight.benchmarks.records import HubSource, Record, Split
from jqlight.errors import DataError
from jqlight.metrics.official import hotpotqa_f1
from jqlight.metrics.verifiers import Verifier


class HotpotQA(ParagraphBenchmark):
    """HotpotQA: official JSON (``hotpot_train_v1.1.json``, ``hotpot_dev_distractor_v1.json``) or the hub.

    The official test set has no answers, so validation and test are the two halves of the dev set, divided by a hash of
    the question id, unless the folder has a ``test.json``. ``context: gold`` keeps the paragraphs that the supporting
    facts name.
    """

    task: ClassVar[str] = prompts.HOTPOTQA
    sizes: ClassVar[Mapping[Split, int]] = {"train": 9067, "validation": 342, "test": 343}
    id_field: ClassVar[str] = "_id"
    files: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        **records.FILES,
        "validation": (*records.FILES["validation"][:8], "*dev_distractor*.json"),
    }
    hub: ClassVar[HubSource | None] = HubSource("hotpotqa/hotpot_qa", "distractor", id_field="id")
    verifiers: ClassVar[Mapping[str, Verifier]] = {**ParagraphBenchmark.verifiers, "f1_": hotpotqa_f1}

    def item(self, record: Record) -> Item:
        """Paragraphs and question; the gold answer is the record's own."""
        paragraphs = _paragraphs(record)
        if self.context == "full":
            return self.question(record, paragraphs, ())
        gold = {title for title, _ in _pairs(record, "supporting_facts", "sent_id")}
        kept = [(title, text) for title, text in paragraphs if title in gold]
        return self.question(record, kept, gold - {title for title, _ in kept})


def _paragraphs(record: Record) -> list[tuple[str, str]]:
    """Title and text of each paragraph; sentences carry their own leading space, so they are joined by nothing."""
    paragraphs = []
    for title, sentences in _pairs(record, "context", "sentences"):
        if not isinstance(sentences, list):
            raise DataError(f"{record.where}: field 'context' must hold lists of sentences, given {sentences!r:.60}")
        texts = [record.as_text(sentence, "context", "lists of sentences") for sentence in sentences]
        paragraphs.append((title, "".join(texts)))
    return paragraphs


def _pairs(record: Record, key: str, second: str) -> list[tuple[str, Any]]:
    """``[[title, x], ...]`` of the official files, or ``{"title": [...], second: [...]}`` of the hub, as pairs."""
    if isinstance(record[key], Mapping):
        columns = record.inner(key)
        return list(zip(columns.texts("title"), columns.items_of(second), strict=True))
    pairs = record.items_of(key)
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise DataError(f"{record.where}: field '{key}' must be a list of [title, ...] pairs, given {pairs!r:.60}")
    return [(record.as_text(title, key, "a list of [title, ...] pairs"), value) for title, value in pairs]
