"""``python -m jqlight`` is ``jqlight``."""

from jqlight.cli.main import main

raise SystemExit(main())
