"""MuSiQue-Ans (Trivedi et al., 2022): questions of two to four hops over twenty paragraphs."""

from collections.abc import Mapping
from typing import ClassVar

from jqlight.benchmarks import prompts, records
from jqlight.benchmarks.examples import Item
from jqlight.benchmarks.paragraphs import ParagraphBenchmark
from jqlight.benchmarks.records import HubSource, Record, Split
from jqlight.metrics.official import musique_f1
from jqlight.metrics.verifiers import Verifier


class MuSiQue(ParagraphBenchmark):
    """MuSiQue-Ans: official JSON Lines (``musique_ans_v1.0_train.jsonl``, ``..._dev.jsonl``) or the hub.

    The official test set has no answers, so validation and test are the two halves of the dev set, divided by a hash of
    the question id, unless the folder has a ``test.jsonl``. Unanswerable records (MuSiQue-Full) are dropped.
    """

    task: ClassVar[str] = prompts.MUSIQUE
    sizes: ClassVar[Mapping[Split, int]] = {"train": 9985, "validation": 579, "test": 445}
    files: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": (*records.FILES["train"][:4], "musique_ans*train*.jsonl", *records.FILES["train"][4:]),
        "validation": (*records.FILES["validation"][:8], "musique_ans*dev*.jsonl", *records.FILES["validation"][8:]),
        "test": records.FILES["test"],
    }
    hub: ClassVar[HubSource | None] = HubSource("dgslibisey/MuSiQue")
    verifiers: ClassVar[Mapping[str, Verifier]] = {**ParagraphBenchmark.verifiers, "f1_": musique_f1}

    def item(self, record: Record) -> Item:
        """Paragraphs and question; the aliases are further references for the official scores."""
        if "answerable" in record and not record.flag("answerable"):
            return Item("", "", unusable="not answerable")
        paragraphs, missing = record.objects("paragraphs"), set()
        if self.context == "gold":
            hops = record.objects("question_decomposition") if "question_decomposition" in record else []
            named = {hop.get("paragraph_support_idx") for hop in hops} - {None}
            missing = {f"number {i}" for i in named - {paragraph.get("idx") for paragraph in paragraphs}}
            paragraphs = [paragraph for paragraph in paragraphs if paragraph.flag("is_supporting")]
        titled = [(paragraph.text("title"), paragraph.text("paragraph_text")) for paragraph in paragraphs]
        return self.question(record, titled, missing)
