"""Who fetches for everybody: a short lease in the store, renewed while its holder is alive."""

import threading
from collections.abc import Callable
from typing import Final

from alpacli.errors import AlpacliError

LEASE_S: Final = 3.0
"""A fetcher that was killed is replaced after this long; one that is alive renews (see ``Heartbeat``)."""


class Heartbeat:
    """Renews a lease from a thread, from ``start`` for as long as its holder is alive and working.

    ``start`` belongs inside the ``try`` that ends with ``stop``: a Ctrl-C between the two would leave a thread that keeps
    the lease for ever. A thread, because the holder itself may sit in a socket for ten seconds; it dies with the process,
    and so does the lease.
    """

    def __init__(self, renew: Callable[[], bool]) -> None:
        self._renew = renew
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alpacli-lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(LEASE_S / 3):
            try:
                if not self._renew():
                    return
            except AlpacliError:
                return  # the store is gone: the lease lapses by itself, and publishing will report it

    def stop(self) -> None:
        """End the renewing; also when it never began, or was interrupted while it did."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
