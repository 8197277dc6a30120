"""The zone in which times are meant and shown."""

import datetime as dt
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from alpacli.cli.times import zone_named
from alpacli.errors import UsageError


def no_zones(name: str) -> dt.tzinfo:
    raise ZoneInfoNotFoundError(name)


def test_local_is_the_machines_zone_and_no_zone_data_means_utc() -> None:
    assert zone_named("local", no_zones) is None
    assert zone_named("utc", no_zones) is dt.UTC
    assert zone_named("ET", no_zones) is dt.UTC


@pytest.mark.parametrize("name", ["Nonsense/Nowhere", "../../etc/passwd", ""])
def test_an_unknown_zone_is_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError):
        zone_named(name, ZoneInfo)
