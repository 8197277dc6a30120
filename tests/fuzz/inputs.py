"""Inputs that parsers meet: right ones with something wrong in them, which come further than noise does, and noise."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack
from hypothesis import strategies as st

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
ANY_TEXT = st.text(max_size=12)  # lone surrogates too, as arguments have them that are no UTF-8
ODD_TEXT = st.sampled_from(
    (
        *(
            "",
            " ",
            "\0",
            "\n",
            "\x1b[2J",
            "-",
            "--",
            ".",
            "..",
            "/",
            "%",
            "%00",
            "NaN",
            "-Infinity",
            "null",
            "true",
            "'",
            '"',
        ),
        *(
            "0",
            "-0",
            "1e400",
            "1e-400",
            "1E+999999999",
            "0x10",
            "1_000",
            "٣",
            "²",
            "1" * 400,
            "9" * 5000,
            "1." + "0" * 2000,
        ),
        *(
            "AAPL",
            "BTC/USD",
            "AAPL260116C00200000",
            "*",
            "A,B",
            "ÄÖÜ",
            "𝔸",
            "\u202e",
            "a" * 300,
            "\ud800",
            "\r\n",
            "🤷",
        ),
        *("2026-01-05", "2026-13-45", "0000-00-00", "9999-12-31T23:59:59.999999999Z", "2026-01-05T14:30:00+99:99"),
        *("2026-01-05T14:30:60Z", "0001-01-01T00:00:00+14:00", "1d", "-16min", "1e9d", "now", "yesterday"),
    )
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from((0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 1e308, 5e-324)),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, ODD_TEXT)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=8,
)
DEEP = st.sampled_from(
    (
        b"[" * 20_000,
        b'{"a":' * 9_000,
        b"[" * 600 + b"]" * 600,
        b"\x91" * 20_000,
        b"\x81\xa1a" * 9_000,
        b"x = " + b"[" * 9_000,
    )
)


def broken(whole: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that something has happened to: cut, doubled, changed, put into one another."""

    def hurt(cuts: Sequence[tuple[float, float, bytes]]) -> bytes:
        data = whole
        for begin, end, put in cuts:
            first, last = sorted((int(begin * len(data)), int(end * len(data))))
            data = data[:first] + put + data[last:]
        return data

    places = st.floats(0, 1)
    piece = st.one_of(st.binary(max_size=4), ODD_TEXT.map(encoded), st.just(whole[:40]))
    return st.lists(st.tuples(places, places, piece), min_size=1, max_size=3).map(hurt)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape" if "\udc80" <= max(text, default="") <= "\udcff" else "replace")


@st.composite
def altered(draw: st.DrawFn, examples: Sequence[Any]) -> Any:
    """One of the examples in which some values are others, some are missing and some are new, at any depth."""
    return _altered(draw, draw(st.sampled_from(examples)), draw(st.sampled_from((0.1, 0.3, 0.6))))


def _altered(draw: st.DrawFn, value: Any, share: float) -> Any:
    if draw(st.floats(0, 1)) < share / 3:
        return draw(VALUES)
    if isinstance(value, Mapping):
        kept = {
            name: _altered(draw, inner, share) for name, inner in value.items() if draw(st.floats(0, 1)) > share / 5
        }
        return kept | draw(st.dictionaries(TEXT, SCALARS, max_size=1))
    if isinstance(value, list):
        return [_altered(draw, inner, share) for inner in value]
    return draw(SCALARS) if draw(st.floats(0, 1)) < share else value


def json_of(examples: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """Return bodies: examples with other values, examples whose text is hurt, and noise."""
    wholes = [json.dumps(example).encode() for example in examples]
    return st.one_of(
        altered(examples).map(_dumped),
        st.sampled_from(wholes).flatmap(broken),
        VALUES.map(_dumped),
        st.binary(max_size=40),
        DEEP,
    )


def msgpack_of(examples: Sequence[Any]) -> st.SearchStrategy[bytes]:
    wholes = [msgpack.packb(example) for example in examples]
    return st.one_of(
        altered(examples).map(_packed), st.sampled_from(wholes).flatmap(broken), st.binary(max_size=60), DEEP
    )


def text_of(*examples: str) -> st.SearchStrategy[bytes]:
    """Return files of text: examples that are hurt, lines of them in any order, and noise."""
    lines = sorted({line for example in examples for line in example.splitlines()})
    shuffled = st.lists(st.one_of(st.sampled_from(lines), TEXT, ODD_TEXT), max_size=8).map("\n".join)
    return st.one_of(
        st.sampled_from([example.encode() for example in examples]).flatmap(broken),
        shuffled.map(encoded),
        st.binary(max_size=60),
        DEEP,
    )


def words_of(*known: str) -> st.SearchStrategy[str]:
    """Return words: known ones, known ones that are hurt, and others."""
    hurt = st.sampled_from(known).flatmap(
        lambda word: broken(encoded(word)).map(lambda data: data.decode(errors="replace"))
    )
    return st.one_of(st.sampled_from(known), hurt, ODD_TEXT, ANY_TEXT)


def either(encode: Callable[[bytes], Any], inputs: st.SearchStrategy[bytes]) -> st.SearchStrategy[Any]:
    return st.one_of(inputs, inputs.map(encode))


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _packed(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    except (OverflowError, ValueError):
        return _dumped(value)
    return packed
