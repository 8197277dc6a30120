"""What a build adds to the package: the manual page, drawn from the command tree."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPage(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        sys.path.insert(0, str(Path(self.root) / "src"))
        from alpacli.cli.manual import manual
        from alpacli.cli.tree import load

        self._page.parent.mkdir(parents=True, exist_ok=True)
        self._page.write_text(manual(load(), self.metadata.version), encoding="utf-8")
        self._page.chmod(0o644)  # whoever builds: the mode is in the wheel
        build_data["shared_data"][str(self._page)] = "share/man/man1/alpacli.1"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.target_name == "wheel":
            self._page.unlink()

    @property
    def _page(self) -> Path:
        return Path(self.directory) / "alpacli.1"
