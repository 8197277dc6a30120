"""What a build adds to the package: the manual page, drawn from the command tree."""

import os
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPage(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        sys.path.insert(0, os.path.join(self.root, "src"))
        from alpacli.cli.manual import manual
        from alpacli.cli.tree import load

        page = os.path.join(self.directory, "alpacli.1")
        os.makedirs(self.directory, exist_ok=True)
        with open(page, "w", encoding="utf-8") as file:
            file.write(manual(load(), self.metadata.version))
        build_data["shared_data"][page] = "share/man/man1/alpacli.1"
