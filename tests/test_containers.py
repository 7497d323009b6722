"""Containers, as far as no engine is needed: the entry point's choice of user, and the files they are built from."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlparse

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LOCK = (ROOT / "requirements.lock").read_text()
IN_CONTAINER = "0 0 4294967295"

# -- the entry point, with stand-ins for what it calls ------------------------------------------------------------


@pytest.fixture
def enter(tmp_path):
    """Run the entry point as ``user`` on a folder that belongs to ``owner``; what it did, and how it ended."""
    tools = tmp_path / "tools"
    tools.mkdir()

    def tool(name, text):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)

    def run(owner, *, user=0, entries=(), given=None, outside=IN_CONTAINER, writable=False, fails=False):
        runs = tmp_path / "runs"
        for name in ("", *entries):
            (runs / name).mkdir(parents=True)
            if name.startswith("run"):
                (runs / name / "run.json").touch()
        (tmp_path / "uid_map").write_text(outside + "\n")
        tool("id", f"echo {user}")
        tool("stat", f"echo {owner}")
        tool("chown", f"echo chown $@; exit {int(fails)}")
        tool("jqlight", 'echo jqlight "$@"')
        tool(
            "setpriv", f'case "$*" in *" test -w "*) exit {int(not writable)};; esac; echo "$1 $2"; exec jqlight fit -x'
        )
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "JQLIGHT_RUNS": str(runs)}
        environment |= {"JQLIGHT_UID_MAP": str(tmp_path / "uid_map")} | ({"JQLIGHT_USER": given} if given else {})
        command = ["sh", str(ROOT / "docker" / "entrypoint.sh"), "fit", "-x"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.replace(str(runs), "RUNS").splitlines(), done.stderr

    return run


def test_it_runs_as_the_folders_owner(enter):
    assert enter("501:20") == (0, ["--reuid=501 --regid=20", "jqlight fit -x"], "")


@pytest.mark.parametrize("entries", [(), ("run-1", "mlartifacts")])
@pytest.mark.parametrize(("given", "user"), [(None, "1000:1000"), ("1234:99", "1234:99")])
def test_a_folder_of_root_is_given_away_where_only_runs_are_in_it(enter, entries, given, user):
    code, lines, _ = enter("0:0", entries=entries, given=given)
    uid, _, gid = user.partition(":")
    assert (code, lines[1:]) == (0, [f"--reuid={uid} --regid={gid}", "jqlight fit -x"])


def test_a_folder_of_root_with_other_files_is_left_alone(enter):
    code, lines, error = enter("0:0", entries=("etc",))
    assert (code, lines, error.count("\n")) == (2, [], 1)
    assert "holds other files than runs" in error and "--user" in error


def test_a_folder_of_root_that_the_user_can_write_stays_roots(enter):
    assert enter("0:0", entries=("etc",), writable=True)[1] == ["--reuid=1000 --regid=1000", "jqlight fit -x"]


def test_a_folder_that_cannot_be_given_away_is_one_sentence(enter):
    code, _, error = enter("0:0", fails=True)
    assert code == 2 and re.fullmatch(r"jqlight: .* cannot be given to 1000:1000; .*\n", error)


@pytest.mark.parametrize("how", [{"user": 12345}, {"outside": "0 1000 1"}], ids=["--user", "rootless"])
def test_another_user_than_root_just_runs(enter, how):
    assert enter("0:0", entries=("etc",), **how) == (0, ["jqlight fit -x"], "")


# -- files ----------------------------------------------------------------------------------------------------------


def stages() -> dict[str, str]:
    """Name of each build stage -> its instructions."""
    parts = re.split(r"^FROM (\S+) ?(?:AS (\S+))?$", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {parts[i + 1] or "last": f"FROM {parts[i]}{parts[i + 2]}" for i in range(0, len(parts), 3)}


def test_the_last_stage_is_the_cpus_and_compiles_nothing():
    built = stages()
    assert list(built)[-1] == "last" and built["last"].strip() == "FROM cpu"
    assert not re.search(r"\b(gcc|g\+\+|git)\b", built["base"] + built["runtime"] + built["cpu"])


def test_every_stage_and_copied_file_exists():
    built = stages()
    named = re.findall(r"(?:--from=|from=|^FROM )([\w-]+)", DOCKERFILE, re.MULTILINE)
    assert set(named) <= set(built)
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = [word for word in line.split() if not word.startswith("--")]
        assert all((ROOT / source).exists() for source in sources), line
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert kept[0] == "*" and all((ROOT / line[1:]).exists() for line in kept if line.startswith("!"))


def test_the_image_is_installed_by_hashes():
    assert DOCKERFILE.count("--require-hashes") >= 2
    pinned = re.findall(r"^[a-z][\w.-]*==\S+ \\$", LOCK, re.MULTILINE)
    assert len(pinned) > 200 and len(pinned) == len(re.findall(r"^[a-z]", LOCK, re.MULTILINE))
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", LOCK)) > len(pinned)


def test_the_labels_are_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = dict(re.findall(r"org\.opencontainers\.image\.(\w+)=(\S+)", stages()["runtime"]))
    assert labels["title"] == project["name"] and labels["licenses"] == project["license"]
    assert {"version", "revision", "created"} <= set(labels)


def compose() -> dict[str, dict]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_the_services_build_stages_that_exist_and_wait_for_each_other():
    services, built = compose(), stages()
    assert {service["build"]["target"] for service in services.values() if "build" in service} <= set(built)
    for service in services.values():
        for name, wanted in service.get("depends_on", {}).items():
            assert wanted == {"condition": "service_healthy"} and "healthcheck" in services[name]


def test_the_server_is_reached_where_jqlight_looks_and_from_this_machine_alone():
    services = compose()
    host = urlparse(services["jqlight"]["environment"]["MLFLOW_TRACKING_URI"])
    assert host.hostname in services and f"--port={host.port}" in services[host.hostname]["command"]
    assert any(
        word.startswith("--allowed-hosts") and f"{host.hostname}:*" in word for word in services["mlflow"]["command"]
    )
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert [f"http://{port.rpartition(':')[0]}" for port in published] == [
        services["jqlight"]["environment"]["JQLIGHT_MLFLOW_PAGES"]
    ]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_runs_are_mounted_where_the_entry_point_looks():
    assert "runs=${JQLIGHT_RUNS:-/home/jqlight/runs}" in (ROOT / "docker" / "entrypoint.sh").read_text()
    assert compose()["jqlight"]["volumes"] == ["./runs:/home/jqlight/runs"]


def test_the_devcontainer_makes_the_environment_that_it_puts_on_the_path():
    settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert settings["postCreateCommand"] == "make .venv"
    assert settings["remoteEnv"]["PATH"].startswith("${containerWorkspaceFolder}/.venv/bin:")
