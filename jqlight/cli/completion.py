"""``jqlight completion``: a script that lets bash or zsh complete verbs, options, values and files."""

from collections.abc import Sequence

from jqlight.cli.arguments import CommandParser
from jqlight.config_files import SHIPPED

SCRIPT = SHIPPED / "completion.bash"
"""Made by scripts/completion.py: what a key press asks for needs no Python, and no import to be printed."""
_FOR_ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
autoload -Uz bashcompinit && bashcompinit
"""


def main(argv: Sequence[str]) -> int:
    """Print the script; 0."""
    parser = CommandParser("completion", "Print a script that lets a shell complete jqlight's commands.")
    parser.add_argument(
        "shell", choices=("bash", "zsh"), help='add to .bashrc or .zshrc: eval "$(jqlight completion bash)"'
    )
    options = parser.parse_args(argv)
    print((_FOR_ZSH if options.shell == "zsh" else "") + SCRIPT.read_text(encoding="utf-8"), end="")
    return 0
