"""Measurements of speed and memory, run by `make bench-...`; every result is a line of results.jsonl.

What is compared is measured side by side in one run, on one state of the machine. docs/performance.md has the
results, and which goals were met.
"""
