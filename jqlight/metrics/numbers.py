"""Numbers as people and models write them: "$ 3,300.5 million", "(4.2)", "12.5 %", "-4 ( 4 )"."""

import math
import re
from dataclasses import dataclass

_SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_DASHES = str.maketrans(dict.fromkeys("−‒–—﹣－", "-"))
# Every part is bounded and starts with a character of its own, so that matching is linear in the text.
_NUMBER = re.compile(
    r"""(?P<open>\()?\s{0,3}
    (?P<sign>(?<![\w.)%])-)?\s{0,3}
    (?P<money>[$€£]\s{0,3})?
    (?P<inner_sign>(?<=[$€£\s])-)?
    (?P<digits>\d{1,3}(?:,\d{3}){1,20}(?!\d)|\d{1,100})?
    (?P<fraction>\.\d{1,100})?
    (?P<exponent>e[+-]?\d{1,3}(?![\w.]))?
    (?:\s{0,3}(?P<percent>%|percent\b))?
    (?:\s{0,3}(?P<close>\)))?
    (?:\s{0,3}(?P<scale>thousand|million|billion|trillion)s?\b)?
    (?:\s{0,3}(?P<late_percent>%|percent\b))?""",
    re.VERBOSE,
)
_START = re.compile(r"[(\-$€£.\d]")


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: float
    """The number before percent sign and scale word are applied: 12.5 for "12.5 %"."""
    decimals: int
    """Digits behind the point, less the exponent: 1 for "3.5", -2 for "1.5e3"."""
    percent: bool
    scale: float
    """1, or what the word after it means: 1e6 for "million"."""
    span: tuple[int, int]
    """Start and end in the text."""

    @property
    def literal(self) -> float:
        """The value with percent sign and scale word applied."""
        return self.value * self.scale / (100 if self.percent else 1)


def numbers_in(text: str) -> list[Number]:
    """All numbers in the text, in order.

    Parentheses around a number make it negative, except behind the same number with a minus sign or a percent sign, as
    FinQA's tables write it ("-4 ( 4 )", "12% ( 12 % )"): that is one number. A minus between two numbers is a dash.
    """
    found: list[Number] = []
    position = 0
    text = text.casefold().translate(_DASHES)
    while (start := _next_start(text, position)) is not None:
        match = _NUMBER.match(text, start)
        if match is None or not (match["digits"] or match["fraction"]):
            position = start + 1
            continue
        position = match.end()
        number = _as_number(match)
        if number is not None and not (found and _repeats(text, found[-1], number)):
            found.append(number)
    return found


def whole_number(text: str) -> Number | None:
    """The number that the text consists of, a final full stop aside, or None."""
    found = numbers_in(text)
    if len(found) != 1:
        return None
    number = found[0]
    rest = text[: number.span[0]] + text[number.span[1] :]
    repeat = r"\(\s*[\d.,]+\s*%?\s*\)"
    return number if re.fullmatch(rf"\s*(?:{repeat})?\s*\.?\s*", rest) else None


def _next_start(text: str, position: int) -> int | None:
    match = _START.search(text, position)
    return match.start() if match else None


def _as_number(match: re.Match[str]) -> Number | None:
    digits = (match["digits"] or "0").replace(",", "") + (match["fraction"] or "") + (match["exponent"] or "")
    value = float(digits)
    if not math.isfinite(value):
        return None
    in_parentheses = bool(match["open"] and match["close"])
    negative = bool(match["sign"] or match["inner_sign"]) or in_parentheses
    return Number(
        value=-value if negative else value,
        decimals=len(match["fraction"] or ".") - 1 - int((match["exponent"] or "e0")[1:]),
        percent=bool(match["percent"] or match["late_percent"]),
        scale=_SCALES.get(match["scale"] or "", 1.0),
        span=match.span(),
    )


def _repeats(text: str, first: Number, second: Number) -> bool:
    """Whether the second is only the first's magnitude again, in parentheses behind it."""
    between = text[first.span[1] : second.span[0]]
    return (
        not between.strip()
        and text[second.span[0]] == "("
        and (first.value < 0 or first.percent)
        and abs(first.value) == abs(second.value)
    )
