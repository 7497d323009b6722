"""Shell completion: the script is that of the commands as they are, and bash and zsh complete with it."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jqlight.cli.completion import SCRIPT
from jqlight.cli.main import VERBS

ROOT = Path(__file__).parents[2]


def completed(words: list[str], folder: Path) -> list[str]:
    """What bash offers for the last of these words."""
    program = f"""
        source {SCRIPT}
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)}) COMP_CWORD={len(words) - 1}
        _jqlight
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    run = subprocess.run(["bash", "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout.split("\n")[:-1]


def test_the_script_is_that_of_the_commands():
    spec = importlib.util.spec_from_file_location("completion", ROOT / "scripts" / "completion.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert SCRIPT.read_text() == made.script(), "run: python scripts/completion.py"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("s", ["sweep", "samples", "score", "sync"]),
        ("fit --model.sampler.eng", ["--model.sampler.engine"]),
        ("fit --config quickstart --model.sampler.engine ", ["vllm", "transformers"]),
        ("fit --model G", ["GARL", "GRPO"]),
        ("fit --config quick", ["quickstart"]),
        ("fit --config o", ["own.yaml"]),
        ("fit --ckpt_path ", ["last", "best", "a file", "own.yaml"]),
        ("fit --optimizer AdamW --optimizer.l", ["--optimizer.lr"]),
        ("fit --lr_scheduler Cosine", ["CosineAnnealingLR", "CosineAnnealingWarmRestarts"]),
        ("fit --trainer.callb", ["--trainer.callbacks"]),
        ("sweep --la", ["--launcher"]),
        ("sweep --launcher ", ["local", "ray"]),
        ("sweep quickstart_s", ["quickstart_scale"]),
        ("sweep x.yaml --model.q", ["--model.q"]),
        ("evaluate --model a", ["a file"]),
        ("samples a", ["a file"]),
        ("samples --spl", ["--split"]),
        ("completion ", ["bash", "zsh"]),
        ("doctor --x", []),
    ],
)
def test_bash_completes(words, offered, tmp_path):
    (tmp_path / "a file").touch()
    (tmp_path / "own.yaml").touch()
    found = completed(["jqlight", *words.split(" ")], tmp_path)
    assert sorted(word for word in found if word) == sorted(offered)


def test_every_verb_is_offered(tmp_path):
    assert completed(["jqlight", ""], tmp_path) == list(VERBS)


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_completes(tmp_path):
    (tmp_path / "script").write_text(printed("zsh"))
    program = (
        "autoload -Uz compinit && compinit -u -D && source ./script && words=(jqlight fit --model.sampler.engine v)\n"
    )
    program += "COMP_WORDS=($words) COMP_CWORD=3 CURRENT=4 && compgen -F _jqlight"
    run = subprocess.run(["zsh", "-f", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["vllm", "transformers"], run.stderr  # zsh itself takes those that begin with v


def printed(shell: str) -> str:
    """The output of the command, which must not import what takes seconds."""
    code = f"import sys; from jqlight.cli.main import main; main(['completion', '{shell}']); "
    code += "sys.exit(bool({'torch', 'lightning', 'transformers', 'mlflow', 'pandas'} & set(sys.modules)) * 3)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, "nothing heavy is imported"
    return run.stdout


def test_the_command_prints_it_at_once():
    assert printed("bash") == SCRIPT.read_text()
