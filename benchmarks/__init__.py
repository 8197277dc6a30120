"""The performance goals, measured: every row is a ratio against its reference, or a count, taken in one run.

``python -m benchmarks`` runs all rows, ``--only NAME`` one of them, ``--json`` prints the rows as JSON.
"""
