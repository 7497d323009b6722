"""Break the code on purpose, one place at a time, and see that a test fails each time.

python scripts/mutants.py [--jobs 2] [--only WORD] [--write docs/mutants.md]        (about 4 minutes on 2 CPU cores)

Works on copies in a temporary folder. Ends with exit code 1 if a mutant survives, if its text is no longer in the
source, or if the tests fail without any mutation.
"""

import argparse
import datetime
import importlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = Path(__file__).with_suffix(".toml")
COPIED = ("jqlight", "tests", "scripts", "pyproject.toml")
# Imported once and inherited by every run of pytest: they cost more than most of the tests.
HEAVY = ("torch", "transformers", "lightning", "torchmetrics", "datasets", "pytest")


@dataclass(frozen=True)
class Mutant:
    """One wrong line of code and the test file that must notice it."""

    what: str
    file: str
    old: str
    new: str
    tests: str


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``caught`` by the first failing ``test``, or why not."""

    mutant: Mutant
    caught: bool
    test: str


def copy_tree(folder: Path) -> None:
    """A copy of what the tests need, without compiled files."""
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)


def run_tests(folder: Path, tests: list[str]) -> tuple[int, str]:
    """Exit code and output of pytest on a copy, up to the first failure, in a forked process."""
    report = folder / "report.txt"
    child = os.fork()
    if not child:
        descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = str(folder)
        assert str(folder) in str(importlib.import_module("jqlight").__file__), "the copy is what is tested"
        code = importlib.import_module("pytest").main(["-x", "-q", "-p", "no:cacheprovider", *tests])
        sys.stdout.flush()
        os._exit(int(code))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, report.read_text(errors="replace")


def judge(mutant: Mutant) -> Outcome:
    """Apply one mutant to this process's copy, run its tests, and take it back."""
    path = folder_of_process() / mutant.file
    original = path.read_text()
    if original.count(mutant.old) != 1:
        return Outcome(mutant, False, f"its text occurs {original.count(mutant.old)} times in the source")
    try:
        path.write_text(original.replace(mutant.old, mutant.new))
        code, output = run_tests(folder_of_process(), [mutant.tests])
    finally:
        path.write_text(original)
    failed = re.search(r"^(?:FAILED|ERROR) \S*?([\w.]+::\w+)", output, re.MULTILINE)
    # 1: tests ran and failed; anything else would be a broken file, not a noticed mistake.
    if code != 1 or failed is None:
        return Outcome(mutant, False, "SURVIVED" if code == 0 else f"pytest ended with {code}: {output[-300:]}")
    return Outcome(mutant, True, failed.group(1))


def folder_of_process() -> Path:
    """The copy that this worker process mutates."""
    clean = Path(os.environ["MUTANTS_FOLDER"])
    folder = clean.with_name(str(os.getpid()))
    if not folder.is_dir():
        shutil.copytree(clean, folder)
    return folder


def document(outcomes: list[Outcome], commit: str) -> str:
    """docs/mutants.md."""
    caught = sum(o.caught for o in outcomes)
    rows = [f"| {o.mutant.what} | `{o.mutant.file}` | {'`' + o.test + '`' if o.caught else o.test} |" for o in outcomes]
    return (
        "# Mutation check\n\n"
        "Each row is a mistake that `scripts/mutants.py` puts into a copy of the source, alone, and the first test\n"
        "that fails because of it. The tests run without the golden file, so the suite alone has to notice. The texts\n"
        "that are replaced are in `scripts/mutants.toml`.\n\n"
        f"`make mutants` on {datetime.date.today():%d %B %Y}, commit {commit}: "
        f"**{caught} of {len(outcomes)} caught**.\n\n"
        + "\n".join(["| mistake | in | caught by |", "|---|---|---|", *rows])
        + "\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--only", default="", help="mutants whose description, file or test file holds this word")
    parser.add_argument("--write", type=Path, help="write the result to this file")
    options = parser.parse_args()
    mutants = [Mutant(**fields) for fields in tomllib.loads(MUTANTS.read_text())["mutant"]]
    chosen = [m for m in mutants if options.only in f"{m.what} {m.file} {m.tests}"]
    # Without compiled files: two mutants of one file have the same size and time stamp, and would be taken for one.
    sys.dont_write_bytecode = True
    os.environ.update(PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="0")
    os.environ.pop("JQLIGHT_TEST_DATA", None)  # the suite alone must notice, without the golden values
    for name in HEAVY:
        importlib.import_module(name)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as temporary:
        # One copy at the start: the sources may be edited while the check runs.
        clean = Path(temporary) / "clean"
        copy_tree(clean)
        os.environ["MUTANTS_FOLDER"] = str(clean)
        code, output = run_tests(folder_of_process(), sorted({m.tests for m in chosen}))
        if code:
            print(f"the tests fail without a mutation:\n{output[-3000:]}")
            return 1
        outcomes = []
        with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
            for outcome in pool.imap(judge, chosen):
                outcomes.append(outcome)
                print(f"{'caught' if outcome.caught else 'MISSED'}  {outcome.mutant.what}: {outcome.test}", flush=True)
    missed = [o for o in outcomes if not o.caught]
    print(f"{len(outcomes) - len(missed)} of {len(outcomes)} mutants caught")
    if options.write:
        options.write.write_text(document(outcomes, commit.strip()))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
