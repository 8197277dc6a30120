"""Machine output: no digit is lost, no row is broken, jq's own numbers are the only computed ones."""

import csv
import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alpacli.errors import UnreadableAnswer, UsageError
from alpacli.render import machine

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | NUMBERS.map(machine.Digits),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_parse_is_the_inverse_of_dump(value: object) -> None:
    assert machine.parse(machine.dump(value).encode("utf-8", "surrogatepass")) == value
    assert json.loads(machine.dump(value, indent=2)) == json.loads(machine.dump(value))


@given(NUMBERS)
@example("300000000.354033441")  # jq writes it as a double that Python reads as another one
def test_a_number_that_jq_passes_on_keeps_every_digit(number: str) -> None:
    assert machine.jq(f'{{"a":{number}}}', ".a") == f"{number}\n"


IDS = '[{"id":6064231482325871234},{"id":6064231482325871235},{"id":12345678901234567890.123456789}]'
ONE, TWO, THREE = "6064231482325871234", "6064231482325871235", "12345678901234567890.123456789"


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        (".[].id", [ONE, TWO, THREE]),
        (".[1]", [f'{{"id":{TWO}}}']),
        (f".[] | select(.id == {TWO}) | .id", [TWO]),
        (".[0].id == .[1].id, .[0].id < .[1].id", ["false", "true"]),
        ("[.[].id] | unique | length", ["3"]),
        ("map(.id) | sort | reverse", [f"[{THREE},{TWO},{ONE}]"]),
        ("max_by(.id).id", [THREE]),
        ("group_by(.id)[1]", [f'[{{"id":{TWO}}}]']),
        (".[] | .id | tojson", [ONE, TWO, THREE]),
        ('.[1] | "\\(.id) \\(.id | @text)"', [f"{TWO} {TWO}"]),
        ("map(.id) | @csv", [f"{ONE},{TWO},{THREE}"]),
        ("map(.id | tojson | fromjson) | .[:2]", [f"[{ONE},{TWO}]"]),
        (f'"{TWO}" | tonumber', [TWO]),
        (TWO, [TWO]),
        (f"map(.id) | index({TWO})", ["1"]),
        ("def id: .id; .[1] | id # the second", [TWO]),
    ],
)
def test_numbers_beyond_a_double_that_lie_close_together_stay_apart(program: str, lines: list[str]) -> None:
    assert machine.jq(IDS, program).splitlines() == lines


def test_what_jq_computes_has_the_precision_of_its_doubles() -> None:
    assert float(machine.jq(IDS, ".[0].id + 0")) == float(ONE)
    assert machine.jq("[0.1,0.2]", "add") == "0.30000000000000004\n"


def test_exponents_come_back_as_they_were_written() -> None:
    assert machine.jq(f"[{ONE},1e5,1E5,0.0000001]", ".") == f"[{ONE},1e5,1e5,0.0000001]\n"


def test_jq_strings_are_raw_and_everything_else_is_compact_json_on_a_line() -> None:
    assert machine.jq('[{"a":"x\\ny"},{"a":[1, {"b":null}]}]', ".[].a") == 'x\ny\n[1,{"b":null}]\n'
    assert machine.jq("[1.5,2]", "add") == "3.5\n"
    assert machine.jq("[]", ".[]") == ""


@pytest.mark.parametrize(
    "program", [".[", ".a.b", 'error("x")', "nonsense", "", "# nothing", "def f: 1;", ".a) | (.b", ". as $x"]
)
def test_a_jq_program_that_fails_is_wrong_usage(program: str) -> None:
    with pytest.raises(UsageError, match="--jq"):
        machine.jq("[1]", program)


def test_nan_is_not_json() -> None:
    with pytest.raises(UnreadableAnswer):
        machine.parse(b"[NaN]")


def test_a_list_always_has_its_documented_header_and_unknown_fields_after_it() -> None:
    assert machine.tsv([], ["a", "b"]) == "a\tb\n"
    assert machine.tsv(machine.parse(b'[{"new":1,"b":null}]'), ["a", "b"]) == "a\tb\tnew\n\t\t1\n"
    assert machine.comma_separated([], ["a", "b"]) == "a,b\n"


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_whatever_a_text_holds_a_row_stays_a_line(texts: list[str]) -> None:
    rows = [{"a": text, "b": "end"} for text in texts]
    lines = machine.tsv(rows, ["a", "b"]).split("\n")
    assert len(lines) == len(texts) + 2
    assert all(line.count("\t") == 1 for line in lines[:-1])


@given(st.lists(st.text().filter(lambda text: "\r" not in text and "\x00" not in text), min_size=1, max_size=4))
def test_csv_reads_back(texts: list[str]) -> None:
    rows = [{"a": text, "b": "end"} for text in texts]
    read = list(csv.reader(io.StringIO(machine.comma_separated(rows, ["a", "b"]), newline="")))
    assert read == [["a", "b"], *([text, "end"] for text in texts)]


def test_one_object_is_name_and_value_lines() -> None:
    value = machine.parse(b'{"a":1.50,"b":{"c":[true,null]},"d":null}')
    assert machine.tsv(value, ()) == 'a\t1.50\nb\t{"c":[true,null]}\nd\t\n'


def test_select_keeps_the_order_asked_for_and_refuses_what_nobody_knows() -> None:
    rows = machine.parse(b'[{"a":1,"b":2},{"b":3}]')
    assert machine.dump(machine.select(rows, ["b", "a"], ["a", "b"])) == '[{"b":2,"a":1},{"b":3}]'
    assert machine.select([], ["a"], ["a"]) == []
    with pytest.raises(UsageError, match="'zzz'"):
        machine.select(rows, ["zzz"], ["a"])


def test_what_a_terminal_shows_holds_no_control_character() -> None:
    """Escape sequences, C1 controls and direction overrides of a foreign name do nothing; JSON stays the same data."""
    name = "a\x1b]0;evil\x07\x9b31m\u202e\x7f\r é"
    assert machine.harmless(f"{name}\n") == "a�]0;evil��31m��� é\n"
    text = machine.dump({"name": name}, indent=2)
    shown = machine.harmless(text, in_json=True)
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == {"name": name}
