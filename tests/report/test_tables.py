import io

import pytest
from rich.console import Console

from jqlight.report.compare import Spread
from jqlight.report.tables import TextTable, number, spread_text

TABLE = TextTable(["method", "n", "maj@16", "pass@1"], [["GARL q=0.75", "3", "0.500", "0.25"], ["[x]", "1", "–", "–"]])


def shown(table, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(table.rich(width))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_wide_terminal_shows_everything_aligned():
    assert shown(TABLE, 80) == [
        "method       n  maj@16  pass@1",
        "GARL q=0.75  3   0.500    0.25",
        "[x]          1       –       –",
    ]


@pytest.mark.parametrize(("width", "columns"), [(30, 4), (29, 3), (22, 3), (21, 2), (5, 2)])
def test_narrow_terminal_drops_columns_from_the_right(width, columns):
    assert TABLE.fitting(width) == columns


def test_markdown_aligns_numbers_to_the_right():
    assert TABLE.markdown().splitlines()[:3] == [
        "| method | n | maj@16 | pass@1 |",
        "| --- | ---: | ---: | ---: |",
        "| GARL q=0.75 | 3 | 0.500 | 0.25 |",
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "–"), ([0.5], "0.500"), ([0.4, 0.6], "0.500 ± 0.141"), ([0.25, 0.25, 0.25], "0.250 ± 0.000")],
)
def test_spread_is_mean_and_sample_deviation(values, text):
    assert spread_text(Spread.of(values), 3) == text


def test_a_small_negative_number_is_no_negative_zero():
    assert (number(-0.01, 1), number(-0.06, 1), number(None, 1)) == ("0.0", "-0.1", "–")
