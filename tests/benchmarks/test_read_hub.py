"""The hub's schema, and quick errors that name the ways on when there is no network."""

import datasets
import pytest
from huggingface_hub import constants

from jqlight import hub
from jqlight.benchmarks import FinQA, HotpotQA
from jqlight.errors import HubError

HUB_ROWS = [
    {
        "id": f"row{i}",
        "question": " Who? ",
        "answer": "Ida Berg",
        "type": "bridge",
        "level": "hard",
        "supporting_facts": {"title": ["Sorn"], "sent_id": [1]},
        "context": {
            "title": ["Sorn", "Aune"],
            "sentences": [["Sorn is a town.", " Its mayor is Ida Berg."], ["A river."]],
        },
    }
    for i in range(40)
]


@pytest.fixture
def rows(monkeypatch):
    """The hub answers with HUB_ROWS; the list of splits that were asked for."""
    asked = []
    monkeypatch.setattr(hub, "reachable", lambda url: True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, split: asked.append((*args, split)) or HUB_ROWS)
    return asked


def test_hotpotqa_reads_the_hubs_schema(rows, token_format):
    benchmark = HotpotQA().bind(token_format)
    (first, *rest) = benchmark.examples("train")
    assert rows == [("hotpotqa/hotpot_qa", "distractor", "train")]
    assert len(rest) == 39
    assert first.id.startswith("row")
    assert "Sorn: Sorn is a town. Its mayor is Ida Berg.\nAune: A river.\n\nQuestion: Who?\n" in first.prompt
    gold = HotpotQA(context="gold").bind(token_format).examples("train")[0]
    assert "Aune" not in gold.prompt and "Sorn" in gold.prompt


def test_validation_and_test_are_the_halves_of_the_hubs_validation(rows, token_format):
    benchmark = HotpotQA().bind(token_format)
    validation, test = ({e.id for e in benchmark.examples(split)} for split in ("validation", "test"))
    assert validation | test == {row["id"] for row in HUB_ROWS}
    assert not validation & test and validation and test
    assert {split for *_, split in rows} == {"validation"}


def test_an_unreachable_hub_is_an_error_that_names_the_ways_on(monkeypatch, token_format):
    offline = []

    def uncached(*args, split):
        offline.append((constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
        raise ConnectionError("not cached")

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", uncached)
    with pytest.raises(HubError, match=r"hub cannot be reached.*data\.path.*policy\.name_or_path.*quickstart"):
        HotpotQA().bind(token_format).setup("fit")
    assert offline == [(True, True)]  # the libraries' own retries, half a minute of them, are off
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)


def test_without_cache_and_network_the_library_itself_gives_up(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "reachable", lambda url: False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(HubError, match="not cached and the hub cannot be reached"):
        hub.load_rows("nobody/nothing", None, "train")


def test_offline_is_not_even_probed(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "reachable", lambda url: pytest.fail("probed"))
    with pytest.raises(HubError):
        hub.load_rows("nobody/nothing", None, "train")


def test_a_hub_data_set_that_does_not_load_names_it(monkeypatch, rows):
    # The second is a column of numbers and texts, which the library cannot cast to one type.
    for error in (ValueError("no such split"), datasets.exceptions.DatasetGenerationError("no such split")):

        def broken(*args, split, error=error):
            raise error

        monkeypatch.setattr(datasets, "load_dataset", broken)
        with pytest.raises(HubError, match=r"nobody/nothing cannot be read from the hub.*no such split"):
            hub.load_rows("nobody/nothing", None, "train")


def test_fetch_downloads_once(tmp_path):
    source = tmp_path / "there" / "train.json"
    source.parent.mkdir()
    source.write_text("[]")
    target = hub.fetch(source.as_uri(), tmp_path / "cache")
    assert target.read_text() == "[]"
    source.unlink()
    assert hub.fetch(source.as_uri(), tmp_path / "cache") == target
    with pytest.raises(HubError, match=r"cannot be downloaded.*data\.path"):
        hub.fetch(source.as_uri(), tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_finqa_downloads_the_original_files(monkeypatch, tmp_path, fixtures, token_format):
    asked = []

    def served(url, folder):
        asked.append(url.rsplit("/", 1)[-1])
        return fixtures / "finqa" / "validation.json"

    monkeypatch.setattr("jqlight.benchmarks.finqa.fetch", served)
    benchmark = FinQA().bind(token_format)
    for split in ("train", "validation", "test"):
        assert benchmark.examples(split)
    assert asked == ["train.json", "dev.json", "test.json"]


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub.cache_folder("finqa") == tmp_path / "jqlight" / "finqa"


@pytest.mark.parametrize(("url", "expected"), [("http://127.0.0.1:9", False), (None, True)])
def test_reachable(url, expected, tmp_path):
    (tmp_path / "page").write_text("")
    assert hub.reachable(url or (tmp_path / "page").as_uri()) == expected
