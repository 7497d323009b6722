"""What only a GPU can show, as checks and measured rows: `make gpu-check`, in under eight minutes.

Every part of perf/gpu_parts.py runs in a process of its own with a limit to its time: one that fails, or that something
is missing for, is a row that says so, and the others run all the same. With ``--device cpu`` the same parts run on a
small model, which shows that they work and nothing about a GPU.

Writes OUT/gpu_check.json, after every part, and the table OUT/gpu_check.md; what each part printed is OUT/PART.log.
Exit code 1 where a check failed or a part did not run to its end.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from perf.common import machine, rounded

ROOT = Path(__file__).parent.parent
RESULT = "gpu_check: "
"""Begins the line in which a part's process gives its rows."""
LOG_LINES = 40


class Part(NamedTuple):
    """A part of the check: the function of perf/gpu_parts.py, and what it runs with."""

    name: str
    function: str
    limit_s: float
    environment: tuple[tuple[str, str], ...] = ()


# First what the others need, then what would be missed most if the time ran out.
PARTS = (
    Part("machine", "machine_part", 60),
    Part("engine bfloat16", "engine_bfloat16", 100),
    Part("gradient", "gradient", 60),
    Part("step", "step", 90),
    Part("sleep", "sleep", 60),
    Part("lookahead", "lookahead", 60),
    Part("engine float32", "engine_float32", 50),
    Part("engine float32, TF32", "engine_float32", 50, (("TRITON_F32_DEFAULT", "tf32"),)),
    Part("command", "command", 45),
)
BUDGET_S = 470.0
CPU_SLOWER = 4
"""Factor of all limits on a CPU, where nobody pays by the minute and importing may take longer than computing."""


def run_part(command: Sequence[str], limit_s: float, log: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Rows of a part's process; one row that says why, where it gives none."""
    began = time.monotonic()
    # vLLM asks for flashinfer's sampler on a GPU and stops where that is not installed.
    without = {} if find_spec("flashinfer") else {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env={**without, **os.environ, **environment}
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [row for line in lines if line.startswith(RESULT) for row in json.loads(line.removeprefix(RESULT))]
    seconds = time.monotonic() - began
    if code == 0 and rows:
        return [*rows, {"what": "seconds of the whole part", "value": seconds}]
    last = next((line.strip() for line in reversed(lines) if line.strip() and not line.startswith(RESULT)), "no output")
    why = f"not at its end after {limit_s:.0f} s" if code is None else f"exit code {code}: {last[:300]}"
    return [*rows, {"what": "ran to its end", "value": why, "ok": False}]


def verdict(row: dict[str, Any]) -> str:
    """ok, FAILED, not run, or measured where nothing is demanded."""
    if row.get("missing"):
        return "not run"
    ok = row.get("ok")
    return "measured" if ok is None else "ok" if ok else "FAILED"


def table(rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> str:
    """A Markdown table of all rows below a line on the machine."""
    lines = [", ".join(f"{name} {value}" for name, value in about.items()), ""]
    lines += ["| part | what | value | wanted | |", "|---|---|---|---|---|"]
    for row in rows:
        value = rounded(row.get("value"))
        cells = (row["part"], row["what"], value, row.get("wanted", ""), verdict(row))
        lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def check(parts: Sequence[Part], device: str, out: Path, budget_s: float = BUDGET_S) -> list[dict[str, Any]]:
    """Run the parts one after another; their rows, which are also written to ``out`` after each."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    end = time.monotonic() + budget_s
    about = {name: value for name, value in machine().items() if name != "allocator"} | {"device": device}
    for part in parts:
        left = end - time.monotonic()
        if left < 10:
            found = [{"what": "ran", "value": f"the {budget_s:.0f} s were over", "missing": True}]
        else:
            command = [sys.executable, "-m", "perf.gpu_parts", part.function, "--device", device]
            log = out / f"{part.name.replace(' ', '_').replace(',', '')}.log"
            found = run_part(command, min(part.limit_s, left), log, dict(part.environment))
        rows += [{"part": part.name, **row} for row in found]
        text = json.dumps({"machine": about, "rows": [{**row, "verdict": verdict(row)} for row in rows]}, indent=1)
        (out / "gpu_check.json").write_text(text + "\n")
        (out / "gpu_check.md").write_text(table(rows, about))
        print(table([row for row in rows if row["part"] == part.name], about).split("\n", 4)[-1], end="", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="what only a GPU can show")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], metavar="PART")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"))
    options = parser.parse_args()
    slower = 1 if options.device == "cuda" else CPU_SLOWER
    chosen = [
        part._replace(limit_s=slower * part.limit_s)
        for part in PARTS
        if options.parts is None or part.name in options.parts
    ]
    rows = check(chosen, options.device, options.out, slower * BUDGET_S)
    print(f"{options.out / 'gpu_check.json'} and {options.out / 'gpu_check.md'}")
    return int(any(verdict(row) == "FAILED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
