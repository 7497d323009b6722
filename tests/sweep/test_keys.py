import pytest

from jqlight.names import format_value
from jqlight.objective import Splice
from jqlight.schedules import Cosine, Linear, Step
from jqlight.sweep.keys import canonical_value


@pytest.mark.parametrize(
    ("given", "commitment"),
    [
        ({"splice": 0.05}, Splice(0.05)),
        ({"step": 70}, Step(70)),
        ({"linear": {"steps": 50, "start": 0.75, "end": 0.25}}, Linear(50, 0.75, 0.25)),
        ({"cosine": 9}, Cosine(9)),
        ({"class_path": "jqlight.objective.Splice", "init_args": {"tau": 0.1}}, Splice(0.1)),
    ],
)
def test_commitments_are_spelled_as_they_spell_themselves(given, commitment):
    # A sweep's table and the tag that the run itself writes must agree.
    assert format_value(canonical_value("q", given, "here")) == repr(commitment)


def test_commitments_name_classes_that_take_these_arguments():
    for given in ({"splice": 0.05}, {"step": 70}, {"linear": 5}, {"cosine": 5}):
        value = canonical_value("q", given, "here")
        module, name = value["class_path"].rsplit(".", 1)
        built = getattr(__import__(module, fromlist=[name]), name)(**value["init_args"])
        assert repr(built) == format_value(value)


def test_other_commitments_show_their_arguments():
    value = canonical_value("q", {"class_path": "mine.Ramp", "init_args": {"a": 1.0, "b": "x"}}, "here")
    assert format_value(value) == "ramp(a=1, b=x)"
