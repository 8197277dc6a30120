"""Files of past prices are understood as people have them, and what is wrong in them is said with file and line."""

import gzip
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from alpacli.errors import UsageError
from alpacli.sim.reading import Reading, read

T0 = int(datetime(2024, 1, 3, 14, 30, tzinfo=UTC).timestamp()) * 1_000_000_000
MINUTE = 60_000_000_000


def reading(folder: Path, text: str, name: str = "AAPL.csv", **options: object) -> Reading:
    path = folder / name
    path.write_text(text)
    return read([str(path)], **options)  # type: ignore[arg-type] # options of several types


def refused(folder: Path, text: str, name: str = "AAPL.csv", **options: object) -> str:
    with pytest.raises(UsageError) as error:
        reading(folder, text, name, **options)
    return str(error.value)


BARS = "symbol,timestamp,open,high,low,close,volume,vwap,trade_count\n"


def test_bars_keep_every_digit_and_the_time_that_they_name(tmp_path: Path) -> None:
    row = "MSFT,2024-01-03T09:30:00-05:00,100.12,101,99.5,100.0001,1234.5,100.1,7\n"
    ((bar, width),) = reading(tmp_path, BARS + row).series["MSFT"].bars
    assert (bar.begin_ns, width) == (T0, MINUTE)
    assert (bar.open, bar.high, bar.low, bar.close) == (1_001_200, 1_010_000, 995_000, 1_000_001)
    assert (bar.volume, bar.vwap, bar.trade_count) == (Decimal("1234.5"), Decimal("100.1"), 7)


@pytest.mark.parametrize(
    "time",
    [
        *("2024-01-03T14:30:00Z", "2024-01-03 14:30:00+00:00", "2024-01-03 14:30:00.000000000+00:00"),
        *("1704292200", "1704292200000", "1704292200000000", "1704292200000000000"),
        *("01/03/2024 09:30", "2024-01-03 09:30:00"),
    ],
)
def test_one_moment_may_be_written_in_many_ways(tmp_path: Path, time: str) -> None:
    bars = reading(tmp_path, f"t,o,h,l,c,v\n{time},1,1,1,1,1\n").series["AAPL"].bars
    assert bars[0][0].begin_ns == T0


def test_times_without_a_zone_are_new_yorks_and_that_is_said_unless_a_zone_is_named(tmp_path: Path) -> None:
    text = "Datetime,Open,High,Low,Close,Volume\n2024-01-03 09:30:00,1,1,1,1,1\n"
    found = reading(tmp_path, text)
    assert found.series["AAPL"].bars[0][0].begin_ns == T0
    assert "New York" in found.notices[0]
    found = reading(tmp_path, text, zone=ZoneInfo("Europe/Berlin"))
    assert found.series["AAPL"].bars[0][0].begin_ns == T0 - 6 * 60 * MINUTE
    assert not found.notices


def test_yahoos_days_are_days_their_floats_are_prices_again_and_their_empty_rows_are_counted(tmp_path: Path) -> None:
    text = (
        "Date,Open,High,Low,Close,Adj Close,Volume\n2024-01-02,187.14999389648438,188.44,183.89,185.64,184.9,82488700\n"
        "2024-01-03,null,null,null,null,null,null\n2024-01-04,182.15,183.09,180.88,181.91,181.1,71983600\n"
    )
    found = reading(tmp_path, text)
    first, second = found.series["AAPL"].bars
    assert (first[0].begin_ns, first[0].day, first[0].open) == (None, date(2024, 1, 2), 1_871_500)
    assert second[0].day == date(2024, 1, 4)
    assert found.notices == [f"{tmp_path}/AAPL.csv: 1 rows without prices are left out"]


def test_a_symbol_whose_rows_all_have_no_prices_is_not_there(tmp_path: Path) -> None:
    header = "symbol,timestamp,bid_price,bid_size,ask_price,ask_size\n"
    empty = f"{header}AAPL,2024-01-04T15:00:00Z,0,0,0,0\n"
    found = reading(tmp_path, f"{empty}MSFT,2024-01-04T15:00:00Z,10,1,10.02,1\n", "ticks.csv")
    assert list(found.series) == ["MSFT"]
    assert found.notices[-1] == "AAPL has no row with prices, and is not there"
    with pytest.raises(UsageError, match=r"nothing to replay in .*ticks.csv \(.*without prices"):
        reading(tmp_path, empty, "ticks.csv")


def test_bars_that_all_begin_at_midnight_are_days(tmp_path: Path) -> None:
    rows = "2024-01-02T05:00:00Z,1,1,1,1,1\n2024-01-03T05:00:00Z,1,1,1,1,1\n"
    bars = reading(tmp_path, f"t,o,h,l,c,v\n{rows}").series["AAPL"].bars
    assert [(bar.begin_ns, bar.day) for bar, _ in bars] == [(None, date(2024, 1, 2)), (None, date(2024, 1, 3))]


def test_the_smallest_distance_of_two_bars_is_how_long_they_are(tmp_path: Path) -> None:
    rows = "".join(f"2024-01-03T14:{minute}:00Z,1,1,1,1,1\n" for minute in (30, 45, 50))
    bars = reading(tmp_path, f"t,o,h,l,c,v\n{rows}").series["AAPL"].bars
    assert [width for _, width in bars] == [5 * MINUTE] * 3
    bars = reading(tmp_path, f"t,o,h,l,c,v\n{rows}", width_ns=MINUTE).series["AAPL"].bars
    assert [width for _, width in bars] == [MINUTE] * 3


def test_a_file_with_the_newest_first_is_turned_around(tmp_path: Path) -> None:
    text = "Date;Close/Last;Volume;Open;High;Low\n01/04/2024;$2;1,000;$2;$2;$2\n01/03/2024;$1;2,000;$1;$1;$1\n"
    bars = reading(tmp_path, text).series["AAPL"].bars
    assert [(bar.day.day, bar.close, bar.volume) for bar, _ in bars] == [
        (3, 10_000, Decimal(2000)),
        (4, 20_000, Decimal(1000)),
    ]


def test_bars_may_stand_in_any_order(tmp_path: Path) -> None:
    rows = "".join(f"2024-01-03T14:{minute}:00Z,{minute},{minute},{minute},{minute},1\n" for minute in (30, 32, 31))
    bars = reading(tmp_path, f"t,o,h,l,c,v\n{rows}").series["AAPL"].bars
    assert [(bar.begin_ns, bar.close, width) for bar, width in bars] == [
        (T0 + place * MINUTE, (30 + place) * 10_000, MINUTE) for place in range(3)
    ]


def test_ticks_are_trades_or_quotes_by_their_columns(tmp_path: Path) -> None:
    trades = reading(tmp_path, "timestamp,price,size\n2024-01-03T14:30:00.000000001Z,1.5,10\n").series["AAPL"].trades
    assert [(row.at_ns, row.price, row.size) for row in trades] == [(T0 + 1, 15_000, Decimal(10))]
    text = "timestamp,symbol,bid,bid_size,ask,ask_size\n2024-01-03T14:30:00Z,BTC/USD,1.5,2,1.6,3\n"
    (quote,) = reading(tmp_path, text).series["BTC/USD"].quotes
    assert (quote.bid, quote.ask, quote.bid_size, quote.ask_size) == (15 * 10**8, 16 * 10**8, Decimal(2), Decimal(3))


def test_a_recording_of_a_stream_is_read_with_what_was_told_of_each_tick(tmp_path: Path) -> None:
    lines = [
        {"type": "mark", "received_at": "2024-01-03T14:30:00.000000000Z"},
        {
            "type": "quote",
            "symbol": "AAPL",
            "timestamp": "2024-01-03T14:30:00.000000002Z",
            "bid_price": 1.5,
            "bid_size": 1,
        }
        | {"ask_price": 1.6, "ask_size": 2, "bid_exchange": "V", "ask_exchange": "V", "conditions": ["R"], "tape": "C"},
        {"type": "trade", "symbol": "AAPL", "timestamp": "2024-01-03T14:30:00.000000001Z", "price": 1.55, "size": 3}
        | {"id": 9, "exchange": "V", "conditions": ["@"], "tape": "C"},
        {"type": "bar", "symbol": "AAPL", "timestamp": "2024-01-03T14:30:00.000000000Z", "open": 1, "high": 1, "low": 1}
        | {"close": 1, "volume": 5, "trade_count": 1, "vwap": 1},
        {"type": "status", "symbol": "AAPL", "timestamp": "2024-01-03T14:30:00.000000000Z"},
    ]
    found = reading(tmp_path, "\n".join(map(json.dumps, lines)) + "\n", "rec.jsonl")
    series = found.series["AAPL"]
    assert [trade.extra["i"] for trade in series.trades] == [9]
    assert [(quote.at_ns, quote.extra["c"]) for quote in series.quotes] == [(T0 + 2, ["R"])]
    assert len(series.bars) == 1
    assert "1 status" in found.notices[0]


def test_parquet_gzip_and_directories_are_read_alike(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet

    moments = [datetime(2024, 1, 3, 14, minute, tzinfo=UTC) for minute in (30, 31)]
    columns = {"timestamp": arrow.array(moments, arrow.timestamp("ns", "UTC")), "close": [1.25, 1.5]}
    table = arrow.table(columns | {name: [1.25, 1.5] for name in ("open", "high", "low")} | {"volume": [10, 20]})
    pyarrow.parquet.write_table(table, tmp_path / "MSFT_2024.parquet")
    naive = arrow.table(
        {"Datetime": arrow.array([datetime(2024, 1, 3, 9, 30)], arrow.timestamp("us"))}  # noqa: DTZ001 # none is meant
        | {name: [2.0] for name in ("Open", "High", "Low", "Close", "Volume")}
    )
    pyarrow.parquet.write_table(naive, tmp_path / "IBM.parquet")
    (tmp_path / "KO.csv.gz").write_bytes(gzip.compress(b"t,o,h,l,c,v\n2024-01-03T14:30:00Z,3,3,3,3,3\n"))
    (tmp_path / "notes.md").write_text("not data")
    series = read([str(tmp_path)]).series
    assert [bar.close for bar, _ in series["MSFT"].bars] == [12_500, 15_000]
    assert [item.bars[0][0].begin_ns for item in series.values()] == [T0] * 3
    assert sorted(series) == ["IBM", "KO", "MSFT"]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("AAPL,2024-01-03T14:30:00Z,1,x,1,1,1,1,1\n", "line 2: its high is 'x'"),
        ("AAPL,2024-01-03T14:30:00Z,1,1,1,,1,1,1\n", "line 2: its close is empty"),
        ("AAPL,2024-01-03T14:30:00Z,0,1,0,1,1,1,1\n", "line 2: its open is 0"),
        ("AAPL,2024-01-03T14:30:00Z,1,1,1,2,1,1,1\n", "line 2: its open and close do not lie between"),
        ("AAPL,yesterday,1,1,1,1,1,1,1\n", "line 2: its time is 'yesterday'"),
        ("AAPL,2024-01-03T14:30:00Z,1,1\n", "line 2: it has 4 fields, and 9 are needed"),
        (",2024-01-03T14:30:00Z,1,1,1,1,1,1,1\n", "line 2: it names no symbol"),
        (
            "".join(f"AAPL,2024-01-03T14:{minute}:00Z,1,1,1,1,1,1,1\n" for minute in (32, 30, 31, 30)),
            "line 5: its time is that of another bar of AAPL (line 3)",
        ),
        ("AAPL,2024-01-03T14:31:00Z,1,1,1,1,1,1,1\n" * 2, "line 3: its time is that of another bar of AAPL (line 2)"),
    ],
)
def test_a_wrong_row_is_refused_by_file_and_line(tmp_path: Path, rows: str, complaint: str) -> None:
    assert complaint in refused(tmp_path, BARS + rows, "prices.csv")


def test_ticks_that_are_not_in_order_are_refused(tmp_path: Path) -> None:
    text = "timestamp,price\n2024-01-03T14:30:01Z,1\n2024-01-03T14:30:01Z,1\n2024-01-03T14:30:00Z,1\n"
    assert "AAPL.csv line 4: its time is before that of the trade above it" in refused(tmp_path, text)


def test_files_that_are_no_prices_are_refused(tmp_path: Path) -> None:
    assert "are no bars, trades or quotes" in refused(tmp_path, "a,b\n1,2\n")
    assert "are no bars, trades or quotes" in refused(tmp_path, "")
    assert "bars of a week" in refused(tmp_path, "Date,Open,High,Low,Close\n2024-01-01,1,1,1,1\n2024-01-08,1,1,1,1\n")
    assert "line 2: this is no JSON object" in refused(tmp_path, '{"type":"mark"}\n[1]\n', "rec.jsonl")
    assert "line 1: this is no JSON object" in refused(tmp_path, '{"a":' * 5000, "deep.jsonl")
    assert "line 1: its time is '[5]'" in refused(tmp_path, '{"symbol":"F","timestamp":[5],"price":5}', "list.jsonl")
    (tmp_path / "AAPL.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match=r"cannot read .*AAPL\.parquet"):
        read([str(tmp_path / "AAPL.parquet")])
    (tmp_path / "AAPL.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not text in UTF-8"):
        read([str(tmp_path / "AAPL.csv")])
    with pytest.raises(UsageError, match="No such file"):
        read([str(tmp_path / "nothing.csv")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there are no files to replay"):
        read([str(tmp_path / "empty")])
    (tmp_path / "AAPL.csv.gz").write_bytes(gzip.compress(b"t,o,h,l,c\n" * 500)[:20])
    with pytest.raises(UsageError, match="cannot read"):
        read([str(tmp_path / "AAPL.csv.gz")])
