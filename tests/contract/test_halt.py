"""A halt holds on every machine that shares a Redis, and outlives everything that happens to that: on real servers."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import valkey
from tests.support.fakes import ManualClock

from alpacli.errors import ConfigError, StoreUnavailable
from alpacli.store.halt import Halt, HaltSwitch
from alpacli.store.redis import RedisStore

STORM = Halt(5.0, "storm", "me@here")
KEY = "alpaca:{fp}:~halt"


_OPENED: list[RedisStore] = []


def opened(url: str) -> RedisStore:
    """Return a store that is closed after the test."""
    _OPENED.append(RedisStore(url))
    return _OPENED[-1]


@pytest.fixture(autouse=True)
def closed_afterwards() -> Iterator[None]:
    yield
    while _OPENED:
        _OPENED.pop().close()


class Machine:
    """A machine with its own state directory; every look is that of a new process."""

    def __init__(self, folder: Path, url: str) -> None:
        self.path = folder / "orders" / "fp.halt"
        self._url = url
        self.warnings: list[str] = []

    def state(self) -> Halt | None:
        return self.switch().state()

    def halt(self) -> None:
        self.switch().set(STORM)

    def resume(self) -> None:
        self.switch().clear()

    def switch(self, clock: ManualClock | None = None) -> HaltSwitch:
        return HaltSwitch(str(self.path), KEY, opened(self._url), clock or ManualClock(), self.warnings.append)


@pytest.fixture(params=["single", "sentinel", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "single":
        with valkey.server(tmp_path) as one:
            yield one.url
    elif request.param == "sentinel":
        with valkey.sentinel_group(tmp_path) as (_, _, sentinel):
            yield f"redis+sentinel://127.0.0.1:{sentinel.port}/paper/0"
    else:
        with valkey.cluster(tmp_path) as servers:
            yield f"redis+cluster://127.0.0.1:{servers[0].port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[valkey.Server]:
    with valkey.server(tmp_path) as one:
        yield one


def test_it_holds_on_every_machine_and_ends_on_every_machine(url: str, tmp_path: Path) -> None:
    here, there = Machine(tmp_path / "a", url), Machine(tmp_path / "b", url)
    assert (here.state(), there.state()) == (None, None)
    here.halt()
    assert (here.state(), there.state()) == (STORM, STORM)
    there.resume()
    assert (here.state(), there.state()) == (None, None)
    there.halt()
    assert (here.state(), there.state()) == (STORM, STORM)
    here.resume()
    assert (here.state(), there.state()) == (None, None)
    assert here.warnings + there.warnings == []


DRILL = Halt(9.0, "drill", "you@there")


def test_a_second_halt_keeps_when_and_why_the_first_began_and_adds_its_own_reason(
    server: valkey.Server, tmp_path: Path
) -> None:
    here, there = Machine(tmp_path / "a", server.url), Machine(tmp_path / "b", server.url)
    here.halt()
    both = there.switch().set(DRILL)
    assert (both.at, both.reason, both.by) == (5.0, "storm; then you@there: drill", "me@here")
    assert (here.state(), there.state()) == (both, both)
    for quiet in (Halt(11.0, "", "you@there"), Halt(12.0, "storm", "they@there")):
        assert there.switch().set(quiet) == both, "what adds nothing changes nothing"
    last = here.switch().set(Halt(13.0, "fog", "me@here"))
    assert (last.at, last.reason) == (5.0, "storm; then fog"), "of many the first and the last are told"
    assert there.state() == last
    there.resume()
    assert here.switch().set(DRILL) == DRILL, "after a resume it is a new one"


def test_a_reason_that_comes_later_is_told_where_the_first_had_none(server: valkey.Server, tmp_path: Path) -> None:
    here = Machine(tmp_path / "a", server.url)
    silent = STORM._replace(reason="")
    assert here.switch().set(silent) == silent
    assert here.switch().set(DRILL).reason == "you@there: drill"
    here.resume()
    here.switch().set(silent)
    assert here.switch().set(STORM._replace(at=9.0)) == STORM


def test_a_halt_that_was_ended_elsewhere_is_not_what_a_new_one_goes_on_from(
    server: valkey.Server, tmp_path: Path
) -> None:
    here, there = Machine(tmp_path / "a", server.url), Machine(tmp_path / "b", server.url)
    here.halt()
    there.resume()
    silent = DRILL._replace(reason="")
    assert here.switch().set(silent) == silent
    assert there.state() == silent


def test_a_halt_in_place_of_a_record_that_is_damaged_is_told_as_it_is(server: valkey.Server, tmp_path: Path) -> None:
    here = Machine(tmp_path / "a", server.url)
    here.path.parent.mkdir(parents=True)
    here.path.write_text("nonsense")
    assert here.switch().set(DRILL) == DRILL
    assert here.state() == DRILL


def test_a_promoted_replica_knows_the_halt(tmp_path: Path) -> None:
    with valkey.sentinel_group(tmp_path) as (master, replica, sentinel):
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/paper/0"
        Machine(tmp_path / "a", url).halt()
        with replica.client() as client:
            valkey.wait_for(lambda: client.hget(KEY, "value"))
        master.kill()
        there = Machine(tmp_path / "b", url)
        valkey.wait_for(lambda: there.state() == STORM)


def test_who_has_seen_it_stays_halted_while_redis_is_down(server: valkey.Server, tmp_path: Path) -> None:
    here, there, new = (Machine(tmp_path / name, server.url) for name in "abc")
    here.halt()
    assert there.state() == STORM
    server.kill()
    assert (here.state(), there.state()) == (STORM, STORM)
    assert new.state() is None
    assert len(new.warnings) == 1
    assert "another machine" in new.warnings[0]


def test_a_redis_that_lost_its_memory_is_told_again(server: valkey.Server, tmp_path: Path) -> None:
    here, there = Machine(tmp_path / "a", server.url), Machine(tmp_path / "b", server.url)
    here.halt()
    server.kill()
    server.start()
    assert there.state() is None
    assert here.state() == STORM
    assert there.state() == STORM


def test_a_halt_while_redis_is_down_reaches_the_others_later(server: valkey.Server, tmp_path: Path) -> None:
    here, there = Machine(tmp_path / "a", server.url), Machine(tmp_path / "b", server.url)
    here.halt()
    here.resume()
    server.kill()
    here.halt()
    assert len(here.warnings) == 1
    server.start()
    assert here.state() == STORM
    assert there.state() == STORM
    there.resume()
    assert here.state() is None


def test_a_resume_that_cannot_reach_redis_resumes_nothing(server: valkey.Server, tmp_path: Path) -> None:
    here = Machine(tmp_path / "a", server.url)
    here.halt()
    server.kill()
    with pytest.raises(StoreUnavailable, match="stays halted") as refused:
        here.resume()
    assert "REDIS_URL" in refused.value.hint
    assert here.state() == STORM


def test_a_resume_that_failed_ends_no_halt_when_redis_goes_on(server: valkey.Server, tmp_path: Path) -> None:
    here, there = Machine(tmp_path / "a", server.url), Machine(tmp_path / "b", server.url)
    here.halt()
    assert there.state() == STORM
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match="stays halted"):
            here.resume()
    finally:
        server.process.send_signal(signal.SIGCONT)
    valkey.wait_for(server.answers)
    assert (there.state(), here.state()) == (STORM, STORM)


class DeafAtTheEnd(RedisStore):
    """Carries out what it is told, and is not heard to say so."""

    def set_note(self, key: str, value: bytes | None) -> int:
        super().set_note(key, value)
        raise StoreUnavailable("no answer")


@pytest.mark.parametrize("known", [True, False], ids=["kept here", "known to Redis alone"])
def test_a_resume_whose_answer_was_lost_is_taken_back(server: valkey.Server, tmp_path: Path, known: bool) -> None:
    here = Machine(tmp_path / "a", server.url)
    here.halt()
    if not known:
        here.path.unlink()
    deaf = HaltSwitch(str(here.path), KEY, DeafAtTheEnd(server.url), ManualClock(), here.warnings.append)
    with pytest.raises(StoreUnavailable, match="stays halted"):
        deaf.clear()
    assert here.state() == STORM
    assert Machine(tmp_path / "b", server.url).state() == STORM


def test_without_redis_a_machine_ends_its_own_halt_and_takes_up_the_others_again(
    server: valkey.Server, tmp_path: Path
) -> None:
    here = Machine(tmp_path / "a", server.url)
    here.halt()
    alone = HaltSwitch(str(here.path), KEY, None, ManualClock(), here.warnings.append)
    alone.clear()
    assert alone.state() is None
    assert here.state() == STORM, "Redis still says so"


def test_a_full_disk_leaves_the_halt_to_redis_and_both_failing_is_an_error(
    server: valkey.Server, tmp_path: Path
) -> None:
    here, there = Machine(tmp_path / "a", server.url), Machine(tmp_path / "b", server.url)
    here.path.parent.parent.mkdir()
    here.path.parent.write_text("a file where the folder should be")
    here.halt()
    assert "in Redis alone" in here.warnings[0]
    assert there.state() == STORM
    there.resume()
    server.kill()
    with pytest.raises(ConfigError, match="cannot write") as failed:
        here.halt()
    assert "NOT halted" in failed.value.hint


def test_a_damaged_note_halts(server: valkey.Server, tmp_path: Path) -> None:
    opened(server.url).set_note(KEY, b"nonsense")
    state = Machine(tmp_path / "a", server.url).state()
    assert state is not None
    assert "damaged" in state.reason


def test_a_redis_that_does_not_answer_is_asked_once_and_not_for_every_order(
    server: valkey.Server, tmp_path: Path
) -> None:
    here, clock = Machine(tmp_path / "a", server.url), ManualClock()
    switch = here.switch(clock)
    server.kill()
    assert [switch.state() for _ in range(5)] == [None] * 5
    assert len(here.warnings) == 1
    server.start()
    Machine(tmp_path / "b", server.url).halt()
    clock.advance(16)
    assert switch.state() == STORM


def test_clearing_the_cache_does_not_end_a_halt(server: valkey.Server, tmp_path: Path) -> None:
    here, there = Machine(tmp_path / "a", server.url), Machine(tmp_path / "b", server.url)
    here.halt()
    opened(server.url).drop("alpaca:{fp}")
    assert there.state() == STORM
    with server.client() as client:
        assert client.ttl(KEY) == -1


def test_whether_a_redis_may_forget_is_known_however_its_servers_stand_together(url: str) -> None:
    assert "nothing over a restart" in opened(url).forgetting()


def test_a_redis_that_lost_its_memory_is_reminded_without_an_order(server: valkey.Server, tmp_path: Path) -> None:
    here, there = Machine(tmp_path / "a", server.url), Machine(tmp_path / "b", server.url)
    here.halt()
    server.kill()
    server.start()
    there.switch().remind()
    assert there.state() is None
    here.switch().remind()
    assert there.state() == STORM
