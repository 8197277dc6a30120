"""What is asked of a recorded price is what walking along it nanosecond by nanosecond would find."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from alpacli.sim.path import Path


@st.composite
def single_paths(draw: st.DrawFn, *, moving: bool = True) -> Path:
    steps = draw(st.lists(st.integers(1, 9), min_size=1, max_size=60))
    times, at = [], 10
    for step in steps:
        at += step
        times.append(at)
    prices = [draw(st.integers(1, 40)) for _ in times]
    moves = bytes(moving and draw(st.booleans()) and index + 1 < len(times) for index in range(len(times)))
    return Path(times, prices, moves)


@st.composite
def overlaid_paths(draw: st.DrawFn) -> Path:
    """Ticks, with the moves of another path in some stretches; and that once more."""
    lower = draw(single_paths())
    for _ in range(draw(st.integers(1, 2))):
        knots = draw(st.lists(st.sampled_from(range(len(lower.times))), max_size=5, unique=True))
        begins = sorted(lower.times[knot] for knot in knots)
        stretches = [
            (begin, min(begin + draw(st.integers(1, 40)), following))
            for begin, following in zip(begins, [*begins[1:], 1 << 62], strict=False)
        ]
        ticks = draw(single_paths(moving=False))
        whole = ticks.overlaid(lower, stretches)
        for at in range(700):
            source = lower if any(begin <= at < end for begin, end in stretches) else ticks
            if source is lower or not stretches or at < stretches[0][0]:
                assert whole.value(at) == source.value(at) or at < whole.times[0]
        lower = whole
    return lower


def paths() -> st.SearchStrategy[Path]:
    return single_paths() | overlaid_paths()


INSTANTS = st.integers(0, 600)


@settings(deadline=None, max_examples=examples(60))
@given(paths(), INSTANTS, INSTANTS)
def test_the_range_of_an_interval_is_that_of_all_its_instants(path: Path, start: int, length: int) -> None:
    seen = [path.value(at) for at in range(start, start + length + 1)]
    assert path.extremes(start, start + length) == (min(seen), max(seen))


@settings(deadline=None, max_examples=examples(60))
@given(paths(), INSTANTS, INSTANTS, st.integers(1, 40), st.booleans())
def test_a_price_is_reached_at_the_first_instant_that_has_it(
    path: Path, start: int, length: int, goal: int, rising: bool
) -> None:
    reached = (
        at for at in range(start, start + length) if (path.value(at) >= goal if rising else path.value(at) <= goal)
    )
    assert path.first(start, start + length, goal, rising=rising) == next(reached, None)


@settings(deadline=None, max_examples=examples(60))
@given(paths(), INSTANTS, INSTANTS, st.integers(1, 40), st.integers(1, 12), st.sampled_from([1, -1]))
def test_a_trailing_stop_is_met_where_walking_meets_it(
    path: Path, start: int, length: int, mark: int, distance: int, sign: int
) -> None:
    best, at_ns = sign * mark, None

    def stop(best: int) -> int:
        return best - distance

    for at in range(start, start + length):
        best = max(best, sign * path.value(at))
        if sign * path.value(at) <= stop(best):
            at_ns = at
            break
    if length:
        assert path.trail(start, start + length, sign * mark, stop, sign=sign) == (at_ns, best)
