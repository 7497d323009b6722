"""A stand-in for ``python -m jqlight``: takes the command line of ``fit``, trains nothing, and is over in a moment.

It writes what the runner looks at (metrics.jsonl, checkpoints/last.ckpt) and obeys a few settings of its own:
``--fake.steps N``, ``--fake.seconds S`` per step, ``--fake.fail_at STEP`` (once: a resumed run goes on),
``--fake.leave`` (once: ends with 0 halfway), ``--fake.crash``,
``--fake.fail_test`` (the first ``test`` fails), ``--fake.polite`` (ends with 0 when asked to stop).
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(argv: list[str]) -> int:
    assert argv[0] in ("fit", "test"), argv
    options = {key.removeprefix("--"): value for key, value in zip(argv[1::2], argv[2::2], strict=True)}
    folder = Path(options["run_dir"])
    checkpoint = folder / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if "fake.polite" in options:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    first = int(Path(options["ckpt_path"]).read_text()) if argv[0] == "fit" and "ckpt_path" in options else 0
    with (folder / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps({"argv": argv, "first": first, "env": dict(os.environ), "pid": os.getpid()}) + "\n")
    print(f"fake fit from step {first}")
    (folder / "config.yaml").write_text(f"trainer:\n  max_steps: {options.get('fake.steps', 3)}\n")
    if argv[0] == "test":
        tests = (folder / "calls.jsonl").read_text().count('["test"')
        return int("fake.fail_test" in options and tests == 1)
    if "fake.crash" in options:
        print("progress 1\rprogress 2\rprogress 3")
        print("jqlight fit: model.q: given 7, allowed is a number from 0 to 1", file=sys.stderr)
        return 2
    leaves = "fake.leave" in options and first == 0
    (folder / "run.json").write_text(json.dumps({"status": "RUNNING" if leaves else "FINISHED"}))
    if leaves:
        checkpoint.write_text("1")
        return 0
    for step in range(first + 1, int(options.get("fake.steps", 3)) + 1):
        time.sleep(float(options.get("fake.seconds", 0)))
        if step == int(options.get("fake.fail_at", -1)) and first == 0:
            raise RuntimeError(f"failed at step {step}")
        with (folder / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps({"step": step, "time": time.time(), "train/success": step / 10}) + "\n")
        checkpoint.write_text(str(step))
    with (folder / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps({"step": step, "time": time.time(), "val/maj_at_4": 0.5}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
