import io
import re

import pandas as pd
import pytest
from rich.console import Console

from jqlight.report.tables import markdown, number, spread_text, terminal_table

NUMBERS = pd.DataFrame({"n": ["3", "1"], "maj@16": ["0.500", "–"], "pass@1": ["0.25", "–"]})
TABLE = NUMBERS.set_index(pd.Index(["GARL q=0.75", "[x]"], name="method"))


def shown(table, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal_table(table, width)[0])
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_wide_terminal_shows_everything_aligned():
    assert shown(TABLE, 80) == [
        "method       n  maj@16  pass@1",
        "GARL q=0.75  3   0.500    0.25",
        "[x]          1       –       –",
    ]


@pytest.mark.parametrize(("width", "columns"), [(30, 4), (29, 3), (22, 3), (21, 2), (5, 2)])
def test_narrow_terminal_drops_columns_from_the_right_and_says_which(width, columns):
    table, hidden = terminal_table(TABLE, width)
    assert len(table.columns) == columns
    assert hidden == ["method", "n", "maj@16", "pass@1"][columns:]


def test_markdown_aligns_numbers_to_the_right():
    assert markdown(TABLE).splitlines()[:3] == [
        "| method | n | maj@16 | pass@1 |",
        "| --- | ---: | ---: | ---: |",
        "| GARL q=0.75 | 3 | 0.500 | 0.25 |",
    ]


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("a|b", r"a\|b"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("![x](y) `z` *w*", r"!\[x\](y) \`z\` \*w\*"),
        ("a_b\nc", "a_b c"),
        ("back\\slash|", r"back\\slash\|"),
    ],
)
def test_markdown_shows_a_name_as_it_is(name, cell):
    line = markdown(pd.DataFrame({"n": ["1"]}, index=pd.Index([name], name="run"))).splitlines()[2]
    assert line == f"| {cell} | 1 |"
    assert len(re.findall(r"(?<!\\)\|", line.replace(r"\\\\", ""))) == 3


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "–"),
        ([0.5], "0.500"),
        ([0.6, 0.4], "0.500 (0.400, 0.600)"),
        ([0.4, 0.5, 0.6], "0.500 ± 0.100"),
        ([0.25, 0.25, 0.25], "0.250 ± 0.000"),
    ],
)
def test_spread_is_mean_and_sample_deviation(values, text):
    assert spread_text(pd.Series(values, dtype=float), 3) == text


def test_a_small_negative_number_is_no_negative_zero():
    assert (number(-0.01, 1), number(-0.06, 1), number(float("nan"), 1)) == ("0.0", "-0.1", "–")
