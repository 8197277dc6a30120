"""The Lua in a module is changed in each way that counts, and nothing else of the module."""

import pytest
from tests.mutation.lua import mutants


def changed(lua: str) -> set[str]:
    """Return what each mutant makes of one line of Lua."""
    before, after = '"""Not Lua."""\n\nNAME = "sent"\nSCRIPT = """\n', '\n"""\n'
    found = set()
    for _, source in mutants(before + lua + after):
        assert source.startswith(before)
        assert source.endswith(after)
        found.add(source[len(before) : -len(after)])
    return found


@pytest.mark.parametrize(
    ("lua", "mutated"),
    [
        ("return a < b", {"return a <= b", "return a >= b", "-- return a < b"}),
        ("return a ~= b", {"return a == b", "-- return a ~= b"}),
        ("return a - b", {"return a + b", "-- return a - b"}),
        ("return not a", {"return  a", "-- return not a"}),
        ("local a = -b", {"local a = b"}),
        ("local a = b or f(c, d)", {"local a = b and f(c, d)", "local a = b", "local a = f(c, d)"}),
        ("local a = math.min(b, c)", {"local a = math.max(b, c)"}),
        ("local a = math.floor(b)", {"local a = math.ceil(b)"}),
        ("local a = KEYS[1]", {"local a = KEYS[2]", "local a = KEYS[0]"}),
        ("local a = true", {"local a = false"}),
        ("local a, b = '(' .. c, 'a or b < 1' -- a or b", {"local a, b = '' .. c, 'a or b < 1' -- a or b"}),
        ("local day = 86400", set()),
        ("if a then return end", {"-- if a then return end"}),
        ("redis.call('DEL',\n  KEYS[a])", {"-- redis.call('DEL', KEYS[a])"}),
        ("end", set()),
    ],
)  # fmt: skip
def test_each_change_that_counts_is_made_and_what_does_not_compile_counts_for_nothing(
    lua: str, mutated: set[str]
) -> None:
    assert changed(lua) == mutated
