"""What a benchmark makes of a record, :class:`Item` and then :class:`Example`, and what is to be told of many."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jqlight.errors import DataError
from jqlight.metrics.official import official_em
from jqlight.metrics.verifiers import Verifier, reads_aliases
from jqlight.metrics.voting import visible
from jqlight.token_format import TokenFormat

LONG_GOLDS = "golds longer than sampler.max_answer_tokens"
_ALIASES = "with aliases that no verifier reads"


@dataclass(frozen=True)
class Item:
    """A record as its benchmark reads it, before tokens."""

    text: str
    """The linearised input."""
    answer: str
    """y*, the one string whose probability is trained."""
    references: tuple[str, ...] = ()
    """Further golds that evaluation accepts."""
    unusable: str = ""
    """Why the record is to be dropped; empty for a usable one."""
    rationale: str = ""
    """How the answer is found, where the data say so; empty where they do not."""
    problem: str = ""
    """Where a setting is to blame for that, a sentence that names it, told when no record of the split is left."""
    question: str = ""
    """What is asked, where ``text`` holds more than that and the same question may come with another context."""


@dataclass(frozen=True)
class Example:
    """One (x*, y*) in tokens."""

    id: str
    prompt: str
    """The prompt as text, special tokens visible."""
    prompt_ids: tuple[int, ...]
    answer: str
    """y*, as the tokenizer gives it back."""
    target_ids: tuple[int, ...]
    """Separator, answer and end of sequence."""
    references: tuple[str, ...]
    """Golds that evaluation accepts, ``answer`` first."""
    rationale: str = ""
    """The data's own rationale, as text without its end of thinking; empty where they have none."""
    question: str = ""
    """The question folded, by which it is known again."""
    remarks: tuple[str, ...] = ()
    """What was done to its texts and should be known, in the words under which it is counted."""


def checked(item: object, name: str) -> Item:
    """What a benchmark's ``item`` gave, its references a tuple without blank ones; None and one string are taken too.

    Raises:
        DataError: it is no Item, or a field is of the wrong type; begins with ``name``.
    """
    if not isinstance(item, Item):
        raise DataError(f"{name} must give an Item, given {item!r:.60}")
    given = item.references or ()
    references = tuple(given) if isinstance(given, list | tuple) else (given,)
    for text in (item.text, item.answer, item.rationale, item.question, *references):
        if not isinstance(text, str):
            raise DataError(f"{name} must give strings for text, answer, rationale and references, given {text!r:.60}")
    return replace(item, references=tuple(reference for reference in references if visible(reference)))


def remarks_on(item: Item, written: str, prompt: str, form: TokenFormat) -> tuple[str, ...]:
    """What the tokenizer does to an item's texts that should be known.

    Args:
        item: the texts as they came.
        written: y* as the tokenizer gives it back.
        prompt: the rendered prompt, decoded.
        form: the tokenizer's format.
    """
    told = {
        _ALIASES: bool(set(map(visible, item.references)) - {visible(item.answer)}),
        "golds that the tokenizer rewrites": written != visible(item.answer),
        "prompts with letters that the tokenizer lacks": not form.keeps(item.text, prompt),
        "with control tokens, read as letters": form.spells_control(item.text) or form.spells_control(item.answer),
        "with lost letters (U+FFFD)": "\ufffd" in item.text + item.answer,
        "whole numbers with .0 as gold": bool(re.fullmatch(r"-?\d+\.0", written)),
    }
    return tuple(name for name, is_so in told.items() if is_so)


def remarks(
    examples: Sequence[Example], trained: Sequence[Example], limit: int | None, verifiers: Mapping[str, Verifier]
) -> dict[str, int]:
    """What is to be known of a split's examples, and of how many of them.

    Args:
        examples: of the split.
        trained: of the training split, for one that is held out.
        limit: tokens that a sampled answer may have.
        verifiers: those that judge the split's answers.
    """
    known, asked = {example.question for example in trained}, Counter(example.question for example in examples)
    official, read = official_em in verifiers.values(), any(map(reads_aliases, verifiers.values()))
    told = Counter(remark for example in examples for remark in example.remarks)
    return {
        "questions shared with train": sum(example.question in known for example in examples),
        "questions that come again": len(examples) - len(asked),
        LONG_GOLDS: sum(len(example.target_ids) > (limit or math.inf) for example in examples),
        "golds normalise to nothing": sum(bool(official and official_em("", e.references)) for e in examples),
        **told,
        _ALIASES: 0 if read else told[_ALIASES],
    }
