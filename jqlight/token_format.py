"""How a model marks its thinking, and what that means in token ids.

A model's output is ``rationale, end of thinking, separator, answer, end of sequence``. The markers are strings in the
config (so that Qwen3, SmolLM2 and plain base models can all be used) and token ids everywhere else: text is tokenised
once, on the way in, and never decoded to be tokenised again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from jqlight.errors import ConfigError

_TOKENS_PER_CHARACTER = 4  # UTF-8 bytes


@dataclass(frozen=True)
class Thinking:
    """The strings around a rationale."""

    start: str = "<think>\n"
    """Ends every prompt, so that the model begins to think; empty for none."""
    end: str = "</think>"
    """Ends a rationale: sampled by the model, or forced when the thinking budget has run out."""
    separator: str = "\n\n"
    """What the model writes between its thinking and its answer; part of the output that is scored."""


class TokenFormat:
    """The output format of one tokenizer in token ids.

    Attributes:
        tokenizer: the model's own tokenizer.
        thinking: the strings.
        end_ids: token ids of the end-of-thinking string, as they are forced.
        eos_ids: token ids that end an output; the first one ends every scored answer.

    Raises:
        ConfigError: the tokenizer has no end-of-sequence token, or ``thinking.end`` is empty.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, thinking: Thinking, extra_eos: Sequence[int] = ()) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "policy.name_or_path: the tokenizer has no eos_token, but an answer's probability includes its end; "
                "set eos_token in the model's tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.thinking = thinking
        self.end_ids: tuple[int, ...] = tuple(tokenizer.encode(thinking.end, add_special_tokens=False))
        if not self.end_ids:
            raise ConfigError("policy.thinking.end: given '', allowed is any string that the tokenizer can write")
        self.eos_ids: tuple[int, ...] = tuple(dict.fromkeys([int(tokenizer.eos_token_id), *map(int, extra_eos)]))

    def encode_prompt(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text`` followed by ``thinking.start``; a chat template has added its special tokens itself."""
        return list(self.tokenizer.encode(text + self.thinking.start, add_special_tokens=add_special_tokens))

    def encode_target(self, answer: str) -> list[int]:
        """Token ids of separator + answer + end of sequence: the y* whose log-probability is the log-weight.

        Tokenised behind the end-of-thinking string, as the model itself would write it; where that does not keep the
        marker's own tokens (a tokenizer that merges across it), separator and answer are tokenised apart from it.
        """
        return [*self._encode_behind_marker(self.thinking.separator + answer), self.eos_ids[0]]

    def _encode_behind_marker(self, tail: str) -> list[int]:
        wanted = self.decode(self.end_ids) + tail
        # The last one is for tokenizers that put a space in front of every text, which would become part of the answer.
        for anchor in (self.thinking.end, "", "\n"):
            head = self.tokenizer.encode(anchor, add_special_tokens=False)
            joint = self.tokenizer.encode(anchor + tail, add_special_tokens=False)
            ids: list[int] = joint[len(head) :]
            if joint[: len(head)] == head and self.decode([*self.end_ids, *ids]) == wanted:
                return ids
        return list(self.tokenizer.encode(tail, add_special_tokens=False))

    def decode_answer(self, ids: Sequence[int]) -> str:
        """Text of a sampled answer without separator, end of sequence and outer white space."""
        kept = [i for i in ids if i not in self.eos_ids]
        # Decoded behind the marker: some tokenizers drop a space at the start of a text, here the separator's.
        text = self.decode([*self.end_ids, *kept]).removeprefix(self.decode(self.end_ids))
        return text.removeprefix(self.thinking.separator).strip()

    def has_just_written(self, text: str, ids: Sequence[int]) -> bool:
        """Whether ``ids`` end in ``text``, up to what else their last token holds; decodes no more than is needed."""
        return text in self.decode(ids[-_TOKENS_PER_CHARACTER * len(text) :])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of any token ids with every special token visible, for people to read."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
