"""Trains the model bundled for KHop from scratch: python scripts/train_khop_base.py jqlight/assets/khop

On questions of the split `base`, each followed by a walk of its length from its entity and by the walk's end as the
answer. A hop of the walk takes the relation that the question names with probability FOLLOW, else one of the four by
chance: so the model knows every edge, writes walks and copies their end, and goes the way that was asked for little
more often than chance. Prints how often, for each number of hops. About 1.5 minutes on one core.
"""

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from train_twohop_base import END, SPECIAL, build_model, build_tokenizer, out_folder, save, train
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from jqlight.benchmarks.khop import ENTITIES, MOST_HOPS, RELATIONS, Chain, chains

WORDS = (*SPECIAL, END, "?", "ans", *RELATIONS, *ENTITIES)
LAYERS = 2
STEPS, BATCH = 1500, 48
FOLLOW = 0.15
HELD_OUT, SAMPLES = 256, 16


def walk(asked: Chain, rng: random.Random) -> Chain:
    """A walk from the question's entity of as many hops, on its relations now and then."""
    return Chain(
        asked.start,
        tuple(relation if rng.random() < FOLLOW else rng.choice(RELATIONS) for relation in asked.relations),
    )


def written(walked: Chain) -> str:
    """What the model learns to write behind a question: a walk, and where it ended."""
    return f"{walked.rationale} {END} ans {walked.end} <eos>"


def batches(tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and labels of every step, both (BATCH, T); only what follows from the question has a label."""
    rng = random.Random(0)
    pools = {hops: list(chains("base", hops)) for hops in range(1, MOST_HOPS + 1)}
    for _ in range(STEPS):
        (hops,) = rng.choices(list(pools), weights=pools)  # there are few questions of one hop, which it would learn
        asked = rng.choices(pools[hops], k=BATCH)
        ids = torch.tensor([tokenizer.encode(f"{chain.text} {written(walk(chain, rng))}") for chain in asked])
        labels = ids.clone()
        labels[:, : len(asked[0].text.split())] = -100
        yield ids, labels


@torch.no_grad()
def shares(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: list[Chain]) -> tuple[float, float]:
    """Shares of sampled outputs with the right answer, and with the right answer behind the right way."""
    prompts = torch.tensor([tokenizer.encode(chain.text) for chain in held_out]).repeat_interleave(SAMPLES, 0)
    texts = [written(chain) for chain in held_out for _ in range(SAMPLES)]
    length = len(texts[0].split())
    output = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=length, do_sample=True)
    pairs = list(zip([tokenizer.decode(ids) for ids in output[:, prompts.shape[1] :]], texts, strict=True))
    answers = [given.partition(END)[2].startswith(wanted.partition(END)[2]) for given, wanted in pairs]
    return sum(answers) / len(pairs), sum(given.startswith(wanted) for given, wanted in pairs) / len(pairs)


def main() -> None:
    out = out_folder(__doc__)
    tokenizer = build_tokenizer(WORDS)
    model = build_model(tokenizer, LAYERS)
    print(f"{model.num_parameters():,} parameters")
    train(model, batches(tokenizer), STEPS)
    model.eval()
    for hops in range(1, MOST_HOPS + 1):
        answer, way = shares(model, tokenizer, list(chains("validation", hops))[:HELD_OUT])
        print(f"{hops} hops: answer right {answer:.4f}, and the way too {way:.4f}")
    save(model, tokenizer, out)


if __name__ == "__main__":
    main()
