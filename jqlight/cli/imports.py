"""Where the module of a class that a config names is looked for: among what is installed, then in the working folder.

The working folder is not on ``sys.path``: nothing there can pass for a library, not even for one that is not installed.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType

# Modules that import what a class path names.
_RESOLVERS = ("jsonargparse._util", "jqlight.cli.config")


class WorkingFolder(MetaPathFinder):
    """Finds in the working folder the module of a given class path, and what a module found so imports itself."""

    def __init__(self) -> None:
        self._found: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec; None where nobody may find it here."""
        asker = _importing_module(sys._getframe(1))
        if path is not None or not (asker in _RESOLVERS or asker.partition(".")[0] in self._found):
            return None
        spec = PathFinder.find_spec(fullname, [str(Path.cwd())])
        if spec is not None:
            self._found.add(fullname)
        return spec


def _importing_module(frame: FrameType | None) -> str:
    """Name of the module whose code, and not the import system's, runs in ``frame`` or the nearest one below."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in ("importlib", "_frozen_importlib", "_frozen_importlib_external"):
            return name
        frame = frame.f_back
    return ""


def find_classes_here() -> None:
    """Let class paths name modules of the working folder, behind everything that is installed."""
    if not any(isinstance(finder, WorkingFolder) for finder in sys.meta_path):
        sys.meta_path.append(WorkingFolder())
