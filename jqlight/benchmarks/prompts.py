"""Cold and warm renderings of an input: every text that a model is given is made here."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from jqlight.token_format import TokenFormat

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
    return token_format.encode_prompt(text.rstrip() + "\n")


def warm_text(task: str, text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The task's description, then the input, as one user turn of the chat template where the tokenizer has one."""
    message = f"{task.strip()}\n\n{text.strip()}"
    if not tokenizer.chat_template:
        return message + "\n"
    turn = [{"role": "user", "content": message}]
    return str(
        tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, enable_thinking=True),
    )


def warm_ids(task: str, text: str, token_format: TokenFormat) -> list[int]:
    """Token ids of the warm rendering, thinking opened once.

    Some chat templates open the thinking themselves, others leave it to the model: either way the prompt ends in one
    ``thinking.start``.
    """
    tokenizer = token_format.tokenizer
    prompt = warm_text(task, text, tokenizer)
    if token_format.thinking.start:
        prompt = prompt.removesuffix(token_format.thinking.start)
    return token_format.encode_prompt(prompt, add_special_tokens=not tokenizer.chat_template)


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
