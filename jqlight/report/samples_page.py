"""The page on which a run's samples and rollouts are read, filtered and searched."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jqlight.names import inert
from jqlight.report.page import render
from jqlight.report.samples import Sample, grouped, kept_steps, read_samples

FILE = "samples.html"
MOST = 2000
"""Samples of a page that a run writes itself, about two megabytes."""


def page_of_run(run_dir: Path) -> str:
    """The page of a run: of every kept step the first questions, about ``MOST`` samples together.

    Raises:
        ConfigError: nothing was kept.
        DataError: a line that is no sample.
    """
    files = sum(map(len, kept_steps(run_dir).values()))
    samples = read_samples(run_dir, most=max(1, MOST // files))
    return samples_page(samples, run_dir, "The first questions of each kept step; jqlight samples has all. ")


def samples_page(samples: Iterable[Sample], run_dir: Path, note: str = "") -> str:
    """The page of ``samples``, newest steps first: one HTML file that needs no network.

    The samples' texts are in it as JSON in which nothing can end the script's element, and are shown as text alone.
    """
    groups = sorted((_group(group) for group in grouped(samples)), key=lambda group: -group["step"])
    count = sum(len(group["rows"]) for group in groups)
    return render(
        "samples.html.j2",
        title=f"Samples of {inert(run_dir.resolve().name)}",
        origin=f"{count} samples of {len(groups)} questions. {note}",
        groups=groups,
    )


def _group(samples: list[Sample]) -> dict[str, Any]:
    first = samples[0]
    weights = [sample.weight or 0.0 for sample in samples]
    top = weights.index(max(weights)) if max(weights) > 0 else None
    rows = [
        {
            "number": s.number,
            "rationale": inert(s.rationale),
            "answer": None if s.answer is None else inert(s.answer),
            "right": s.right,
            "weight": s.weight,
            "log_likelihood": s.log_likelihood,
            "reward": s.reward,
            "truncated": bool(s.truncated),
            "empty": bool(s.empty),
            "length": s.length,
            "top": i == top,
        }
        for i, s in enumerate(samples)
    ]
    question = {"split": first.split, "step": first.step, "id": inert(first.id), "prompt": inert(first.prompt)}
    return {**question, "gold": [inert(reference) for reference in first.references], "rows": rows}
