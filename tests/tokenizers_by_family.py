"""Tokenizers of three families, trained here on a few sentences: what thinking markers turn into depends on them."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

CORPUS = [
    "The treaty was signed in 1748 and the war ended.\nSo the answer is 17 October 1931.",
    "Question: who was born first? I think that A was born in 1903, B in 1911.\n\nA was born first.",
    "United States of America, Angela Merkel, Sao Paulo, $ 35 million, 14.5%, yes, no, 1 < 2 > 0 / 3\n\n",
] * 4

# How Qwen and Llama 3 cut text before merging: contractions, words with their space, single digits, line ends.
_WORDS = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"""


def qwen_like() -> PreTrainedTokenizerBase:
    """Byte-level BPE with one token for each thinking tag, as Qwen3's."""
    backend = _byte_level(pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"), ["<|endoftext|>", "<|im_end|>"])
    backend.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def smollm_like() -> PreTrainedTokenizerBase:
    """Byte-level BPE without thinking tags, whose merges can cross the border behind one, as GPT-2's and SmolLM2's."""
    backend = _byte_level(pre_tokenizers.Digits(individual_digits=True), ["<|endoftext|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def sentencepiece_like() -> PreTrainedTokenizerBase:
    """BPE on text whose spaces are letters, with a space put in front and bytes for what it lacks, as Llama 2's."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _byte_level(splitter: pre_tokenizers.PreTokenizer, special: list[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    # GPT-2's own cut at words is left out behind the splitter where that makes one.
    use_regex = isinstance(splitter, pre_tokenizers.Digits)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [splitter, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend
