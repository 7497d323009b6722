"""The pages of the documentation site that are made: links, settings, commands; every page of docs/ is in its menu."""

import importlib.util
from pathlib import Path

import pytest
import yaml

import jqlight.benchmarks
import jqlight.estimators
from jqlight.cli.config import settings_of
from jqlight.cli.main import VERBS
from jqlight.names import BENCHMARKS, ESTIMATORS

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts" / "docs_site.py")
docs_site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs_site)


@pytest.mark.parametrize(
    ("page", "markdown", "expected"),
    [
        ("index.md", "[all](docs/results/scale.md)", "[all](results/scale.md)"),
        ("index.md", "[how](CONTRIBUTING.md) [file](conf/quickstart.yaml)", "[how](contributing.md) file"),
        ("index.md", "![picture](docs/images/a.png)", "![picture](images/a.png)"),
        ("howto/script.md", "[m](../metrics.md#every-step-train)", "[m](../metrics.md#every-step-train)"),
        ("howto/script.md", "[r](../../README.md)", "[r](../index.md)"),
        ("reliability.md", "[t](../tests/cli/test_disks.py)", "t"),
        ("theory.md", "[paper](https://arxiv.org/abs/2604.25907) [here](#below)", None),
    ],
)
def test_links_lead_to_where_the_site_has_their_target(page, markdown, expected):
    assert docs_site.with_site_links(markdown, page) == (expected or markdown)


def test_every_setting_is_on_the_settings_page():
    page = docs_site.settings_page()
    owners = [("model", getattr(jqlight.estimators, name)) for name in ESTIMATORS]
    owners += [("data", getattr(jqlight.benchmarks, name)) for name in BENCHMARKS]
    keys = {s.key for section, owner in owners for s in settings_of(section, owner) if not s.is_group}
    assert not {key for key in keys if f"| `{key}` |" not in page}
    assert page.count("`model.policy.name_or_path`") == 1, "what all estimators share is said once"
    assert "runs/&lt;run_name&gt;" in page
    assert "| `model.policy.thinking.template_arguments` | `{}` |" in page


def test_every_verb_is_on_the_commands_page():
    page = docs_site.commands_page()
    assert not [verb for verb in VERBS if f"## {verb}\n" not in page]
    assert "--experiment" in page and "usage: jqlight compare" in page


def test_stars_of_docstrings_are_no_emphasis():
    text = "p(y*|x*)\n\n    sum_m [ p(y*) ]\n\nArgs:\n    log_w: log p(y*|x, z), `a * b`"
    shown = docs_site.with_escaped_stars(text)
    assert shown == text.replace("p(y*|x*)\n", "p(y\\*|x\\*)\n").replace("log p(y*", "log p(y\\*")


def test_every_page_is_in_the_menu():
    def pages(node):
        if isinstance(node, str):
            return {node}
        return set().union(*map(pages, node.values() if isinstance(node, dict) else node))

    content = (ROOT / "mkdocs.yml").read_text()
    menu = pages(yaml.safe_load(content)["nav"])
    made = {*docs_site.FROM_ROOT.values(), "reference/settings.md", "reference/commands.md"}
    assert menu == made | {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
