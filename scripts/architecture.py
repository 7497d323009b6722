"""The package's rooms on their floors, and the imports between them: read from the source, drawn, and used by tests.

python scripts/architecture.py [file, default docs/images/architecture.png]        (a few seconds)

A room is a package or a module directly under ``jqlight``. A room imports from floors below its own and from nothing
else, which :data:`FLOORS` states and ``tests/test_architecture.py`` checks. The picture leaves out an arrow where a
chain of other arrows leads to the same room.
"""

import argparse
import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

PACKAGE = Path(__file__).resolve().parents[1] / "jqlight"
FLOORS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("the command", {"cli": "the jqlight command:\na module a verb"}),
    ("many runs", {"sweep": "a file of axes to runs,\nlocal or on Ray"}),
    (
        "a run",
        {
            "estimators": "GARL, PAFT, GRPO, RLOO, MaxRL:\nthe training step",
            "report": "runs read back:\ntables, figures, HTML",
        },
    ),
    (
        "parts of a step",
        {
            "benchmarks": "records to examples,\nevaluation",
            "sampling": "rollouts from vLLM\nor transformers",
            "policy": "the trained model:\nlog p and its gradient",
            "schedules": "q over steps,\nnamed in a config",
            "diagnostics": "what a batch\nand a run show",
        },
    ),
    (
        "rules and records",
        {
            "metrics": "pass@k, maj@k,\nverifiers",
            "hub": "models and data\nfrom the network",
            "model_folder": "config, tokenizer,\nweights: all or none",
            "token_format": "thinking, separator,\nanswer as tokens",
            "objective": "the mathematics,\ntorch alone",
            "config_files": "YAML of configs\nand sweeps",
            "tracking": "a run's folder,\nMLflow, checkpoints",
            "quiet": "which notices of\nlibraries are shown",
        },
    ),
    (
        "foundation",
        {
            "files": "atomic writes,\nhashes",
            "machine": "memory, cores,\nversions",
            "startup": "seconds of each\nphase of a start",
            "names": "of scores, classes\nand values",
            "escape": "from the cold start:\nits rule",
            "errors": "sentences that a\nuser can act on",
        },
    ),
)
"""Label of each floor and its rooms with what they are for, from the top down and from left to right."""

# Okabe and Ito's colours, told apart with every common colour-vision deficiency.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
WIDTH, BOX_HEIGHT, FLOOR_HEIGHT, GAP = 18.5, 0.9, 1.75, 0.5

Edges = dict[str, set[str]]

# -- what imports what ---------------------------------------------------------------------------------------------


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted name -> file of every module of a package, ``jqlight.policy`` for ``jqlight/policy/__init__.py``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(node: ast.AST) -> Iterator[str]:
    """Dotted names that the code imports when it runs, inside functions too, ``jqlight.files.write_text`` for example.

    Imports under ``if TYPE_CHECKING`` are for the type checker and are left out.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from imported_names(ast.Module(child.orelse, []))
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports are not used here"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imported_names(child)


def module_imports(package: Path = PACKAGE) -> Edges:
    """Module -> modules of the same package that it imports."""
    known = modules(package)
    edges: Edges = {}
    for name, path in known.items():
        edges[name] = set()
        for imported in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
            target = imported if imported in known else imported.rpartition(".")[0]
            if target in known and target != name:
                edges[name].add(target)
    return edges


def room_of(module: str) -> str:
    """``policy`` for ``jqlight.policy.group``; empty for the package itself and for ``python -m jqlight``."""
    room = module.split(".")[1] if "." in module else ""
    return "" if room == "__main__" else room


def room_imports(package: Path = PACKAGE) -> Edges:
    """Room -> rooms that it imports."""
    edges: Edges = {room_of(module): set() for module in modules(package)}
    for module, targets in module_imports(package).items():
        edges[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    del edges[""]
    return {room: targets - {""} for room, targets in edges.items()}


def reduced(edges: Edges) -> Edges:
    """The edges that no chain of other edges implies; ``edges`` must have no circle."""
    reachable: Edges = {}
    for room in TopologicalSorter(edges).static_order():
        reachable[room] = edges[room].union(*(reachable[target] for target in edges[room]))
    return {
        room: {t for t in targets if not any(t in reachable[other] for other in targets)}
        for room, targets in edges.items()
    }


# -- the picture ---------------------------------------------------------------------------------------------------


def layout() -> tuple[dict[str, tuple[float, float, float]], list[list[float]]]:
    """Centre x, centre y and width of each room's box, and the x of the gaps of each floor."""
    boxes, gaps = {}, []
    for floor, (_, rooms) in enumerate(FLOORS):
        width = min(3.6, (WIDTH - GAP * (len(rooms) + 1)) / len(rooms))
        left = (WIDTH - len(rooms) * width - (len(rooms) - 1) * GAP) / 2
        y = (len(FLOORS) - 1 - floor) * FLOOR_HEIGHT
        for i, room in enumerate(rooms):
            boxes[room] = (left + i * (width + GAP) + width / 2, y, width)
        gaps.append([left - GAP / 2 + i * (width + GAP) for i in range(len(rooms) + 1)])
    return boxes, gaps


def ports(x: float, width: float, count: int) -> list[float]:
    """``count`` places along the edge of a box, from left to right."""
    return [x + width * 0.8 * ((i + 0.5) / count - 0.5) for i in range(count)]


def draw_arrows(axes: Axes, edges: Edges) -> None:
    """One curve per edge, from under its room to over the other; past the boxes of the floors between."""
    boxes, gaps = layout()
    arrows = sorted((room, target) for room in edges for target in edges[room])
    starts, ends = {}, {}
    for room, (x, _, width) in boxes.items():
        out = sorted((a for a in arrows if a[0] == room), key=lambda a: (boxes[a[1]][0], boxes[a[1]][1]))
        into = sorted((a for a in arrows if a[1] == room), key=lambda a: (boxes[a[0]][0], boxes[a[0]][1]))
        starts |= dict(zip(out, ports(x, width, len(out)), strict=True))
        ends |= dict(zip(into, ports(x, width, len(into)), strict=True))
    colours = {room: COLOURS[i % len(COLOURS)] for i, room in enumerate(boxes)}
    taken: dict[tuple[int, float], int] = {}
    for arrow in arrows:
        top, bottom = (boxes[room][1] for room in arrow)
        points = [(starts[arrow], top - BOX_HEIGHT / 2)]
        for y in [level * FLOOR_HEIGHT for level in range(len(FLOORS), -1, -1) if bottom < level * FLOOR_HEIGHT < top]:
            floor = len(FLOORS) - 1 - round(y / FLOOR_HEIGHT)
            aim = starts[arrow] + (ends[arrow] - starts[arrow]) * (top - y) / (top - bottom)
            gap = min(gaps[floor], key=lambda x: abs(x - aim))
            shift = taken[floor, gap] = taken.get((floor, gap), -1) + 1
            x = gap + 0.12 * ((shift + 1) // 2) * (-1) ** shift
            points += [(x, y + BOX_HEIGHT / 2), (x, y - BOX_HEIGHT / 2)]
        points.append((ends[arrow], bottom + BOX_HEIGHT / 2))
        draw_curve(axes, points, colours[arrow[0]])


def draw_curve(axes: Axes, points: list[tuple[float, float]], colour: str) -> None:
    """A smooth arrow through ``points``: upright at each of them."""
    vertices, codes = [points[0]], [Curve.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Curve.CURVE4] * 3
    style = {"arrowstyle": "-|>", "mutation_scale": 13, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(path=Curve(vertices, codes), color=colour, linewidth=1.6, **style))


def description() -> str:
    """The arrows as text, one a line; kept in the file, so that a test can tell a picture that is out of date."""
    edges = reduced(room_imports())
    return "\n".join(f"{room} -> {target}" for room in sorted(edges) for target in sorted(edges[room]))


def draw(path: Path) -> None:
    """Write the picture."""
    figure, axes = plt.subplots(figsize=(17, 10), layout="constrained")
    boxes, _ = layout()
    for floor, (label, rooms) in enumerate(FLOORS):
        y = (len(FLOORS) - 1 - floor) * FLOOR_HEIGHT
        axes.axhspan(y - 0.62, y + 0.62, color="#f3f3f0", zorder=0)
        axes.text(-2.1, y, label, va="center", fontsize=12, color="#555555", style="italic")
        for room, purpose in rooms.items():
            x, _, width = boxes[room]
            corner = (x - width / 2, y - BOX_HEIGHT / 2)
            style = "round,pad=0,rounding_size=0.12"
            axes.add_patch(
                FancyBboxPatch(corner, width, BOX_HEIGHT, boxstyle=style, fc="white", ec="#333333", zorder=3)
            )
            axes.text(x, y + 0.24, room, ha="center", va="center", fontsize=12.5, weight="bold", zorder=4)
            axes.text(x, y - 0.16, purpose, ha="center", va="center", fontsize=9.5, zorder=4)
    draw_arrows(axes, reduced(room_imports()))
    axes.set_xlim(-2.3, WIDTH + 0.2)
    axes.set_ylim(-0.8, (len(FLOORS) - 1) * FLOOR_HEIGHT + 0.8)
    axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Description": description()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path("docs/images/architecture.png"))
    path = parser.parse_args().file
    draw(path)
    print(path)


if __name__ == "__main__":
    main()
