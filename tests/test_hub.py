"""Names of models: local folders, the bundled one, the hub, and clear answers when there is none."""

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from jqlight import hub
from jqlight.errors import ConfigError, HubError


class Hub(ThreadingHTTPServer):
    """A hub on this machine that gives one answer and remembers the questions."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.asked = status, []


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Hub]]:
    """Start a hub that answers with a status, and ask it instead of the real one."""
    servers = []

    def start(status: int) -> Hub:
        server = Hub(status)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(hub, "hf_hub_url", lambda name, file: f"{address}/{name}/resolve/main/{file}")
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


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


@pytest.mark.parametrize(("status", "message"), [(404, "answers 404"), (401, "token")])
def test_a_model_that_the_hub_does_not_give(
    status: int, message: str, online: None, serve: Callable[[int], Hub]
) -> None:
    server = serve(status)
    with pytest.raises(HubError, match=message):
        hub.resolve("someone/some-model")
    assert server.asked == ["/someone/some-model/resolve/main/config.json"]  # no retries


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_a_hub_that_cannot_be_reached(address: str, online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hf_hub_url", lambda name, file: f"{address}/{name}/{file}")
    with pytest.raises(HubError, match=r"cannot be reached.*data\.path"):
        hub.resolve("someone/some-model")


def test_a_model_of_the_hub_keeps_its_id(online: None, serve: Callable[[int], Hub]) -> None:
    serve(200)
    assert hub.resolve("someone/some-model") == "someone/some-model"


def test_a_cached_model_needs_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda name, file: f"/cache/{name}/{file}")
    assert hub.resolve("someone/some-model") == "someone/some-model"
