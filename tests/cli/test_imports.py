"""The working folder gives the classes that a config names, and stands in for no library."""

import os
import subprocess
import sys
from pathlib import Path

import cli_standins
import pytest

SHADOWS = ("yaml", "mlflow", "random", "numpy", "brotli", "zstandard", "peft", "ray", "wandb", "gguf", "sentencepiece")


@pytest.fixture
def module(workplace):
    """Write a module into the working folder; it is forgotten when the test ends."""
    before = set(sys.modules)

    def write(name, text):
        path = workplace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if str(workplace) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


MINE = "from cli_standins import Climber\nfrom {below} import FACTOR\nclass Mine(Climber):\n    factor = FACTOR\n"


@pytest.mark.parametrize(
    ("file", "path"), [("mine_flat.py", "mine_flat.Mine"), ("mine_pack/deep.py", "mine_pack.deep.Mine")]
)
def test_a_class_of_the_working_folder_and_what_it_imports(climber, shell, module, file, path):
    module(file, MINE.format(below="beside_it"))
    module("beside_it.py", "FACTOR = 3\n")
    assert shell("fit", "--config", climber, f"--model={path}", "--trainer.max_steps=1") == 0, shell.err
    assert shell.out.startswith("jqlight fit: Mine")


def test_a_callback_of_the_working_folder(climber, shell, module):
    module("my_callbacks.py", "from lightning.pytorch import Callback\nclass Quiet(Callback):\n    pass\n")
    options = ["--trainer.callbacks+=my_callbacks.Quiet", "--trainer.max_steps=1"]
    assert shell("fit", "--config", climber, *options) == 0, shell.err


def test_what_no_class_path_names_is_not_found(shell, module, workplace):
    module("not_installed_at_all.py", "raise SystemExit('shadowed')\n")
    assert shell("score", "none.jsonl") == 2
    with pytest.raises(ModuleNotFoundError):
        __import__("not_installed_at_all")


@pytest.mark.parametrize(
    "start", [["-c", "import sys; from jqlight.cli.main import main; sys.exit(main())"], ["-m", "jqlight"]]
)
def test_no_library_is_taken_from_the_working_folder(workplace, start):
    for name in SHADOWS:
        (workplace / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    root = Path(cli_standins.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), **({"PYTHONSAFEPATH": "1"} if start[0] == "-c" else {})}
    command = [sys.executable, *start, "compare", "--experiment", "e", "--store", "no.db"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=workplace, env=environment)
    assert done.returncode == 2 and "no.db" in done.stderr and "shadowed" not in done.stderr + done.stdout


EVIL = [
    "--model=subprocess.Popen",
    "--model=os.system",
    "--model=builtins.exec",
    "--model=torch.nn.Linear",
    "--data=subprocess.Popen",
    "--data=os.system",
    "--data=jqlight.estimators.GARL",
    "--optimizer=subprocess.Popen",
    "--optimizer=os.system",
    "--lr_scheduler=subprocess.Popen",
    "--lr_scheduler=os.system",
    "--trainer.callbacks+=subprocess.Popen",
    "--trainer.callbacks+=os.system",
    "--trainer.logger=subprocess.Popen",
    "--trainer.logger=os.system",
]
SPEC = '{"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "pwned"]}}'
NESTED = [
    *(f"--trainer.{key}={SPEC}" for key in ("plugins", "profiler", "strategy", "callbacks", "logger", "max_time")),
    *(f"--model.{key}={SPEC}" for key in ("q", "sampler", "policy")),
    *(f"--{key}={SPEC}" for key in ("model", "data", "optimizer", "lr_scheduler", "run_name")),
    *(f"--optimizer.{key}={SPEC}" for key in ("lr", "momentum", "foreach")),
]


@pytest.mark.parametrize("option", EVIL + NESTED)
def test_only_classes_of_the_right_kind_are_built(climber, shell, workplace, option):
    options = [option, "--trainer.max_steps=1"]
    if "lr_scheduler" not in option and "optimizer" not in option:
        options.append("--optimizer.lr=0.1")
    code = shell("fit", "--config", climber, *options)
    assert code == 2 and shell.err.count("\n") == 1, shell.err
    assert not (workplace / "pwned").exists()


@pytest.mark.parametrize(("key", "code"), [("model.label", 0), ("data.path", 2)])
def test_a_class_where_a_text_is_expected_is_a_text(climber, shell, workplace, key, code):
    options = [f"--{key}={SPEC}", "--trainer.max_steps=1", "--optimizer.lr=0.1"]
    assert shell("fit", "--config", climber, *options) == code
    assert "Traceback" not in shell.err and not (workplace / "pwned").exists()
