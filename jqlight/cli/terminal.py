"""Text of others on a terminal: shown, never obeyed."""

import re

# Control characters but tab and newline (escape sequences begin with one), and what reorders the text around it.
_ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def inert(text: str) -> str:
    r"""``text`` with the characters that a terminal would act on, or cannot show, written as escapes: ``\x1b[2J``."""
    return _ACTIVE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)
