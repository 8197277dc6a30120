"""Order updates and news as people read them."""

from datetime import UTC

from alpacli.domain.ticks import News, Trade, TradeUpdate
from alpacli.render.live_lines import told
from alpacli.streams.batch import Batch

ORDER = (
    b'{"id":"61e69015","side":"buy","qty":"10","type":"limit","limit_price":"101.50","time_in_force":"day",'
    b'"filled_qty":"4"}'
)


def line(about: bytes) -> str:
    ticks, unreadable = Batch.of_lines(about + b"\n").ticks()
    assert not unreadable
    assert isinstance(ticks[0], TradeUpdate | News | Trade)
    return told(ticks[0], UTC).plain


def test_a_fill_says_what_was_ordered_what_was_filled_and_the_position() -> None:
    update = (
        b'{"type":"trade_update","event":"partial_fill","symbol":"AAPL","timestamp":"2026-01-02T15:00:01.000000000Z",'
        b'"price":"101.2500","qty":"4","position_qty":"14","order":' + ORDER + b"}"
    )
    assert line(update) == (
        "15:00:01 UTC  partial_fill      AAPL  buy 10 limit 101.50 day  4 at 101.2500  filled 4/10  position 14  61e69015"
    )


def test_a_notional_order_and_a_trailing_stop_are_told_in_their_own_terms() -> None:
    update = b'{"type":"trade_update","event":"new","symbol":"BTC/USD","order":%b}'
    notional = b'{"id":"a","side":"buy","notional":"50","type":"market","time_in_force":"gtc","qty":null}'
    trailing = b'{"id":"b","side":"sell","qty":"2","type":"trailing_stop","trail_percent":"1.5","time_in_force":"gtc"}'
    assert "buy $50 market gtc" in line(update % notional)
    assert "sell 2 trailing_stop trail 1.5% gtc" in line(update % trailing)


def test_news_is_its_headline_symbols_source_and_address_without_control_characters() -> None:
    article = (
        b'{"type":"news","id":7,"headline":"Up\\u001b[31m again","symbols":["AAPL","MSFT"],'
        b'"updated_at":"2026-01-02T15:00:01.000000000Z","source":"wire","url":"https://example.com/7"}'
    )
    assert line(article) == "15:00:01 UTC  Up�[31m again  AAPL MSFT  wire  https://example.com/7"


def test_any_other_message_is_named_and_a_time_that_is_none_is_shown_as_it_came() -> None:
    assert line(b'{"type":"trade","symbol":"AAPL","timestamp":"soon","price":1,"size":2}') == "soon  trade  AAPL"
