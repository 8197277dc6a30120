"""Recordings that were cut off: what is whole is played, and nothing else."""

import asyncio
import gzip
from pathlib import Path

import pytest
from tests.support.fakes import ManualClock

from alpacli.domain.ticks import Interest
from alpacli.errors import UsageError
from alpacli.streams.batch import Batch
from alpacli.streams.events import Event, Health
from alpacli.streams.recording import Recorder, Replay

LINES = [
    b'{"type":"trade","symbol":"%b","timestamp":"2026-01-02T15:00:00.%09dZ","price":1.50,"size":1,"id":%d}\n'
    % (symbol, number, number)
    for number, symbol in enumerate((b"AAPL", b"MSFT", "ÄÖ".encode(), b"AAPL"))
]


class Played:
    def __init__(self) -> None:
        self.lines = b""
        self.bad = 0

    def batch(self, batch: Batch) -> None:
        self.lines += batch.lines

    def event(self, event: Event) -> None:
        if isinstance(event, Health):
            self.bad = event.bad_frames


def play(path: Path, speed: float | None = None) -> Played:
    played = Played()
    clock = ManualClock()
    asyncio.run(Replay(str(path), Interest(), speed=speed, clock=clock, sleep=clock.sleep_async).run(played))
    return played


@pytest.mark.parametrize("speed", [None, 1.0])
def test_a_recording_that_was_cut_anywhere_plays_its_whole_lines(tmp_path: Path, speed: float | None) -> None:
    path = tmp_path / "day.ndjson"
    clock = ManualClock()
    recorder = Recorder(str(path), clock)
    for line in LINES:
        recorder.write(line)
        clock.advance(1.0)
    recorder.close()
    whole = path.read_bytes()
    assert whole.count(b'"mark"') == len(LINES)
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        if length and b"\n" not in whole[:length]:
            with pytest.raises(UsageError, match="no line of it"):
                play(path, speed)
            continue
        played = play(path, speed)
        kept = [line for line in LINES if line in whole[:length]]
        assert played.lines == b"".join(kept)
        assert played.bad == (0 if length == 0 or whole[length - 1 : length] == b"\n" else 1)


def test_recording_goes_on_after_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "day.ndjson"
    path.write_bytes(LINES[0] + LINES[1][:-20])
    recorder = Recorder(str(path), ManualClock())
    recorder.write(LINES[2])
    recorder.close()
    assert play(path).lines == LINES[0] + LINES[2]


def test_holes_and_noise_in_the_middle_cost_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "day.ndjson"
    path.write_bytes(
        LINES[0]
        + b"\0" * 5000
        + b"\n\xff\xfe\n[1]\n"
        + LINES[1]
        + b'{"type":"mark","received_at":5}\n'
        + b"[" * 5000
        + b"\n"
        + LINES[3]
    )
    played = play(path)
    assert played.lines == LINES[0] + LINES[1] + LINES[3]
    assert played.bad == 5


def test_a_gzipped_recording_plays_like_any_other_and_one_that_was_cut_to_where_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "day.ndjson.gz"
    many = b"".join(LINES) * 500
    packed = gzip.compress(many)
    path.write_bytes(packed)
    assert play(path).lines == many
    path.write_bytes(packed[: len(packed) * 3 // 4])
    played = play(path)
    assert many.startswith(played.lines)
    assert played.lines.endswith(b"\n")
    assert played.bad == 1


@pytest.mark.parametrize(
    "content",
    [b"t,o,h,l,c,v\n1,2,3,4,5,6\n", gzip.compress(b"PAR1", mtime=0)[:-5], b"\x1f\x8b junk"],
    ids=["table", "cut", "junk"],  # the same in every worker
)
def test_a_file_of_which_nothing_can_be_read_is_no_success(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "day.ndjson"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no line of it can be read"):
        play(path)


def test_a_gzipped_recording_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "day.ndjson.gz"
    packed = gzip.compress(b"".join(LINES))
    path.write_bytes(packed)
    with pytest.raises(UsageError, match="it is gzipped"):
        Recorder(str(path), ManualClock())
    assert path.read_bytes() == packed


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n no end", b"a,b\n1,2", b"{}\n", b'{"type":7}\n{"a', b"\n", b'{"name": "cut'],
    ids=repr,
)
def test_a_file_that_is_no_recording_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="what is in it is no recording"):
        Recorder(str(path), ManualClock())
    assert path.read_bytes() == content


@pytest.mark.parametrize("length", [1, 5, 9, 30])
def test_a_recording_whose_only_line_was_cut_is_begun_anew(tmp_path: Path, length: int) -> None:
    path = tmp_path / "day.ndjson"
    path.write_bytes(LINES[0][:length])
    Recorder(str(path), ManualClock()).close()
    assert path.read_bytes() == b""
