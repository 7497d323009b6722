"""The command line: one module a verb, and the rooms they share (config, messages, build, output)."""
