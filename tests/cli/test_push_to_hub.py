"""``jqlight export --push-to-hub`` against a local stand-in of the hub's HTTP interface."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants
from test_export import run_with_a_checkpoint

TOKEN = "hf_" + "secret" * 5


class StandInHub(BaseHTTPRequestHandler):
    """Takes every file in the commit itself, as the hub does with small ones."""

    def do_GET(self):
        self.answer(self.server.refusal or 200 if self.path.startswith("/api/") else 200, {})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refusal:
            return self.answer(self.server.refusal, {"error": "refused"})
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            return self.answer(200, {"url": f"{self.server.url}/me/model", "name": "me/model"})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        if "/commit/" in self.path:
            for entry in map(json.loads, body.splitlines()):
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return self.answer(200, {"commitUrl": f"{self.server.url}/me/model/commit/1", "commitOid": "1"})
        return self.answer(200, {})

    def answer(self, code, content):
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandInHub)
    server.url, server.files, server.tokens = f"http://127.0.0.1:{server.server_port}", {}, set()
    server.refusal, server.created = None, None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


def arguments(path, base):
    best = run_with_a_checkpoint(path / "run", base)
    return "export", "--ckpt", best, "--out", path / "model", "--push-to-hub"


def test_the_whole_folder_is_uploaded_and_the_token_stays_out_of_it(hub, tiny_qwen3, tmp_path, shell):
    assert shell(*arguments(tmp_path, tiny_qwen3), "model") == 0, shell.err
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert hub.created["visibility"] == "private"
    written = {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir() if p.is_file()}
    assert {"README.md", "config.json", "model.safetensors"} <= written.keys()
    assert hub.files == written
    assert "/me/model/commit/1" in shell.out
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert TOKEN not in shell.out + shell.err
    assert TOKEN.encode() not in everything


@pytest.mark.parametrize(("code", "way"), [(401, "hf auth login"), (403, "may not write"), (404, "check the name")])
def test_a_refusal_is_one_sentence_before_anything_is_written(hub, tiny_qwen3, tmp_path, shell, code, way):
    hub.refusal = code
    assert shell(*arguments(tmp_path, tiny_qwen3), "someone/model") == 2
    assert shell.err.count("\n") == 1
    assert f"the hub answers {code} for someone/model" in shell.err and way in shell.err
    assert TOKEN not in shell.err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("endpoint", "name", "sentence"),
    [("http://127.0.0.1:9", "model", "cannot be reached"), (None, "a/b/c", "allowed is NAME or OWNER/NAME")],
)
def test_no_network_and_no_name_are_one_sentence(
    hub, tiny_qwen3, tmp_path, shell, monkeypatch, endpoint, name, sentence
):
    if endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    assert shell(*arguments(tmp_path, tiny_qwen3), name) == 2
    assert sentence in shell.err and shell.err.count("\n") == 1
    assert not (tmp_path / "model").exists()
