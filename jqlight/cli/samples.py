"""``jqlight samples``: what a run's model wrote, in the terminal or on a page."""

import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from jqlight.cli.arguments import CommandParser
from jqlight.errors import ConfigError
from jqlight.files import write_text
from jqlight.names import inert
from jqlight.report.samples import SPLITS, Filter, Sample, grouped, kept_steps, read_samples

WIDTH = 100
"""Columns of a listing, at most."""
INDENT = "    "
"""In front of a rationale's lines, so that none of them passes for a line of ours."""


def main(argv: Sequence[str]) -> int:
    """Show a run's samples, or write them to a page; 0.

    Raises:
        ConfigError: no such run, split, step or question, or none that the options leave.
        DataError: a line that is no sample.
    """
    options = _parser().parse_args(argv)
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"--limit: given {options.limit}, allowed is a number of questions from 1 up")
    run_dir: Path = options.run_dir
    samples = read_samples(run_dir, options.split, options.step or ("all" if options.html else "last"))
    wanted = Filter(options.wrong, options.empty, options.truncated, question=options.question)
    groups = list(islice(grouped(wanted(samples)), options.limit))
    if not groups:
        asked = [name for name in ("wrong", "empty", "truncated") if getattr(options, name)]
        asked += ["question"] if options.question else []
        raise ConfigError(
            f"--{' --'.join(asked)}: none of the {len(samples)} samples read is such; --step all looks at every step"
        )
    if options.html:
        from jqlight.report.samples_page import samples_page

        write_text(options.html, samples_page([s for group in groups for s in group], run_dir))
        print(f"page: {options.html}")
        return 0
    console = Console(width=min(shutil.get_terminal_size().columns, WIDTH), highlight=False, markup=False, emoji=False)
    with console.pager():
        console.print(_kept(run_dir))
        for group in groups:
            _show(console, group)
    return 0


def _kept(run_dir: Path) -> str:
    """Which steps there are."""
    steps = [f"{split} {', '.join(map(str, files))}" for split, files in kept_steps(run_dir).items()]
    return f"{inert(str(run_dir))} has samples of the steps: {'; '.join(steps)}"


def _show(console: Console, samples: Sequence[Sample]) -> None:
    """A question, its gold answers and its rationales, those that say the same once."""
    first = samples[0]
    heading = _line(f"{first.split}, step {first.step}, question {first.id}")
    console.print(Text(f"\n{heading}\n{'=' * min(len(heading), console.width)}"))
    console.print(Text(inert(first.prompt)))
    console.print(Text(f"gold: {' | '.join(map(_line, first.references))}"))
    alike: dict[tuple[str, str | None, bool | None], list[Sample]] = {}
    for sample in samples:
        alike.setdefault((sample.rationale, sample.answer, sample.truncated), []).append(sample)
    for sample, *others in alike.values():
        more = f"  and {len(others)} alike" if others else ""
        console.print(Text(f"\n{_facts(sample)}{more}"))
        for line in Text(inert(sample.rationale)).wrap(console, max(1, console.width - len(INDENT))):
            console.print(Text(f"{INDENT}{line.plain}".rstrip()))


def _facts(sample: Sample) -> str:
    """What is known of a sample, in one line."""
    facts = [f"sample {sample.number}"]
    if sample.weight is not None:
        facts.append(f"weight {sample.weight:+.3f}")
    if sample.log_likelihood is not None:
        facts.append(f"log p(gold) {sample.log_likelihood:.3f} nats")
    if sample.reward is not None:
        facts.append(f"reward {sample.reward:g}")
    if sample.answer is not None:
        facts.append(f'answer "{_line(sample.answer)}"')
    if sample.right is not None:
        facts.append("right" if sample.right else "WRONG")
    if sample.length is not None:
        facts.append(f"{sample.length} tokens")
    return "  ".join([*facts, *(name.upper() for name in ("empty", "truncated") if getattr(sample, name))])


def _line(text: str) -> str:
    return inert(text).replace("\n", "\\n")


def _parser() -> CommandParser:
    parser = CommandParser("samples", "Read what a run's model wrote: each question's rationales, by weight.")
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="folder of the run, such as runs/quickstart")
    parser.add_argument("--split", choices=list(SPLITS), help="only this one (default: all)")
    parser.add_argument("--step", help="a step, last or all (default: the last of each split; on a page all)")
    parser.add_argument("--wrong", action="store_true", help="only samples whose answer is wrong")
    parser.add_argument("--empty", action="store_true", help="only rationales without a word")
    parser.add_argument("--truncated", action="store_true", help="only rationales cut off by the thinking budget")
    parser.add_argument("--question", metavar="TEXT", help="only questions with this text in id or prompt")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many questions")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with filters instead")
    return parser
