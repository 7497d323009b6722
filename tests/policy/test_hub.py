"""Names of models: local folders, the bundled one, the hub, and clear answers when there is none."""

from pathlib import Path

import httpx
import pytest

from jqlight.errors import ConfigError, HubError
from jqlight.policy import hub


class Session:
    """A hub client that gives one answer and counts the questions."""

    def __init__(self, status: int | None) -> None:
        self.status, self.asked = status, 0

    def head(self, url: str, **options: object) -> httpx.Response:
        self.asked += 1
        if self.status is None:
            raise httpx.ConnectError("Name or service not known")
        assert url.endswith("someone/some-model/resolve/main/config.json")
        assert options["timeout"] <= 10
        return httpx.Response(self.status)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "is_offline_mode", lambda: False)


def test_a_folder_becomes_an_absolute_path(tiny_qwen3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tiny_qwen3)
    monkeypatch.chdir(folder.parent)
    assert hub.resolve(folder.name) == hub.resolve(f"./{folder.name}") == str(folder.resolve())


def test_the_bundled_model_is_inside_the_package() -> None:
    assert Path(hub.resolve("twohop")).parts[-3:] == ("jqlight", "assets", "twohop")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "~/nowhere", "../a/b", "a/b/c", "", "two words", "."])
def test_a_path_without_a_model_is_a_config_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"policy\.name_or_path: given"):
        hub.resolve(name)


def test_offline_it_is_an_error_at_once_that_names_the_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "is_offline_mode", lambda: True)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE.*policy\.name_or_path.*data\.path.*twohop"):
        hub.resolve("someone/some-model")


@pytest.mark.parametrize(("status", "message"), [(None, "cannot be reached"), (404, "answers 404"), (401, "token")])
def test_a_model_that_cannot_be_had(
    status: int | None, message: str, online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(status)
    monkeypatch.setattr(hub, "get_session", lambda: session)
    with pytest.raises(HubError, match=message):
        hub.resolve("someone/some-model")
    assert session.asked == 1  # no retries


def test_a_model_of_the_hub_keeps_its_id(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "get_session", lambda: Session(200))
    assert hub.resolve("someone/some-model") == "someone/some-model"


def test_a_cached_model_needs_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda name, file: f"/cache/{name}/{file}")
    assert hub.resolve("someone/some-model") == "someone/some-model"
