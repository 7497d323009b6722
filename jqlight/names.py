"""Names that several rooms write and read: those of the scores, and the estimators in the paper's order."""

import re

ESTIMATORS = ("GARL", "PAFT", "GRPO", "RLOO", "MaxRL")
"""Class names in ``jqlight.estimators``, in the order in which tables show them."""

SCORE = re.compile(r"(?P<stage>val|test)/(?P<verifier>\w*?)(?P<kind>maj|pass)_at_(?P<k>\d+)")
"""A logged score of k samples, such as ``val/maj_at_16`` or ``test/exact_pass_at_1``; ``verifier`` is its prefix."""


def majority(k: int | str, verifier: str = "") -> str:
    """Name of the score of a majority vote of ``k`` samples, without its stage: ``maj_at_16``, ``exact_maj_at_16``.

    Args:
        k: samples.
        verifier: prefix of the verifier that judges the vote, empty for the paper's rule.
    """
    return f"{verifier}maj_at_{k}"


def pass_at(k: int | str, verifier: str = "") -> str:
    """Name of the chance that one of ``k`` samples is right, without its stage: ``pass_at_1``; see :func:`majority`."""
    return f"{verifier}pass_at_{k}"


def k_of_majority(name: str) -> int | None:
    """k where ``name`` is the score of a majority vote by the paper's rule or exact match, else None."""
    found = SCORE.fullmatch(name)
    return int(found["k"]) if found and found["kind"] == "maj" and found["verifier"] in ("", "exact_") else None
