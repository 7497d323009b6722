"""The parts of `make gpu-check` that look at the engine alone, without a Trainer."""

import os
import time
from collections.abc import Sequence

import torch

from jqlight.policy import Continuation, Policy, PolicyConfig
from jqlight.sampling import Completion, Decoding, Engine, Request, SamplerConfig, Stop, build_sampler
from perf.gpu_setting import Rows, Setting, only_if, row
from perf.workload import ANSWER, THINKING, group_inputs, make_model

SHIFT = 1.2
"""Factor of all weights in the check of a sync: rollouts of the old ones are far from the new ones' probabilities."""
FLOAT32_GAP = 1e-3


def engine_bfloat16(setting: Setting) -> Rows:
    """vLLM in the format that a GPU samples in."""
    return _engine(setting, "bfloat16")


def engine_float32(setting: Setting) -> Rows:
    """vLLM in float32, with or without TF32 (``TRITON_F32_DEFAULT``); on a CPU the two are the same."""
    return _engine(setting, "float32")


def _engine(setting: Setting, dtype: str) -> Rows:
    """Equal rollouts twice, log-prob gap, a sync of shifted weights and the gap again."""
    work = setting.work
    start = time.perf_counter()
    policy = Policy(PolicyConfig(make_model(setting.shape), thinking=THINKING))
    engine = _start(policy, setting, dtype)
    rows = [row("seconds to start", time.perf_counter() - start)]
    policy.load()
    policy.to(setting.device)
    prompts = [prompt for prompt, _ in group_inputs(work, setting.shape.vocab)]
    requests = [Request(p, 1000 * i + m, work.tokens) for i, p in enumerate(prompts) for m in range(work.rollouts)]
    engine.generate(requests[:8], Stop(()), Decoding())
    start = setting.seconds()
    drawn = engine.generate(requests, Stop(()), Decoding())
    rows.append(row(f"tokens/s of {len(requests)} rollouts", len(requests) * work.tokens / (setting.seconds() - start)))
    again = engine.generate(requests, Stop(()), Decoding())
    equal = sum(a.token_ids == b.token_ids for a, b in zip(drawn, again, strict=True)) / len(drawn)
    invariant = not setting.gpu or os.environ.get("VLLM_BATCH_INVARIANT") == "1"
    rows.append(
        row("equal rollouts twice", equal, "1, on a GPU with VLLM_BATCH_INVARIANT=1", only_if(invariant, equal == 1))
    )
    exact = dtype == "float32" and os.environ.get("TRITON_F32_DEFAULT") != "tf32"
    limit = FLOAT32_GAP if exact else None
    mine = drawn[: work.rollouts]
    before = _gap(policy, setting, dtype, prompts[0], mine)
    rows += _gap_rows("log-prob gap", before, limit)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(SHIFT)
    stale = _gap(policy, setting, dtype, prompts[0], mine)
    rows.append(row("gap of old rollouts to shifted weights, rms", stale[0], "> 10 x", stale[0] > 10 * before[0]))
    for _ in range(2):  # the second one is what every step pays
        start = setting.seconds()
        engine.sync(policy.weights())
        seconds = setting.seconds() - start
    size = sum(p.numel() for p in policy.parameters()) * (2 if dtype == "bfloat16" else 4)
    rows.append(row("sync, GB/s", size / seconds / 1e9))
    rows.append(row("sync, seconds", seconds))
    fresh = engine.generate(requests[: work.rollouts], Stop(()), Decoding())
    after = _gap(policy, setting, dtype, prompts[0], fresh)
    # The shifted model is a sharper one, whose rounding is larger.
    rows.append(row("gap after the sync, rms", after[0], "< 3 x the first", after[0] < max(3 * before[0], 1e-5)))
    engine.close()
    return rows


def sleep(setting: Setting) -> Rows:
    """What sleep gives back, how long it takes with the sync that wakes, and that the engine is the same after it.

    A stop token ends the last rollout early, which leaves a batch in vLLM's queue.
    """
    policy = Policy(PolicyConfig(make_model(setting.shape), thinking=THINKING))
    engine = _start(policy, setting, "bfloat16", sleep=True)
    policy.load()
    policy.to(setting.device)
    request = Request(group_inputs(setting.work, setting.shape.vocab)[0][0], 1, setting.work.tokens)
    [before] = engine.generate([request], Stop(()), Decoding())
    engine.generate([request], Stop((before.token_ids[0],)), Decoding())
    awake, start = setting.used_gib(), setting.seconds()
    engine.sleep()
    slept = setting.seconds()
    asleep = setting.used_gib()
    engine.sync(policy.weights())
    woken = setting.seconds()
    [after] = engine.generate([request], Stop(()), Decoding())
    same = after.token_ids == before.token_ids
    engine.close()
    return [
        row("gives back, GiB", awake - asleep, "> 0.5", awake - asleep > 0.5),
        row("seconds to sleep", slept - start),
        row("seconds to wake, with the sync", woken - slept),
        row("the same rollout after it", same, "True", same),
    ]


def _start(policy: Policy, setting: Setting, dtype: str, *, sleep: bool = False) -> Engine:
    work = setting.work
    limits = SamplerConfig(
        setting.engine,
        work.tokens - ANSWER,
        ANSWER,
        max_num_seqs=work.rollouts * work.prompts,
        dtype=dtype,
        sleep=sleep,
    )
    return build_sampler(
        limits,
        model_path=policy.path,
        dtype=dtype,
        token_format=policy.format,
        max_prompt_tokens=work.prompt,
        device=setting.device,
    ).engine


def _gap(
    policy: Policy, setting: Setting, dtype: str, prompt: list[int], drawn: Sequence[Completion]
) -> tuple[float, float]:
    """Root mean square and maximum of log p(trainer) - log p(engine) over tokens, nats."""
    rows = [Continuation(completion.token_ids, [], []) for completion in drawn]
    with torch.no_grad(), torch.autocast(setting.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        ours = policy.group(prompt, rows).token_logprobs()
    theirs = [torch.tensor(completion.logprobs, dtype=torch.float64) for completion in drawn]
    gap = torch.cat([a.cpu() - b for a, b in zip(ours, theirs, strict=True)])
    return gap.square().mean().sqrt().item(), gap.abs().max().item()


def _gap_rows(what: str, gap: tuple[float, float], limit: float | None) -> Rows:
    wanted = "" if limit is None else f"at most {limit}"
    return [row(f"{what}, rms", gap[0]), row(f"{what}, max", gap[1], wanted, limit and gap[1] <= limit)]
