"""How many examples a property is tried on: few in every run, ten times as many where THOROUGH is set, as at night."""

import os


def examples(count: int) -> int:
    return count * 10 if os.environ.get("THOROUGH") else count
