"""``python -m jqlight`` is ``jqlight``: without the working folder on the import path, where ``-m`` puts it."""

import sys
from pathlib import Path

import jqlight

if Path(sys.path[0]).resolve() == Path.cwd() != Path(jqlight.__file__).resolve().parents[1]:
    del sys.path[0]

from jqlight.cli.main import main

raise SystemExit(main())
