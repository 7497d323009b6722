"""Forward and backward of jqlight's groups against plainly written limits, alternated in one run: `make bench-limits`.

- ``shared``: what sharing a prompt can give at best. One forward of the prompts with their cache in the graph, all
  continuations in one batch against the cache's keys and values copied to every row, the LM head at scored tokens only,
  one backward by plain autograd.
- ``plain``: the unshared computation, prompt and continuation in one row for every rollout, the same head.
- ``jqlight``: `policy.Group` as an estimator uses it, which splits by memory budget, counts duplicates once and never
  holds more than one group; its rows attend to the prompt and to themselves apart.
- ``copies``: the same with the prompt's keys and values copied for every row, as models are run that have no two parts.

The relative distance of each gradient from the plain one is recorded (from the last one that is run, where that is
left out), and the memory that each takes at its peak beside the weights and their gradients. On a machine with other
work the processor seconds of one thread still compare: `--threads 1 --only copies`.
"""

import argparse
import ctypes
import statistics
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from jqlight.objective import Coefficients
from jqlight.policy import Policy, PolicyConfig
from perf.common import Timing, alternate, median, quiet, record, reset_peak, resident_mib
from perf.workload import ANSWER, Shape, Work, describe, group_inputs, make_model

CASES = (Work(512, 64, 16, 2), Work(1024, 256, 16, 1), Work(4096, 128, 16, 1))
VARIANTS = ("jqlight", "copies", "shared", "plain")
LONG = 2048
"""Prompts above which whole sequences would take too much memory and time."""


def token_log_probs(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """log p of ``targets`` from the hidden states that predict them."""
    return model.lm_head(hidden).log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def plain(model: PreTrainedModel, prompts: Tensor, rows: Tensor) -> Tensor:
    """log p of every token of ``rows``, (G, M, C), behind ``prompts``, (G, P), by whole sequences."""
    rollouts, length = rows.shape[1:]
    ids = torch.cat([prompts[:, None].expand(-1, rollouts, -1), rows], -1).flatten(0, 1)
    hidden = model.model(ids, use_cache=False).last_hidden_state[:, -length - 1 : -1]
    return token_log_probs(model, hidden, rows.flatten(0, 1)).view_as(rows)


def shared(model: PreTrainedModel, prompts: Tensor, rows: Tensor) -> Tensor:
    """The same with one forward of each prompt."""
    rollouts = rows.shape[1]
    out = model.model(prompts, use_cache=True)
    cache = DynamicCache()
    for index, layer in enumerate(out.past_key_values.layers):
        cache.update(layer.keys.repeat_interleave(rollouts, 0), layer.values.repeat_interleave(rollouts, 0), index)
    last = out.last_hidden_state[:, None, -1].expand(-1, rollouts, -1)
    flat = rows.flatten(0, 1)
    hidden = model.model(flat[:, :-1], past_key_values=cache, use_cache=True).last_hidden_state
    first = token_log_probs(model, last, rows[..., 0])
    rest = token_log_probs(model, hidden, flat[:, 1:]).view(*rows.shape[:2], -1)
    return torch.cat([first[..., None], rest], -1)


def variants(work: Work, policy: Policy) -> dict[str, Callable[[], None]]:
    """Each computation of the same gradient, as a function that leaves it in ``.grad``."""
    inputs = group_inputs(work, policy.model.config.vocab_size)
    prompts = torch.tensor([ids for ids, _ in inputs])
    rows = torch.tensor([[c.rationale_ids + c.answer_ids for c in continuations] for _, continuations in inputs])
    score, pathwise = torch.randn(2, work.prompts, work.rollouts, generator=torch.Generator().manual_seed(1))
    weights = score[..., None].repeat(1, 1, work.tokens)
    weights[..., -ANSWER:] = pathwise[..., None]

    def ours() -> None:
        policy.zero_grad()
        for (prompt, continuations), s, p in zip(inputs, score, pathwise, strict=True):
            group = policy.group(prompt, continuations)
            group.log_answer()
            group.backward(Coefficients(s, p), scale=1.0)

    def limit(log_probs: Callable[[PreTrainedModel, Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            policy.zero_grad()
            (-(log_probs(policy.model, prompts, rows) * weights).sum()).backward()

        return run

    def copies() -> None:
        route = policy._route
        assert route is not None and route.two_parts
        policy._route = route._replace(two_parts=False)
        try:
            ours()
        finally:
            policy._route = route

    return {"jqlight": ours, "copies": copies, "shared": limit(shared), "plain": limit(plain)}


def gradient(policy: Policy, run: Callable[[], None]) -> tuple[Tensor, float]:
    """The gradient, and the MiB that came on top of the weights and the gradient before."""
    ctypes.CDLL(None).malloc_trim(0)  # what is free is given back, so that the peak is of this run
    reset_peak()
    before = resident_mib()
    run()
    peak = resident_mib(peak=True) - before
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]), peak


def measure(work: Work, repetitions: int, threads: int, only: list[str]) -> None:
    policy = Policy(PolicyConfig(make_model(), micro_batch_tokens=1 << 16))
    policy.load()
    skipped = "plain" if work.prompt > LONG else ""
    runs = {name: run for name, run in variants(work, policy).items() if name in only and name != skipped}
    runs["jqlight"]()  # the first group finds the route
    found = {name: gradient(policy, run) for name, run in runs.items()}
    gradients = {name: one for name, (one, _) in found.items()}
    reference = list(gradients.values())[-1]
    gaps = {name: ((g - reference).norm() / reference.norm()).item() for name, g in gradients.items()}
    del gradients, reference
    timings = alternate(runs, repetitions, warmup=0)  # each has run once for its gradient
    seconds = {name: median(t) for name, t in timings.items()}
    own = {name: statistics.median(one.own for one in t) for name, t in timings.items()}
    record(
        "limits",
        work=describe(work),
        seconds=seconds,
        jqlight_over={name: seconds["jqlight"] / each for name, each in seconds.items()},
        processor_seconds=own,
        processor_jqlight_over={name: own["jqlight"] / each for name, each in own.items()},
        peak_mib={name: peak for name, (_, peak) in found.items()},
        gradient_distance=gaps,
        quiet={name: _quiet(t) for name, t in timings.items()},
        all={name: [one.seconds for one in t] for name, t in timings.items()},
        all_processor={name: [one.own for one in t] for name, t in timings.items()},
        threads=threads,
        parameters=sum(p.numel() for p in policy.parameters()),
        shape=vars(Shape()),
    )


def _quiet(timings: list[Timing]) -> str:
    return f"{sum(t.foreign < 0.2 for t in timings)}/{len(timings)}, {len(quiet(timings))} used"


def main() -> None:
    parser = argparse.ArgumentParser(description="jqlight's forward and backward against the limits")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS, help="jqlight is always run")
    parser.add_argument("--work", nargs=4, type=int, metavar=("P", "C", "M", "PROMPTS"), help="one case of your own")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for work in [Work(*options.work)] if options.work else CASES:
        measure(work, options.repetitions, options.threads, ["jqlight", *options.only])


if __name__ == "__main__":
    main()
