"""docs/howto/command-line.md: files are merged as it says."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from jqlight.cli.main import main

TEXT = (Path(__file__).parents[1] / "docs" / "howto" / "command-line.md").read_text()
FILES = dict(re.findall(r"Save this as `(\S+)`:\n\n```yaml\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [
    shlex.split(line)[1:] for line in re.findall(r"^    (jqlight fit --config quickstart .*)$", TEXT, re.MULTILINE)
]


@pytest.mark.parametrize(("command", "q", "steps"), [(COMMANDS[0], 0.5, 30), (COMMANDS[1], 0.5, 240)])
def test_a_later_file_changes_what_it_names(command, q, steps, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).write_text(content)
    with pytest.raises(SystemExit):
        main([*command, "--print_config"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["model"]["init_args"]["q"], shown["trainer"]["max_steps"]) == (q, steps)
    # What no file changes is the quickstart's.
    assert shown["model"]["init_args"]["policy"]["name_or_path"] == "twohop"
    assert shown["model"]["init_args"]["policy"]["thinking"]["separator"] == ""
    assert shown["optimizer"]["init_args"]["betas"] == [0.9, 0.95]
