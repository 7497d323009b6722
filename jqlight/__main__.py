"""``python -m jqlight`` is ``jqlight``."""

from jqlight.cli import main

raise SystemExit(main())
