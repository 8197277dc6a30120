"""Ending a hub that stands still, where another stream may have been quicker."""

import socket
import tempfile
from pathlib import Path

from alpacli.streams.local import end_hub


def test_a_connection_that_is_closed_by_now_leads_to_no_hub() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder) / "hub.sock")
        listener.bind(path)
        listener.listen()
        member = socket.socket(socket.AF_UNIX)
        member.connect(path)
        member.close()
        end_hub(member)


def test_a_process_never_ends_itself() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder) / "hub.sock")
        listener.bind(path)
        listener.listen()
        with socket.socket(socket.AF_UNIX) as member:
            member.connect(path)
            end_hub(member)
