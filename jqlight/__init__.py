"""jqlight."""
