"""Where a gateway may listen."""

import pytest

from alpacli.errors import ConfigError, UsageError
from alpacli.gateway.serving import Place, check_place


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine_needs_no_protection(host: str) -> None:
    assert check_place(Place(host)).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "::ffff:10.0.0.1"])
def test_any_other_address_needs_tls_or_a_proxy(host: str) -> None:
    with pytest.raises(ConfigError, match="in the clear"):
        check_place(Place(host))
    check_place(Place(host, tls_cert="cert.pem", tls_key="key.pem"))
    check_place(Place(host, behind_proxy=True))


@pytest.mark.parametrize("place", [Place("example.com"), Place(""), Place(tls_cert="c"), Place(tls_key="k")])
def test_what_makes_no_sense_is_refused(place: Place) -> None:
    with pytest.raises(UsageError):
        check_place(place)
