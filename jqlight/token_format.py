"""How a model marks its thinking, and what that means in token ids.

A model's output is ``rationale, end of thinking, separator, answer, end of sequence``. The markers are strings in the
config (so that Qwen3, SmolLM2 and plain base models can all be used) and token ids everywhere else: text is tokenised
once, on the way in, and never decoded to be tokenised again.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from jqlight.errors import ConfigError

_TOKENS_PER_CHARACTER = 4  # UTF-8 bytes
_BEGINNING = 32  # tokens of a rationale that nearly always tell whether it says anything
_CONTEXT = 8  # tokens in front of a piece of text that decide how it is decoded
# Stands in a text where encoding must cut it; Unicode reserves this code point for such use inside a program.
_CUT = "\ufdd0"
_NO_LETTERS = re.compile("[^a-z0-9]+")


@dataclass(frozen=True)
class Thinking:
    """The strings around a rationale, and what the chat template must be told for it."""

    start: str = "<think>\n"
    """Ends every prompt, so that the model begins to think; empty for none."""
    end: str = "</think>"
    """Ends a rationale: sampled by the model, or forced when the thinking budget has run out."""
    separator: str = "\n\n"
    """What the model writes between its thinking and its answer; part of the output that is scored."""
    template_arguments: dict[str, Any] = field(default_factory=dict)
    """Further variables of the model's chat template (warm scenario); enable_thinking is true unless given here."""


class TokenFormat:
    """The output format of one tokenizer in token ids.

    Attributes:
        tokenizer: the model's own tokenizer.
        thinking: the strings.
        end_ids: token ids of the end-of-thinking string, as they are forced.
        eos_ids: token ids that end an output; the first one ends every scored answer.
        notes: what the tokenizer or its chat template do that one should know, a line each.

    Args:
        tokenizer: the model's own tokenizer.
        thinking: the strings.
        extra_eos: further ids that end an output, as the model's configs name them.
        rows: embedding rows of the model, ids from which on it cannot take; None for no limit.

    Raises:
        ConfigError: the tokenizer has no end-of-sequence token, ``thinking.end`` is empty, ``thinking.separator`` ends
            an output, or (also while encoding) the tokenizer writes a token for which the model has no embedding.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        thinking: Thinking,
        extra_eos: Sequence[int] = (),
        rows: int | None = None,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "policy.name_or_path: the tokenizer has no eos_token, but an answer's probability includes its end; "
                "set eos_token in the model's tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.thinking = thinking
        self.notes: list[str] = []
        self._rows = rows
        # Many questions share their answers, and each is asked for three times.
        self._targets: dict[str, list[int]] = {}
        self._read_back: dict[str, str | None] = {}
        self._control = _control_tokens(tokenizer, thinking)
        self._checked(tokenizer.encode(thinking.start, add_special_tokens=False), "policy.thinking.start")
        end_ids = self._checked(tokenizer.encode(thinking.end, add_special_tokens=False), "policy.thinking.end")
        if not end_ids or tokenizer.unk_token_id in end_ids:
            raise ConfigError(
                f"policy.thinking.end: given {thinking.end!r}, allowed is any string that the tokenizer can write"
            )
        self.end_ids: tuple[int, ...] = tuple(end_ids)
        self.eos_ids: tuple[int, ...] = tuple(dict.fromkeys([int(tokenizer.eos_token_id), *map(int, extra_eos)]))
        if ends := set(self.encode_target("")[:-1]) & set(self.eos_ids):
            raise ConfigError(
                f"policy.thinking.separator: given {thinking.separator!r}, which is written with a token that ends an "
                f"output (id {min(ends)}, eos_token_id in the model's configs): no answer could follow; give another"
            )
        start = tokenizer.encode(thinking.start, add_special_tokens=False)
        if tokenizer.unk_token_id in start or not self.keeps(thinking.start, self.decode(start)):
            self.note(f"the tokenizer lacks a part of policy.thinking.start: prompts end in {self.decode(start)!r}")
        if thinking.separator and not self.encode_target("")[:-1]:
            self.note("the tokenizer writes nothing for policy.thinking.separator: answers follow the thinking at once")

    def note(self, line: str) -> None:
        """Keep a line of :attr:`notes`, once."""
        if line not in self.notes:
            self.notes.append(line)

    def as_text(self, text: str) -> str:
        """Text of data, to be encoded as letters throughout, also where it spells a control token such as ``</think>``.

        The result reads the same; encoding cuts it inside such tokens. A text that spells one only once the tokenizer
        has normalised it (full-width letters, case) comes back normalised.
        """
        if self._control is None:
            return text
        normalizer = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "normalizer", None)
        marked = self._control.sub(_cut, text)
        if normalizer and self._control.search(normalised := normalizer.normalize_str(marked)):
            return self._control.sub(_cut, normalised)
        return marked

    def encode_prompt(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text`` followed by ``thinking.start``; a chat template has added its special tokens itself.

        Of the special tokens only those in front are taken: an end of sequence behind the prompt would end it.
        """
        first, *others = (text + self.thinking.start).split(_CUT)
        ids = list(self.tokenizer.encode(first, add_special_tokens=False))
        if add_special_tokens:
            marked = list(self.tokenizer.encode(first, add_special_tokens=True))
            starts = range(len(marked) - len(ids) + 1)
            ids = next((marked[: i + len(ids)] for i in starts if marked[i : i + len(ids)] == ids), marked)
        return self._checked(self._extended(ids, others), "policy.name_or_path")

    def encode_target(self, answer: str) -> list[int]:
        """Token ids of separator + answer + end of sequence: the y* whose log-probability is the log-weight.

        Tokenised behind the end-of-thinking string, as the model itself would write it; where that does not keep the
        marker's own tokens (a tokenizer that merges across it), separator and answer are tokenised apart from it.
        """
        if answer not in self._targets:
            first, *others = (self.thinking.separator + self.as_text(answer)).split(_CUT)
            ids = self._extended(self._encode_behind(self.end_ids, self.thinking.end, first), others)
            self._targets[answer] = self._checked([*ids, self.eos_ids[0]], "policy.name_or_path")
        return list(self._targets[answer])

    def encode_rationale(self, rationale: str, prompt_ids: Sequence[int]) -> list[int]:
        """Token ids of a rationale of the data behind ``prompt_ids``, and of the end of thinking that closes it."""
        before = list(prompt_ids[-_CONTEXT:])
        pieces = self.as_text(rationale).split(_CUT) if rationale else []
        ids = self._extended(before, pieces)[len(before) :]
        return self._checked([*ids, *self.end_ids], "policy.name_or_path")

    def _extended(self, ids: list[int], pieces: Sequence[str]) -> list[int]:
        for piece in pieces:
            ids = ids + self._encode_behind(ids[-_CONTEXT:], "", piece)
        return ids

    def _encode_behind(self, ids: Sequence[int], text: str, tail: str) -> list[int]:
        """Token ids of ``tail`` as they would follow ``ids``, whose text is ``text``."""
        wanted = self.decode(ids) + tail
        # The last one is for tokenizers that put a space in front of every text, which would become part of the answer.
        for anchor in (text, "", "\n"):
            head = self.tokenizer.encode(anchor, add_special_tokens=False)
            joint = self.tokenizer.encode(anchor + tail, add_special_tokens=False)
            found: list[int] = joint[len(head) :]
            if joint[: len(head)] == head and self.decode([*ids, *found]) == wanted:
                return found
        return list(self.tokenizer.encode(tail, add_special_tokens=False))

    def _checked(self, ids: list[int], key: str) -> list[int]:
        """``ids``, if the model has an embedding for each of them."""
        largest = max(ids, default=-1)
        if self._rows is not None and largest >= self._rows:
            token = self.tokenizer.convert_ids_to_tokens(largest)
            raise ConfigError(
                f"{key}: the tokenizer writes {token!r} as id {largest}, but the model has {self._rows} embedding rows "
                "(vocab_size in its config.json): resize the embedding (model.resize_token_embeddings) and save the "
                "model again, or do without that token (another marker in policy.thinking)"
            )
        return ids

    def read_back(self, answer: str) -> str | None:
        """The answer as a model that writes its target gives it; None where the tokenizer cannot write a part of it.

        It differs from ``answer`` where the tokenizer normalises (accents, full-width letters, case): that text, not
        the file's, is what a sampled answer can be equal to. Unwritable are letters that it lacks, whether it has a
        token for unknown ones or leaves them out, and tokens at which sampling ends.
        """
        if answer not in self._read_back:
            ids, unknown = self.encode_target(answer)[:-1], self.tokenizer.unk_token_id
            text = self.decode_answer(ids)
            lacks = unknown in ids or not set(ids).isdisjoint(self.eos_ids) or not text or not self.keeps(answer, text)
            # Without its minus and its point "-3.2" would be another answer.
            self._read_back[answer] = None if lacks or _signs(text) < _signs(answer) else text
        return self._read_back[answer]

    @staticmethod
    def keeps(text: str, decoded: str) -> bool:
        """Whether all letters and digits of ``text`` are in what its tokens give back, accents and case aside."""
        return _letters(text) in _letters(decoded)

    def spells_control(self, text: str) -> bool:
        """Whether the text spells a control token, which :meth:`as_text` keeps from becoming one."""
        return self.as_text(text) != text

    def decode_answer(self, ids: Sequence[int]) -> str:
        """Text of a sampled answer without separator, end of sequence and outer white space."""
        kept = [i for i in ids if i not in self.eos_ids]
        # Decoded behind the marker: some tokenizers drop a space at the start of a text, here the separator's.
        text = self.decode([*self.end_ids, *kept]).removeprefix(self.decode(self.end_ids))
        return text.removeprefix(self.thinking.separator).strip()

    def has_just_written(self, text: str, ids: Sequence[int]) -> bool:
        """Whether ``ids`` end in ``text``, up to what else their last token holds; decodes no more than is needed."""
        return text in self.decode(ids[-_TOKENS_PER_CHARACTER * len(text) :])

    def is_blank(self, ids: Sequence[int]) -> bool:
        """Whether a sampled rationale says nothing before its end: white space at most."""
        kept = [i for i in ids if i not in self.eos_ids]
        end, beginning = self.thinking.end, self.decode(kept[:_BEGINNING])
        if end not in beginning and len(beginning.strip()) > len(end):  # so that it is no end that is cut off
            return False
        return not self.decode(kept).partition(end)[0].strip()

    def decode(self, ids: Sequence[int]) -> str:
        """Text of any token ids with every special token visible, for people to read."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _letters(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
    text = text.casefold()
    return _NO_LETTERS.sub("", text) if text.isascii() else "".join(filter(str.isalnum, text))


def _signs(text: str) -> int:
    """Number of characters that can be seen, accents aside."""
    decomposed = text if text.isascii() else unicodedata.normalize("NFKD", text)
    return sum(unicodedata.category(c) not in ("Zs", "Zl", "Zp", "Cc", "Cf", "Mn") for c in decomposed)


def _cut(found: re.Match[str]) -> str:
    return found[0][0] + _CUT + found[0][1:]


def _control_tokens(tokenizer: PreTrainedTokenizerBase, thinking: Thinking) -> re.Pattern[str] | None:
    """Finds what a text could spell to become a control token: special tokens, tags, and the thinking markers'."""
    markers = (thinking.start, thinking.separator, thinking.end)
    names = [
        str(token.content)
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or re.fullmatch(r"<.+>", token.content) or any(token.content in marker for marker in markers)
    ]
    names = [name for name in names if len(name) > 1 and not name.isspace()]
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True)))) if names else None
