"""Commands that are not Lightning's: one module each, with ``main(argv) -> exit code``."""
