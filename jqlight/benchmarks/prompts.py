"""Cold and warm renderings of an input: every text that a model is given is made here."""

import logging
import textwrap
from collections.abc import Sequence
from functools import cache

from jqlight.errors import ConfigError
from jqlight.token_format import Thinking, TokenFormat

log = logging.getLogger(__name__)

HOTPOTQA = (
    "Read the paragraphs and answer the question, which needs facts from two of them. Think step by step. Then give "
    "only the answer: a name, a date, a few words copied from a paragraph, or yes or no. No explanation."
)
MUSIQUE = (
    "Read the paragraphs and answer the question, which needs facts from several of them. Think step by step. Then "
    "give only the answer: a name, a date or a few words copied from a paragraph. No explanation."
)
FINQA = (
    "Read the excerpt of a financial report and answer the question by calculation. Think step by step. Then give "
    "only the final number, without units or explanation: a ratio or a change in per cent as a percentage such as "
    "12.5%, anything else as a plain number in the table's unit such as -1034.2. Answer yes or no where that is "
    "asked."
)
"""Warm descriptions: what is to be done, and how the answer is to be written."""


def cold_ids(text: str, token_format: TokenFormat) -> list[int]:
    """Token ids of the linearised input alone: no description, no format, no chat template."""
    return token_format.encode_prompt(token_format.as_text(text.rstrip()) + "\n")


def warm_ids(task: str, text: str, token_format: TokenFormat) -> list[int]:
    """Token ids of the warm rendering: task and input as one user turn of the chat template, where there is one.

    Some chat templates open the thinking themselves, others leave it to the model: either way the prompt ends in one
    ``thinking.start``.

    Raises:
        ConfigError: the template refuses a user turn, leaves it out, or closes the thinking.
    """
    message = token_format.as_text(f"{task.strip()}\n\n{text.strip()}")
    if not token_format.tokenizer.chat_template:
        return token_format.encode_prompt(message + "\n")
    whole = _rendered(message, token_format)
    rendering = _opened_once(whole, message, token_format.thinking)
    if rendering != whole:
        token_format.note("the chat template opens the thinking itself; policy.thinking.start stands there once")
    head, _, tail = whole.rpartition(message)
    if "system" in head.lower():
        token_format.note("the chat template writes a system message of its own")
    if tail.rstrip().endswith(str(token_format.tokenizer.eos_token)):
        token_format.note("the chat template begins no turn of the model: prompts end in an end of sequence")
    return token_format.encode_prompt(rendering, add_special_tokens=False)


def _rendered(message: str, token_format: TokenFormat) -> str:
    """The message as a user turn of the chat template, with the beginning of the model's answer."""
    arguments = {"enable_thinking": True, **token_format.thinking.template_arguments}
    tokenizer, turn = token_format.tokenizer, [{"role": "user", "content": message}]
    try:
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, **arguments)
        if "strftime_now" in str(tokenizer.chat_template):
            fixed = {"strftime_now": lambda _: "", **arguments}
            if text != tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, **fixed):
                token_format.note("the chat template writes today's date into every prompt")
                _tell_of_date(str(tokenizer.chat_template))
    except Exception as error:  # a template is a program and raises what it likes
        raise ConfigError(
            f"data.scenario: given warm, but the model's chat template refuses a user turn ({error}); pass what it "
            "asks for in policy.thinking.template_arguments, or give data.scenario: cold"
        ) from error
    return str(text)


@cache
def _tell_of_date(template: str) -> None:
    """Once per template."""
    log.warning(
        "The model's chat template writes today's date into every prompt, so that prompts change from day to day; many "
        "take a fixed one: policy.thinking.template_arguments: {date_string: 26 Jul 2024}"
    )


def _opened_once(rendering: str, message: str, thinking: Thinking) -> str:
    """The rendering without what the template itself has written of ``thinking.start``, white space aside."""
    _, found, tail = rendering.rpartition(message)
    start, end = thinking.start.strip(), thinking.end.strip()
    opened = tail.count(start) if start else 0
    fault = ""
    if not found:
        fault = f"does not hold the task and the question as they are: {textwrap.shorten(rendering, 300)!r}"
    elif end and end in tail:
        fault = f"closes the thinking itself, it ends in {tail!r}"
    elif opened > 1 or (opened and not tail.rstrip().endswith(start)):
        fault = f"opens the thinking and goes on, it ends in {tail!r}"
    if fault:
        raise ConfigError(
            f"policy.thinking: the model's chat template {fault}; give the template's own switch in "
            "policy.thinking.template_arguments (such as {thinking: true}), markers that fit it, or data.scenario: cold"
        )
    if not opened:
        return rendering
    before = rendering.rstrip().removesuffix(start)
    return before.removesuffix(thinking.start[: thinking.start.index(start)])


def question_over_paragraphs(paragraphs: Sequence[tuple[str, str]], question: str) -> str:
    """Titled paragraphs, then the question: the linearised input of HotpotQA and MuSiQue."""
    blocks = [f"{title.strip()}: {text.strip()}" for title, text in paragraphs]
    return "\n".join([*blocks, "", f"Question: {question.strip()}"])


def question_over_report(
    before: Sequence[str], table: Sequence[Sequence[str]], after: Sequence[str], question: str
) -> str:
    """Text, table and text of a report's page, then the question: the linearised input of FinQA."""
    blocks = [joined(before), linearise_table(table), joined(after), f"Question: {question.strip()}"]
    return "\n\n".join(block for block in blocks if block)


def joined(sentences: Sequence[str]) -> str:
    """The sentences as one paragraph, without the filler sentence "." of FinQA's pages."""
    return " ".join(sentence.strip() for sentence in sentences if sentence.strip(" ."))


def linearise_table(table: Sequence[Sequence[str]]) -> str:
    """One line per row: ``row name | header: value | header: value``, so that each value keeps its header.

    The first row is the header; cells without a text are left out, a value without a header is written alone. A table
    of one row is written as it is.
    """
    if len(table) < 2:
        return "\n".join(" | ".join(cell for cell in row if cell) for row in table)
    header, *rows = table
    lines = [cell for cell in header[:1] if cell]
    for row in rows:
        names = [*header[1:], *[""] * len(row)]
        cells = [f"{name}: {cell}" if name else cell for name, cell in zip(names, row[1:]) if cell]
        lines.append(" | ".join([*row[:1], *cells]))
    return "\n".join(lines)
