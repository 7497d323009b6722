"""FinQA (Chen et al., 2021): numerical questions over a page of a financial report, text and table."""

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

from jqlight.benchmarks import prompts
from jqlight.benchmarks.base import Benchmark
from jqlight.benchmarks.examples import Item
from jqlight.benchmarks.records import Record, Split, read_file
from jqlight.errors import DataError
from jqlight.hub import cache_folder, fetch
from jqlight.metrics.numbers import whole_number
from jqlight.metrics.official import finqa_strict, fold_number
from jqlight.metrics.verifiers import Verifier, numeric_match, on_answer, on_value, word_match
from jqlight.metrics.voting import visible

_ORIGINAL = "https://raw.githubusercontent.com/czyssrs/FinQA/main/dataset"

_SAME_NUMBER = 0.05
"""Relative difference up to which the annotator's string and the executed value are the same number, hand-rounded."""


class FinQA(Benchmark):
    """FinQA: the original JSON files (``train.json``, ``dev.json``, ``test.json``), from a folder or downloaded.

    The gold string y* is the executed value ``exe_ans`` in the annotator's notation, see :func:`canonical_answer`; the
    last reference is ``exe_ans`` itself, by which ``value_`` (tolerant) and ``strict_`` score.
    """

    task: ClassVar[str] = prompts.FINQA
    sizes: ClassVar[Mapping[Split, int]] = {"train": 6145, "validation": 872, "test": 1132}
    verifiers: ClassVar[Mapping[str, Verifier]] = {
        **Benchmark.verifiers,
        "word_": on_answer(word_match),
        "value_": on_value(numeric_match),
        "strict_": on_value(finqa_strict),
    }

    def read(self, split: Split) -> Iterable[Record]:
        """The records of a split, from ``path`` or from the original files on GitHub.

        The copies on the hub lack ``exe_ans`` or do not load any more, so they are not used.
        """
        if self.path is not None:
            return super().read(split)
        name = "dev" if split == "validation" else split
        return read_file(fetch(f"{_ORIGINAL}/{name}.json", cache_folder("finqa")), self.id_field)

    @staticmethod
    def normalise(answer: str) -> str:
        """The value that the answer states, or its folded text; see :func:`fold_number`."""
        return fold_number(answer)

    def item(self, record: Record) -> Item:
        """Text, table and question; y* in the annotator's notation and the executed value as last reference."""
        qa = record.inner("qa")
        try:
            executed = executed_value(qa["exe_ans"])
        except (TypeError, OverflowError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            given = f"given {qa['exe_ans']!r:.60}"
            raise DataError(f"{qa.where}: field 'exe_ans' must be a number, 'yes' or 'no', {given}") from error
        question, before, after, table = (
            qa.text("question"),
            *map(record.texts, ("pre_text", "post_text")),
            _table(record),
        )
        if not visible(question):
            return Item("", "", unusable="empty question")
        text = prompts.question_over_report(before, table, after, question)
        if text == prompts.question_over_report([], [], [], question):
            return Item("", "", unusable="page without text and table")
        return Item(text, canonical_answer(qa.text("answer"), executed), (plain_value(executed),))


def executed_value(given: object) -> float | str:
    """``exe_ans`` as a number, "yes" or "no"; a number may be written as text, as in a column cast to one type.

    Raises:
        TypeError: no number or text.
        ValueError: another text, or a number that is not finite.
    """
    if isinstance(given, str) and given.strip().lower() in ("yes", "no"):
        return given.strip().lower()
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise TypeError(f"{given!r}")
    # float() would read Python's own "1_000" too
    if not math.isfinite(value := float(given)) or "_" in str(given):
        raise ValueError(f"{given!r}")
    return value


def canonical_answer(annotated: str, executed: float | str) -> str:
    """The gold string y*: the executed value, written as the annotator wrote it.

    Of the 270 records that were counted, 134 annotators write the fraction ``exe_ans`` as a percentage ("34.7%" for
    0.34719) and 92 a plain number, both to the digits that they show; 27 do not state the value (wrong sign, hand
    rounding, another number, nothing). So the value is always ``exe_ans``, the notation (percent sign, number of
    decimals) is the annotator's as long as both are one number (sign and hand rounding aside), and otherwise the plain
    value. No currency, no thousands separators, no unit: "34.7%", "22441", "-0.2", "yes".
    """
    executed = executed_value(executed)
    if isinstance(executed, str):
        return executed
    written = whole_number(annotated)
    if written is None:
        return plain_value(executed)
    decimals = max(written.decimals, 0)
    for value in (100 * executed, executed) if written.percent else (executed,):
        text = f"{value:.{decimals}f}"
        # A percentage in whole points may be as coarse as it likes, "1%" for 0.00764; but nothing rounds to zero.
        coarse = 0.5 * 10.0**-decimals if written.percent else 0.0
        same = abs(abs(written.value) - abs(value)) <= max(_SAME_NUMBER * abs(value), coarse)
        if same and (float(text) != 0) == (executed != 0):
            return text + "%" * written.percent
    return plain_value(executed)


def plain_value(executed: float | str) -> str:
    """``exe_ans`` as text: at most five decimals, no exponent, no trailing zeros; "yes" and "no" as they are."""
    executed = executed_value(executed)
    return executed if isinstance(executed, str) else f"{executed:z.5f}".rstrip("0").rstrip(".")


def _table(record: Record) -> list[list[str]]:
    rows = record.items_of("table")
    if not all(isinstance(row, list) for row in rows):
        raise DataError(f"{record.where}: field 'table' must be a list of rows of strings, given {rows!r:.60}")
    return [
        [record.as_text("" if cell is None else cell, "table", "a list of rows of strings") for cell in row]
        for row in rows
    ]
