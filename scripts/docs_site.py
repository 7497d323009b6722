"""Pages of the documentation site that are made, not written: a hook of MkDocs, see mkdocs.yml and `make docs`.

The home page is the README, the settings come from the classes themselves, the commands from their own help.
"""

import contextlib
import html
import io
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jqlight.benchmarks
import jqlight.estimators
from jqlight.cli import help as help_pages
from jqlight.cli.config import Setting, settings_of
from jqlight.cli.main import VERBS, main
from jqlight.names import BENCHMARKS, ESTIMATORS

try:
    from griffe import Extension
except ImportError:  # the made pages can be tested without it
    Extension = object

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
FROM_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
ROLE = re.compile(r":(?:py:)?(?:attr|class|data|func|meth|mod):<code>~?(?:\w+\.)*(\w+)</code>")
STAR = re.compile(r"(?<=\w)\*")
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):$")
LIGHTNINGS = ("fit", "validate", "test", "predict")


def on_files(files: "Files", config: Any) -> "Files":
    """Add the made pages."""
    from mkdocs.structure.files import File

    pages = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in FROM_ROOT.items()}
    made = {**pages, "reference/settings.md": settings_page(), "reference/commands.md": commands_page()}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let a page's links lead to where the site has their target."""
    return with_site_links(markdown, page.file.src_uri)


def on_page_content(content: str, **_: Any) -> str:
    """Docstrings' references by their last name."""
    return ROLE.sub(r"<code>\1</code>", content)


class Asterisks(Extension):
    """Keeps the stars of x* and y* in docstrings, which Markdown would take for emphasis."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Escape those of one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = with_escaped_stars(obj.docstring.value)


def with_escaped_stars(docstring: str) -> str:
    """``docstring`` with a backslash before each star, but in indented code and between backticks."""
    lines, in_section = [], False
    for line in docstring.splitlines():
        in_section = bool(SECTION.match(line)) or (in_section and (not line or line.startswith(" ")))
        if in_section or not line.startswith("    "):
            parts = line.split("`")
            line = "`".join(part if i % 2 else STAR.sub(r"\\*", part) for i, part in enumerate(parts))
        lines.append(line)
    return "\n".join(lines)


def with_site_links(markdown: str, page: str) -> str:
    """``markdown`` of the site's ``page`` with links within the site; folders and files outside it are named alone."""
    sources = {made: source for source, made in FROM_ROOT.items()}
    source = sources.get(page) or posixpath.join("docs", page)

    def linked(match: re.Match[str]) -> str:
        text, path, anchor = match.group(1), match.group(2), match.group(3) or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        where = FROM_ROOT.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if where is None or (ROOT / target).is_dir():
            return text
        return f"[{text}]({posixpath.relpath(where, posixpath.dirname(page) or '.')}{anchor})"

    return LINK.sub(linked, markdown).replace("](docs/images/", "](images/")


def settings_page() -> str:
    """Every setting of a run with its default and meaning, Markdown."""
    models = {name: settings_of("model", getattr(jqlight.estimators, name)) for name in ESTIMATORS}
    data = {name: settings_of("data", getattr(jqlight.benchmarks, name)) for name in BENCHMARKS}
    trainer = ((f"trainer.{name}", "", meaning) for name, meaning in help_pages.TRAINER.items())
    lines = [
        "# Settings",
        "",
        "Each is a key of a YAML file and an option of the command line (`--model.q 0.5`). Files are merged in the",
        "order in which they are given, those that a file names as `base` in front of it; the command line comes last.",
        "`jqlight fit --config FILE --print_config` shows the result.",
        "",
        "## Run",
        "",
        *table(help_pages.RUN),
        "",
        "## Model: every estimator",
        "",
        *table(rows_of(shared(models))),
        *own_tables(models),
        "",
        "## Data: every benchmark",
        "",
        *table(rows_of(shared(data))),
        *own_tables(data),
        "",
        "## Optimizer and schedule",
        "",
        "`optimizer` and `lr_scheduler` take any class of torch with its own arguments:",
        "`--optimizer AdamW --optimizer.lr 5e-6`.",
        "",
        "## Trainer",
        "",
        "All arguments of Lightning's `Trainer`; these are the ones that a run is tuned by.",
        "",
        *table(trainer),
    ]
    return "\n".join(lines) + "\n"


def shared(classes: dict[str, tuple[Setting, ...]]) -> list[Setting]:
    """The settings that all classes have, as the first has them."""
    first, *others = classes.values()
    return [setting for setting in first if all(setting in other for other in others)]


def own_tables(classes: dict[str, tuple[Setting, ...]]) -> list[str]:
    """A table for each class of what it does not share with all others."""
    common = shared(classes)
    lines = []
    for name, settings in classes.items():
        own = [setting for setting in settings if setting not in common]
        lines += ["", f"### {name}", "", *(table(rows_of(own)) if own else ["Nothing further."])]
    return lines


def rows_of(settings: Iterable[Setting]) -> Iterable[tuple[str, Any, str]]:
    """Key, default, meaning of each; a record's own settings stand for it, unless it may be null."""
    return ((s.key, s.default, s.meaning) for s in settings if not s.is_group or s.default is None)


def table(rows: Iterable[tuple[str, Any, str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, default, meaning in rows:
        shown = help_pages.default_text(default).strip()
        cells = (f"`{key}`", f"`{shown}`" if shown else "", " ".join(html.escape(meaning).replace("|", "\\|").split()))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def commands_page() -> str:
    """Each verb with its own help, Markdown."""
    lines = ["# Commands", "", "What `jqlight VERB --help` prints.", ""]
    for verb, (_, meaning) in VERBS.items():
        lines += [f"## {verb}", "", meaning[0].upper() + meaning[1:] + ".", ""]
        if verb in LIGHTNINGS:
            lines += [f"    jqlight {verb} --config FILE [--config FILE ...] [--KEY VALUE ...]", ""]
            lines += ["Its settings are on [a page of their own](settings.md).", ""]
        else:
            lines += ["```text", help_of(verb), "```", ""]
    return "\n".join(lines)


def help_of(verb: str) -> str:
    """The help of a verb."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([verb, "--help"])
    return shown.getvalue().rstrip()
