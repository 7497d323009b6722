"""The project's own files agree with each other: dependencies, versions, commands, continuous integration, links."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import jqlight

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.md")])
OFFERED_BY = packages_distributions()


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def distributions(package: str) -> set[str]:
    """What pip calls an importable package; one that is not installed here goes by its own name."""
    return {canonicalize_name(name) for name in OFFERED_BY.get(package, [package])}


def imported_packages(source: str, *, at_import: bool) -> set[str]:
    """Top-level packages outside the standard library: those of the module's first level, or all."""
    tree = ast.parse(source)
    found = set()
    for node in tree.body if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"jqlight"}


def undeclared(declared: set[str], *, at_import: bool) -> set[str]:
    sources = [path.read_text() for path in (ROOT / "jqlight").rglob("*.py")]
    packages = set().union(*(imported_packages(source, at_import=at_import) for source in sources))
    assert {"torch", "lightning"} <= packages
    return {package for package in packages if not distributions(package) & declared}


def test_what_an_import_of_the_package_needs_is_a_dependency():
    assert undeclared(names(PROJECT["project"]["dependencies"]), at_import=True) == set()


def test_what_is_imported_when_needed_is_a_dependency_or_an_extra():
    extras = [line for extra, lines in EXTRAS.items() if extra != "dev" for line in lines]
    assert undeclared(names(PROJECT["project"]["dependencies"] + extras), at_import=False) == set()


def test_every_dependency_is_imported():
    sources = [path.read_text() for path in (ROOT / "jqlight").rglob("*.py")]
    packages = set().union(*(imported_packages(source, at_import=False) for source in sources))
    used = set().union(*map(distributions, packages))
    assert names(PROJECT["project"]["dependencies"]) - used == {"accelerate"}  # transformers' device_map needs it


def test_undeclared_imports_are_found():
    assert {"yaml", "numpy"} <= undeclared(names(["torch", "lightning"]), at_import=True)
    assert imported_packages("def f():\n    import ray, json\n", at_import=True) == set()
    assert imported_packages("def f():\n    import ray, json\n", at_import=False) == {"ray"}


def test_the_lock_file_holds_every_dependency_in_an_allowed_version():
    lines = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    locked = {canonicalize_name(name): version for name, version in lines}
    wanted = PROJECT["project"]["dependencies"] + [line for extra in EXTRAS if extra != "gpu" for line in EXTRAS[extra]]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name != "jqlight":
            assert requirement.specifier.contains(locked.get(name, "0")), f"{requirement}: locked is {locked.get(name)}"


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "jqlight.__version__"}
    assert citation["version"] == jqlight.__version__
    releases = re.findall(r"^## \[?([\w.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[:2] == ["Unreleased", jqlight.__version__]


def test_changelog_headings():
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert headings and set(headings) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The jqlight authors"}]
    assert citation["license"] == PROJECT["project"]["license"]
    (paper,) = citation["references"]
    assert paper["url"].endswith("2604.25907") and paper["year"] == 2026
    assert [author["family-names"] for author in paper["authors"]] == ["Lin", "Ie"]


def test_the_package_is_typed_and_its_checks_are_strict():
    assert (ROOT / "jqlight" / "py.typed").exists()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["jqlight"]
    mypy = PROJECT["tool"]["mypy"]
    assert mypy["strict"] and "ignore_missing_imports" not in mypy and "follow_imports" not in mypy


def test_the_package_includes_all_its_files():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["jqlight"]
    packaged = {path for pattern in patterns for path in (ROOT / "jqlight").glob(pattern)}
    files = {path for path in (ROOT / "jqlight").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files and files <= packaged


def test_exceptions_to_the_checks_name_their_rule():
    for path in [path for folder in ("jqlight", "perf", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")]:
        bare = re.findall(r"# type: ignore(?!\[)|# noqa(?!: [A-Z]+\d+)", path.read_text())
        assert not bare or path == Path(__file__), path


# -- commands ------------------------------------------------------------------------------------------------------


def targets() -> set[str]:
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE).group(1)
    return set(phony.replace("\\\n", " ").split())


def recipe(target: str) -> str:
    return re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE).group(1)


def test_make_help_lists_every_target():
    outside = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}  # `make test` runs this
    listed = subprocess.run(["make", "help"], cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == targets() | {".venv"}
    assert all(len(line.split()) > 2 for line in listed.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_docs_name_targets_that_exist(page):
    named = set(re.findall(r"(?:^    |`)make ([a-z][\w-]*)", page.read_text(), re.MULTILINE))
    assert named <= targets()


def test_continuous_integration_runs_the_makefiles_lint_and_test():
    steps = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in WORKFLOW["jobs"].items()}
    assert steps == {"lint": ["make lint"], "test": ["make test"], "docs": ["make docs"], "image": ["make image-check"]}
    assert {"lint", "test", "image-check"} <= targets()


def test_continuous_integration_is_pinned_and_may_only_read():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    for job in WORKFLOW["jobs"].values():
        assert re.fullmatch(r"ubuntu-\d+\.\d+", job["runs-on"]) and job["timeout-minutes"] <= 60
        assert "permissions" not in job
        for step in job["steps"]:
            assert "run" in step or re.fullmatch(r"actions/[\w-]+@v\d+\.\d+\.\d+", step["uses"])


def test_continuous_integration_covers_the_oldest_python_and_a_newer_one():
    pythons = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]
    oldest = PROJECT["project"]["requires-python"].split(",")[0].removeprefix(">=")
    assert pythons[0] == oldest and len(pythons) > 1


def test_pre_commit_runs_the_tools_of_make_lint():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].replace(" --fix", "") for hook in repository["hooks"]]
    lint = re.findall(r"\$\(BIN\)/([a-z -]+[a-z])", recipe("lint").replace(" .", "").replace(" --check", ""))
    assert hooks == lint


# -- links ---------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not fragment or fragment in anchors(linked), target


def test_every_mutant_can_be_made():
    mutants = tomllib.loads((ROOT / "scripts" / "mutants.toml").read_text())["mutant"]
    assert [m["what"] for m in mutants if (ROOT / m["file"]).read_text().count(m["old"]) != 1] == []
    assert all((ROOT / m["tests"]).exists() and m["old"] != m["new"] for m in mutants)


def test_the_mutants_page_names_tests_that_exist():
    rows = re.findall(r"`(\w+\.py)::(test_\w+)`", (ROOT / "docs" / "mutants.md").read_text())
    assert len(rows) > 30
    sources = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    assert [name for file, name in rows if f"def {name}(" not in sources[file]] == []


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)", (ROOT / "README.md").read_text()))
    pages = {str(page.relative_to(ROOT)) for page in [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/howto/*.md")]}
    assert pages <= linked
