"""Numbers as reports and models write them."""

import pytest

from jqlight.metrics.numbers import numbers_in, whole_number


@pytest.mark.parametrize(
    ("text", "value", "decimals", "percent", "scale"),
    [
        ("12", 12, 0, False, 1),
        ("1,234,567.80", 1234567.8, 2, False, 1),
        (".33%", 0.33, 2, True, 1),
        ("12.5 %", 12.5, 1, True, 1),
        ("-0.5%", -0.5, 1, True, 1),
        ("–3", -3, 0, False, 1),
        ("- 3", -3, 0, False, 1),
        ("(4.2)", -4.2, 1, False, 1),
        ("( 4.2 )", -4.2, 1, False, 1),
        ("(12.5%)", -12.5, 1, True, 1),
        ("$ 3,300.5 million", 3300.5, 1, False, 1e6),
        ("$-5", -5, 0, False, 1),
        ("-$5", -5, 0, False, 1),
        ("€ 7 Billion", 7, 0, False, 1e9),
        ("-4 ( 4 )", -4, 0, False, 1),
        ("12% ( 12 % )", 12, 0, True, 1),
        ("1.5e3", 1500, -2, False, 1),
        ("7.", 7, 0, False, 1),
        ("  7  ", 7, 0, False, 1),
        ("0,347", 0.347, 3, False, 1),
        ("1.200.000", 1200000, 0, False, 1),
        ("1.200,5 %", 1200.5, 1, True, 1),
        ("12,34,567", 1234567, 0, False, 1),
        ("-12 345 678", -12345678, 0, False, 1),
        ("1 200 million", 1200, 0, False, 1e6),
        ("150 basis points", 150, 0, False, 1e-4),
        ("10^6", 1e6, -6, False, 1),
        ("2 million ( 2,000,000 )", 2, 0, False, 1e6),
        ("-0.347 (-34.7%)", -0.347, 3, False, 1),
    ],
)
def test_one_number(text, value, decimals, percent, scale):
    number = whole_number(text)
    assert number is not None
    assert (number.value, number.decimals, number.percent, number.scale) == (value, decimals, percent, scale)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seven",
        "7 apples",
        "x7",
        "7 8",
        "10-12",
        "1.2.3",
        "--",
        "$",
        "%",
        "(",
        "1" * 400,
        "3/4",
        "3 1/2",
        "1½",
        "3⁄4",
        "5/12/2018",
        "2^10",
        "1,2",
        "12,34,56",
    ],
)
def test_not_one_number(text):
    assert whole_number(text) is None


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("10-12", [10, 12]),
        ("from 2019 to 2020 , -3.5% ( 3.5 % ) of $ 7", [2019, 2020, -3.5, 7]),
        ("4 ( 5 )", [4, -5]),
        ("-4 ( 5 )", [-4, -5]),
        ("4 ( 4 )", [4, -4]),  # no minus and no percent sign before: two numbers
        ("1,2,3", [1, 2, 3]),
        ("12,34", [12, 34]),
        ("1/2 of 5", [5]),
        ("35 (36%)", [35, -36]),  # not the same value
        ("1,234² of 7", [1234, 7]),
        ("company 2019s 3rd", [2019, 3]),
        ("9" * 400 + "9e999", []),
    ],
)
def test_all_numbers_in_a_text(text, values):
    found = [number.value for number in numbers_in(text)]
    assert found == values if values else all(value < 1e101 for value in found)


def test_literal_applies_percent_and_scale():
    assert numbers_in("12.5%")[0].literal == 0.125
    assert numbers_in("3 million")[0].literal == 3e6
