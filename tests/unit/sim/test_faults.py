"""Faults as words and as JSON, and when they strike."""

import pytest
from tests.support.fakes import ManualClock

from alpacli.errors import UsageError
from alpacli.sim.faults import KINDS, Fault, Faults, fault_from, fault_from_words


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_shown_as_it_can_be_set_again(kind: str) -> None:
    fault = fault_from_words(f"{kind},times=2,path=/v2/iex")
    assert fault_from(fault.shown()) == fault
    assert (fault.kind, fault.times, fault.path) == (kind, 2, "/v2/iex")


def test_words_become_the_switches_they_name() -> None:
    assert fault_from_words("drop, after=2.5, how=frame") == Fault("drop", after=2.5, how="frame")
    assert fault_from_words("refuse,code=409").code == 409
    assert fault_from_words("mute").how == "silence"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("explode", "no fault 'explode'"),
        ("drop,now", "not NAME=VALUE"),
        ("drop,after=soon", "after is 'soon'"),
        ("drop,after=-1", "after is -1"),
        ("drop,after=nan", "after is nan"),
        ("drop,code=402", "drop has no code"),
        ("drop,how=softly", "drop has no how=softly"),
        ("reject,status=200", "status is 200"),
        ("mute,times=0.5", "times is 0.5"),
    ],
)
def test_what_is_no_fault_says_why(words: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        fault_from_words(words)


@pytest.mark.parametrize("fields", [None, 3, [], {"kind": ["drop"]}, {"kind": "drop", "path": 3}])
def test_json_that_is_no_fault_is_refused(fields: object) -> None:
    with pytest.raises(UsageError):
        fault_from(fields)


def test_a_fault_strikes_its_endpoint_in_time_and_as_often_as_told() -> None:
    clock = ManualClock()
    faults = Faults(clock)
    faults.add([Fault("drop", path="/v2/iex", after=2.0, times=2)])
    began = faults.now()
    assert faults.strike("drop", "/v2/iex", began) is None
    clock.advance(2)
    assert faults.strike("drop", "/v2/sip", began) is None
    assert faults.strike("mute", "/v2/iex", began) is None
    assert faults.strike("drop", "/v2/iex", faults.now()) is None
    assert [faults.strike("drop", "/v2/iex", began) is not None for _ in range(3)] == [True, True, False]
    assert faults.shown() == []


def test_a_fault_that_is_set_later_counts_from_then_and_ends_when_cleared() -> None:
    clock = ManualClock()
    faults = Faults(clock)
    began = faults.now()
    clock.advance(100)
    faults.add([Fault("mute", after=1.0)])
    assert faults.strike("mute", "/stream", began) is None
    clock.advance(1)
    assert faults.strike("mute", "/stream", began) is not None
    faults.clear()
    assert faults.strike("mute", "/stream", began) is None
