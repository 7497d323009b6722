"""Majority votes over normalised answers."""


def fold(answer: str) -> str:
    """The answer stripped, case-folded, with runs of white space as one space: two answers that fold alike are one."""
    return " ".join(answer.casefold().split())
