"""Trains the model bundled for TwoHop from scratch: python scripts/train_twohop_base.py jqlight/assets/twohop

Two stages, both on questions of the split `base`, which shares no chain with the benchmark's own splits: first to
recall facts in another order (looking a fact up by two words is what takes a small model long), then to write both
hops and `ans ENTITY`, with a slip now and then, so that its rationales differ and some are wrong. `[[`, `]]` and `:`
are in its vocabulary and in none of its texts. About 2.5 minutes on one core.
"""

import argparse
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from jqlight.benchmarks.twohop import ENTITIES, RELATIONS, Fact, Question, questions, stream

END = "</think>"
SPECIAL = ("<pad>", "<eos>", "<unk>")
WORDS = (*SPECIAL, END, ".", "?", "ans", "[[", "]]", ":", *RELATIONS, *ENTITIES)
RECALL_STEPS, STEPS, BATCH = 1300, 2000, 24
WARMUP = 50
SLIP = 0.2
"""Chance that a hop of a training rationale takes the entity's other fact."""
MATRIX_LR, LR = 0.02, 3e-3
"""Peak learning rates of Muon (the layers' matrices) and AdamW (embeddings and norms)."""
HELD_OUT = 256


def build_tokenizer(vocabulary: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: words between white space are tokens, decoding puts single spaces between them."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    words.add_tokens([AddedToken(END, normalized=False, special=False)])  # a token also where no space sets it off
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def build_model(tokenizer: PreTrainedTokenizerFast, layers: int = 3) -> Qwen3ForCausalLM:
    """Random weights of the bundled architecture, 0.36 M parameters with three layers."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the smallest that vLLM's CPU attention has
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},  # a question is 24 tokens long
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


def solution(chain: tuple[Fact, Fact]) -> str:
    """What the model learns to write behind a question: two hops and the entity that they lead to."""
    first, second = (" ".join(fact) for fact in chain)
    return f" {first} . {second} {END} ans {chain[1][2]} <eos>"


def attempt(question: Question, rng: random.Random) -> tuple[Fact, Fact]:
    """The question's chain, or one that left it at a hop by chance and continued from there."""

    def hop(entity: str, relation: str) -> Fact:
        about = [fact for fact in question.facts if fact[0] == entity]
        others = [fact for fact in about if fact[1] != relation]
        if others and rng.random() < SLIP:
            return rng.choice(others)
        return next(fact for fact in about if fact[1] == relation)

    (start, first, _), (_, second, _) = question.chain
    taken = hop(start, first)
    return taken, hop(taken[2], second)


def recall(question: Question, rng: random.Random) -> str:
    """The question's facts once more, in another order."""
    facts = rng.sample(question.facts, len(question.facts))
    return "".join(f" {' '.join(fact)} ." for fact in facts)


def batches(tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and labels of every step, both (BATCH, T); only what follows from the question has a label."""
    source, rng = stream("base"), random.Random(0)
    for step in range(STEPS):
        drawn = list(islice(source, BATCH))
        if step < RECALL_STEPS:
            prompts = [question.text.partition(" ?")[0] + " ?" for question in drawn]
            texts = [recall(question, rng) for question in drawn]
        else:
            prompts = [question.text for question in drawn]
            texts = [solution(attempt(question, rng)) for question in drawn]
        ids = torch.tensor([tokenizer.encode(prompt + text) for prompt, text in zip(prompts, texts, strict=True)])
        given = len(tokenizer.encode(prompts[0]))  # of one length, as the texts are
        labels = ids.clone()
        labels[:, :given] = -100
        if step < RECALL_STEPS:
            place = torch.arange(ids.shape[1]) - given
            labels[:, place % 4 != 2] = -100  # which fact comes next is chance; only its last entity follows
        yield ids, labels


@torch.no_grad()
def share_solved(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: list[Question]) -> float:
    """Share of questions whose greedy output is the whole solution, token by token."""
    prompts = torch.tensor([tokenizer.encode(q.text) for q in held_out])
    expected = torch.tensor([tokenizer.encode(solution(q.chain)) for q in held_out])
    output = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=expected.shape[1], do_sample=False
    )
    written = output[:, prompts.shape[1] :]
    return float((written == expected).all(1).float().mean()) if written.shape == expected.shape else 0.0


def train(model: Qwen3ForCausalLM, drawn: Iterable[tuple[Tensor, Tensor]], steps: int) -> None:
    """Muon and AdamW on the labelled tokens; the learning rates fall to zero over the second half."""
    named = [(p, p.dim() == 2 and "embed" not in name) for name, p in model.named_parameters()]
    optimizers = [
        torch.optim.Muon([p for p, matrix in named if matrix], lr=MATRIX_LR, weight_decay=0.01),
        torch.optim.AdamW([p for p, matrix in named if not matrix], lr=LR, betas=(0.9, 0.95), weight_decay=0.0),
    ]

    def share(step: int) -> float:
        return min(1.0, (step + 1) / WARMUP, (steps - step) / (0.5 * steps))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, share) for optimizer in optimizers]
    for step, (ids, labels) in enumerate(drawn):
        loss = model(input_ids=ids, labels=labels).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}", flush=True)


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the checkpoint, with a generation config that samples."""
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def out_folder(description: str | None) -> Path:
    """The folder for the checkpoint on the command line, whose seed is set."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("out", type=Path, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    return Path(args.out)


def main() -> None:
    out = out_folder(__doc__)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    print(f"{model.num_parameters():,} parameters")
    train(model, batches(tokenizer), STEPS)
    model.eval()
    print(f"solved in its own format: {share_solved(model, tokenizer, questions('validation', HELD_OUT)):.3f}")
    save(model, tokenizer, out)


if __name__ == "__main__":
    main()
