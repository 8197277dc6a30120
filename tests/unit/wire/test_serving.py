"""What clients say to a server of ours, whatever it is."""

from collections.abc import Callable

import pytest

from alpacli.wire.commands import decode_command
from alpacli.wire.frames import BadFrame, decode, decode_update
from alpacli.wire.serving import Login, login_in


@pytest.mark.parametrize("value", ["Basic é", "Basic /", "Basic \udcff", "Basic ////"])
def test_a_basic_header_that_says_nothing_is_a_login_that_fails(value: str) -> None:
    assert login_in({"authorization": value}) == Login("", "")


@pytest.mark.parametrize("read", [decode, decode_update, decode_command])
def test_text_that_no_utf_8_can_hold_is_no_frame(read: Callable[[str], object]) -> None:
    with pytest.raises(BadFrame):
        read("\ud800")
