"""The Sampler over vLLM's own ``LLM.generate`` on the same requests, alternated in one run: `make bench-sampling`.

- ``sampler``: `Sampler.sample`, from prompts and seeds to rollouts: a thinking and an answering phase, a seed for every
  rollout, log-probabilities of every token, global random state restored.
- ``raw``: the two `LLM.generate` calls that it makes, with the very prompts and `SamplingParams`, made beforehand.
- ``one_call``: as many tokens in a single call, which is what a trainer without two phases asks for.

The prefix cache is emptied before each, as a weight update does in training.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from jqlight.sampling import Decoding, Sampler, build_sampler, rollout_seed
from perf.common import QUIET_CORES, alternate, median, record
from perf.workload import ANSWER, Shape, Work, describe, estimator, group_inputs, make_model, never_stop


def start(work: Work) -> Sampler:
    """A sampler with its engine, as a run of this work has it."""
    module = estimator("GRPO", work, make_model())
    sampler = build_sampler(
        module.sampler_config,
        model_path=module.policy.path,
        dtype=module.policy.config.dtype,
        token_format=module.token_format,
        max_prompt_tokens=work.prompt,
    )
    never_stop(sampler)
    return sampler


def variants(sampler: Sampler, work: Work) -> dict[str, Callable[[], None]]:
    """The three ways, each with a fresh prefix cache."""
    llm: Any = sampler.engine._llm  # type: ignore[attr-defined]
    prompts = [ids for ids, _ in group_inputs(work, Shape().vocab)]
    seeds = [[rollout_seed(0, "bench", 0, str(i), m) for m in range(work.rollouts)] for i in range(work.prompts)]
    generate, calls = llm.generate, []

    def noted(requests: list, params: list, **options: Any) -> Any:
        calls.append((requests, params))
        return generate(requests, params, **options)

    def ours() -> None:
        llm.reset_prefix_cache()
        groups = sampler.sample(prompts, seeds, answers=True, decoding=Decoding())
        tokens = sum(len(r.rationale_ids) + len(r.answer_ids) for group in groups for r in group)
        assert tokens == work.sampled, f"{tokens} tokens were sampled, {work.sampled} belong to it"

    def raw() -> None:
        llm.reset_prefix_cache()
        for requests, params in calls:
            generate(requests, params, use_tqdm=False)

    def one_call() -> None:
        llm.reset_prefix_cache()
        generate(calls[0][0], whole, use_tqdm=False)

    llm.generate = noted
    ours()
    llm.generate = generate
    whole = [one.clone() for one in calls[0][1]]
    for one in whole:
        one.max_tokens = work.tokens
    return {"sampler": ours, "raw": raw, "one_call": one_call}


def main() -> None:
    parser = argparse.ArgumentParser(description="Sampler over raw LLM.generate")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--work", nargs=4, type=int, default=[512, 64, 16, 2], metavar=("P", "C", "M", "PROMPTS"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = Work(*options.work)
    sampler = start(work)
    timings = alternate(variants(sampler, work), options.repetitions)
    seconds = {name: median(t) for name, t in timings.items()}
    record(
        "sampling",
        work=describe(work),
        answer_tokens=ANSWER,
        seconds=seconds,
        over_raw=seconds["sampler"] / seconds["raw"],
        over_one_call=seconds["sampler"] / seconds["one_call"],
        tokens_per_second=work.sampled / seconds["sampler"],
        quiet={name: f"{sum(one.foreign < QUIET_CORES for one in t)}/{len(t)}" for name, t in timings.items()},
        all={name: [one.seconds for one in t] for name, t in timings.items()},
        threads=options.threads,
    )
    sampler.close()


if __name__ == "__main__":
    main()
