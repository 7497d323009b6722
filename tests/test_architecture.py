"""The rooms of docs/architecture.md as rules: who imports whom, what stays out of where, and how long things are."""

import ast
import importlib.util
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "scripts" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


architecture = load_script()
FILES = architecture.modules()


def imports_of(module: str) -> set[str]:
    return set(architecture.imported_names(ast.parse(FILES[module].read_text())))


def top_level(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def violations(package: Path) -> list[str]:
    """Imports that do not go down a floor."""
    level = {room: i for i, (_, rooms) in enumerate(architecture.FLOORS) for room in rooms}
    edges = architecture.room_imports(package)
    return [f"{a} -> {b}" for a in edges for b in sorted(edges[a]) if level[b] <= level[a]]


def test_every_room_is_on_one_floor():
    declared = [room for _, rooms in architecture.FLOORS for room in rooms]
    assert sorted(declared) == sorted(architecture.room_imports())


def test_imports_go_down_the_floors():
    assert violations(architecture.PACKAGE) == []


def test_no_circle_of_modules():
    try:
        TopologicalSorter(architecture.module_imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def write_package(folder: Path, **sources: str) -> Path:
    package = folder / "jqlight"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)
    return package


def test_an_import_inside_a_function_counts_and_one_for_the_type_checker_does_not(tmp_path):
    late = "def f():\n    from jqlight import schedules\n    import jqlight.errors\n"
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from jqlight.objective import Tsallis\n"
    package = write_package(tmp_path, objective=late, schedules=typing, errors="")
    assert architecture.room_imports(package) == {
        "objective": {"schedules", "errors"},
        "schedules": set(),
        "errors": set(),
    }
    assert violations(package) == ["objective -> schedules"]


def test_the_picture_leaves_out_what_a_chain_implies():
    edges = {"cli": {"policy", "errors"}, "policy": {"hub", "errors"}, "hub": {"errors"}, "errors": set()}
    assert architecture.reduced(edges) == {"cli": {"policy"}, "policy": {"hub"}, "hub": {"errors"}, "errors": set()}


def test_the_objective_imports_torch_and_errors_alone():
    names = imports_of("jqlight.objective")
    assert top_level(names) - set(sys.stdlib_module_names) == {"torch", "jqlight"}
    assert {name.split(".")[1] for name in names if name.startswith("jqlight.")} == {"errors"}


OPTIONAL = [
    ("vllm", "jqlight.sampling.vllm"),
    ("ray", "jqlight.sweep.ray_launcher"),
    ("peft", "jqlight.policy.adapters"),
]


@pytest.mark.parametrize(("library", "home"), OPTIONAL)
def test_a_library_that_may_be_missing_is_imported_in_one_place(library, home):
    importers = [module for module in FILES if library in top_level(imports_of(module))]
    assert importers and all(module.startswith(home) for module in importers)


def test_nothing_imports_the_command_line():
    edges = architecture.module_imports()
    importers = {module for module in edges if any(architecture.room_of(target) == "cli" for target in edges[module])}
    assert {module for module in importers if architecture.room_of(module) != "cli"} == {"jqlight.__main__"}


@pytest.mark.parametrize("folder", ["jqlight", "perf", "scripts", "tests"])
def test_files_and_functions_are_short(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    assert lengths and {path: n for path, n in lengths.items() if n > MAX_FILE_LINES} == {}
    long = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                long += [f"{path.relative_to(ROOT)}: {node.name}, {lines} lines"] if lines > MAX_FUNCTION_LINES else []
    assert long == []


def test_the_picture_is_drawn(tmp_path):
    architecture.draw(tmp_path / "architecture.png")
    assert (tmp_path / "architecture.png").stat().st_size > 50_000


# -- the page ------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_the_page_names_every_room():
    table = PAGE.partition("## The rooms")[2].partition("\n## ")[0]
    rooms = {room for row in re.findall(r"^\|([^|]*)\|", table, re.MULTILINE) for room in re.findall(r"`(\w+)`", row)}
    assert rooms == set(architecture.room_imports())


def test_the_page_names_files_that_exist():
    named = re.findall(r"`((?:\w+/)*\w+\.py)`", PAGE)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists() and not (ROOT / "jqlight" / path).exists()] == []


def test_the_page_names_records_that_exist():
    handed = {name for line in PAGE.splitlines() for name in re.findall(r"`(?:list\[)?([A-Z]\w+)\]?`", line)}
    trees = [ast.parse(path.read_text()) for path in FILES.values()]
    classes = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    assert {"Example", "Rollout", "Coefficients"} <= handed
    assert handed - {"FLOORS"} <= classes
