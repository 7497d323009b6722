r"""Numbers as people and models write them: "$ 3,300.5 million", "(4.2)", "12.5 %", "-4 ( 4 )", "\boxed{34.7\%}"."""

import html
import math
import re
import unicodedata
from dataclasses import dataclass

_SCALES = {"h": 1e2, "t": 1e3, "k": 1e3, "m": 1e6, "b": 1e9, "tr": 1e12, "bp": 1e-4}
_CODES = "rs|usd|eur|gbp|jpy|cny|rmb|inr|chf|cad|aud|nzd|hkd|sgd|sek|nok|dkk|krw|brl|mxn|zar"
_OF_HUNDRED = re.compile(r"\s?(?:%|per\s?cent|pct)")
_PERCENT = r"%(?:-?\s?points?\b)?|-?per[\s-]?cents?\b|percentage\s?points?\b|pct\b|pp\b"
_SCALE = r"hundreds?|thousands?|millions?|billions?|trillions?|k|mm?|mn|mln|mil|mio|bn?|bil|tn|trn|basis\s?points?|bps?"
# Every part is bounded and starts with a character of its own, so that matching is linear in the text.
_NUMBER = re.compile(
    rf"""(?P<open>\()?\s?
    (?P<sign>(?<![\w.)%])-)?\s?
    (?P<digits>\d{{1,3}}(?:,\d{{3}}){{1,20}}(?!\d)|\d{{1,100}})?
    (?P<fraction>\.\d{{1,100}})?
    (?P<exponent>e[+-]?\d{{1,3}}(?![\w.]))?
    (?:\s?(?P<percent>{_PERCENT}))?
    (?:\s?(?P<close>\)))?
    (?:\s?(?P<scale>{_SCALE})\b(?![-'.]\w))?
    (?:\s?(?P<late_percent>{_PERCENT}))?
    (?:\s?(?P<late_close>\)))?""",
    re.VERBOSE,
)
_START = re.compile(r"[(\-.\d]")
_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?%?")
_VULGAR = re.compile("[\u00bc-\u00be\u2044\u2150-\u215e\u2189]")
_RUN = re.compile(r"(?<![\d.,])\d[\d.,]*\d")
_DECIMAL_COMMA = re.compile(r"\d{1,3}(?:\.\d{3})+,\d{1,2}|\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?|0,\d+")
_LAKHS = re.compile(r"\d\d?(?:,\d\d)+,\d{3}(?:\.\d+)?")
_SPACED = re.compile(rf"[^\w.]*\d{{1,3}}(?: \d{{3}})+(?!\d)[^\w(]*(?:(?:{_PERCENT}|{_SCALE})[^\w(]*)?")
_REPEAT = re.compile(rf"\s*(?:\(\s*-?\s*[\d.,]+\s*(?:{_PERCENT}|{_SCALE})?\s*\))?\s*\.?\s*")

# No decimal number, and not its denominator either.
_FRACTION = re.compile(
    r"(?<![\d.,/])(?:\d{1,50} )?\d{1,50}(?:\.\d{1,50})?\s?/\s?\d{1,50}(?:\.\d{1,50})?(?![\d/])"
    r"|(?<!\d)\d{0,50}\s?\\[dtc]?frac\s?\{[^{}]*\}\s?\{[^{}]*\}"
)
_REWRITTEN = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"</?[a-z]{1,20}>", " "),
        (r"\\{1,3}(?=[%$#&_])|\\!", ""),
        (r"\{([,.])\}", r"\1"),
        (r"\\(?:text)?percent\b", "%"),
        (r"(?<![\w)\d.] )(?<![\w)\d.])%\s?(\d[\d.,]{0,50})(?!\s?%)", r"\1%"),  # Turkish
        (r"(?<=10)[⁻⁰¹²³⁴-⁹]{1,4}", lambda m: "^" + unicodedata.normalize("NFKC", m[0]).replace("\u2212", "-")),
        (r"(?<!\d)\d{1,3}(?:(?:\\,|[\u00a0\u2007-\u200a\u202f'’])\d{3})+(?!\d)", lambda m: re.sub(r"\D", "", m[0])),
        (r"\s?(?:\\times|\\cdot|[x×*])\s?10\s?\^\s?\{?([+-]?\d{1,3})\}?(?!\d)", r"e\1"),
        (r"(?<![\d.])10\s?\^\s?\{?([+-]?\d{1,3})\}?(?!\d)", r"1e\1"),
        (r"(?<![\d.])[\d.]{1,50}\s?\^\s?\{?[+-]?\d{1,50}\}?", " "),  # another power
        (r"\\[a-z]+\*?|\\.|[{}*`~]", " "),  # \boxed, \text, \left, \(, thin spaces, bold face
    )
]
_WORDS = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"(?<![a-z])[a-z]{0,2}\$|\$", " "),
        (
            rf"(?<![a-z])(?:{_CODES})\.?(?=[\s\d(.-])|(?<=[\d\s.)])(?:{_CODES}|dollars?|euros?|pounds?|yen)(?![a-z])",
            " ",
        ),
        (r"\s+", " "),
        (r"(?<![\w)%.])(?<![\d)%] )(?:minus|negative) (?=[\d.])", "-"),
        (r"(?<![\w)%.])\+ ?(?=[\d.])", ""),
    )
]


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
    """Start and end in the :func:`plain` text."""

    @property
    def literal(self) -> float:
        """The value with percent sign and scale word applied."""
        return self.value * self.scale / (100 if self.percent else 1)

    @property
    def half_unit(self) -> float:
        """Half a unit of the last digit shown, with percent sign and scale word applied."""
        return 0.5 * 10.0**-self.decimals * self.scale / (100 if self.percent else 1)


def plain(text: str) -> str:
    r"""The text in lower case and ASCII signs, without LaTeX, bold face and currency: " 1200 " for "\$1{,}200".

    Digits of any script, percent signs, dashes and spaces become ASCII's; thin and no-break spaces between thousands
    go. Points and commas become English ones where they can be nothing else: "1.200,50", "1.200.000", "0,347", "34,7%",
    "12,34,567", and "1 200" as the whole text. A fraction ("3/4", in LaTeX too) is no decimal
    number and goes as a whole.
    """
    if _PLAIN.fullmatch(text):
        return text
    text = html.unescape(text).casefold()
    if not text.isascii():
        text = _VULGAR.sub(lambda found: _fraction(found[0]), text)
    if "/" in text or "frac" in text:
        text = _FRACTION.sub(" ", text)
    for pattern, by in _REWRITTEN:
        text = pattern.sub(by, text)
    if not text.isascii():
        text = "".join(c if c.isascii() else _ascii(c) for c in text)
    for pattern, by in _WORDS:
        text = pattern.sub(by, text)
    if "," in text or text.count(".") > 1:
        text = _RUN.sub(_in_english, text)
    return text.replace(" ", "") if " " in text and _SPACED.fullmatch(text) else text


def numbers_in(text: str) -> list[Number]:
    """All numbers in the text, in order.

    Parentheses around a number make it negative, except behind the same number with a minus sign or a percent sign, as
    FinQA's tables write it ("-4 ( 4 )", "12% ( 12 % )"), or in another notation ("0.347 (34.7%)", "2 million
    (2,000,000)"): that is one number. A minus between two numbers is a dash.
    """
    return _numbers(plain(text))


def whole_number(text: str) -> Number | None:
    """The number that the text consists of, its currency, markup and a final full stop aside, or None."""
    text = plain(text)
    found = _numbers(text)
    if len(found) != 1:
        return None
    start, end = found[0].span
    return found[0] if _REPEAT.fullmatch(text[:start] + text[end:]) else None


def _fraction(character: str) -> str:
    """A vulgar fraction, or the slash of one, in ASCII."""
    parts = unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    return parts if parts == "/" else f" {parts}"


def _in_english(run: re.Match[str]) -> str:
    """Digits with the points and commas of another language as English writes them; unclear ones as they are."""
    digits, behind = run[0], run.string[run.end() :][:9]
    whole, comma, places = digits.partition(",")
    percentage = comma and whole.isdigit() and len(places) < 3 and places.isdigit() and re.match(_OF_HUNDRED, behind)
    if percentage or _DECIMAL_COMMA.fullmatch(digits):
        return f"{whole.replace('.', '')}.{places}" if comma else whole.replace(".", "")
    return digits.replace(",", "") if _LAKHS.fullmatch(digits) else digits


def _ascii(character: str) -> str:
    """The ASCII sign of the same meaning where there is one: of digits, spaces, currencies, dashes and wide forms."""
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    kind = unicodedata.category(character)
    if kind in ("Zs", "Sc", "No"):  # No: exponents, footnotes, numbers in circles
        return " "
    if kind == "Pd" or character == "\u2212":  # the minus sign is a mathematical symbol
        return "-"
    if kind == "Cf":  # no width
        return ""
    return {"\u3002": ".", "٪": "%", "٫": ".", "٬": ","}.get(character) or unicodedata.normalize("NFKC", character)


def _numbers(text: str) -> list[Number]:
    found: list[Number] = []
    position = 0
    while (start := _START.search(text, position)) is not None:
        match = _NUMBER.match(text, start.start())
        if match is None or not (match["digits"] or match["fraction"]):
            position = start.start() + 1
            continue
        position = match.end()
        number = _as_number(match)
        if number is not None and not (found and _repeats(text, found[-1], number)):
            found.append(number)
    return found


def _as_number(match: re.Match[str]) -> Number | None:
    digits = (match["digits"] or "0").replace(",", "") + (match["fraction"] or "") + (match["exponent"] or "")
    value = float(digits)
    if not math.isfinite(value):
        return None
    in_parentheses = bool(match["open"] and (match["close"] or match["late_close"]))
    return Number(
        value=-value if match["sign"] or in_parentheses else value,
        decimals=len(match["fraction"] or ".") - 1 - int((match["exponent"] or "e0")[1:]),
        percent=bool(match["percent"] or match["late_percent"]),
        scale=_scale(match["scale"] or ""),
        span=match.span(),
    )


def _scale(word: str) -> float:
    if word.startswith(("tr", "tn")):
        return _SCALES["tr"]
    return _SCALES["bp" if word.startswith(("bp", "basis")) else word[0]] if word else 1.0


def _repeats(text: str, first: Number, second: Number) -> bool:
    """Whether the second is only the first's magnitude again, in parentheses behind it."""
    between = text[first.span[1] : second.span[0]]
    if between.strip() or text[second.span[0]] != "(":
        return False
    if first.percent != second.percent or first.scale != second.scale:
        coarser = max(number.half_unit for number in (first, second))
        return abs(abs(first.literal) - abs(second.literal)) <= coarser * (1 + 1e-9)
    return (first.value < 0 or first.percent) and abs(first.value) == abs(second.value)
