"""What a build adds to the package: the manual page, and on demand the rules of the offline exchange compiled.

With ``ALPACLI_COMPILED=1`` in the environment mypyc turns the modules that every order passes through into C, and the wheel
holds them beside their source, for one platform and one version of Python. Without it nothing is compiled, and there is one
wheel for all. Both are the same program, and both are released; what it is worth: docs/adr/0021.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED = (
    *("answers", "book", "checks", "collateral", "contracts", "desk", "displacement", "engine", "entry", "events"),
    *("exchange", "halts", "hours", "ledger", "listing", "option_checks", "option_prices", "order_answers", "orders"),
    *("packages", "prices", "reports", "reserves", "settlement", "tape", "terms", "tickets"),
)
"""Modules of ``alpacli.sim``. Not ``premiums``: a C compiler may fuse its operations, and a cent would follow (ADR 11)."""


class Additions(BuildHookInterface):
    def dependencies(self) -> list[str]:
        return ["mypy>=1.18", "setuptools>=77"] if self._compiles else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        self._draw_manual(build_data)
        if self._compiles and version == "standard":
            self._compile(build_data)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.target_name == "wheel":
            self._page.unlink()
            shutil.rmtree(self._workshop, ignore_errors=True)

    def _draw_manual(self, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, str(Path(self.root) / "src"))
        from alpacli.cli.manual import manual
        from alpacli.cli.tree import load

        self._page.parent.mkdir(parents=True, exist_ok=True)
        self._page.write_text(manual(load(), self.metadata.version), encoding="utf-8")
        self._page.chmod(0o644)  # whoever builds: the mode is in the wheel
        build_data["shared_data"][str(self._page)] = "share/man/man1/alpacli.1"

    def _compile(self, build_data: dict[str, Any]) -> None:
        from setuptools import Distribution  # before mypyc, which takes what is there
        from mypyc.build import mypycify  # isort: skip

        made = self._workshop / "made"
        with contextlib.chdir(self.root):
            extensions = mypycify(
                [
                    *("--config-file=", f"--cache-dir={self._workshop / 'types'}"),
                    *("--ignore-missing-imports", "--follow-imports=silent"),
                    *(f"src/alpacli/sim/{name}.py" for name in COMPILED),
                ],
                opt_level="2",
                debug_level="0",
                separate=True,
                target_dir=str(self._workshop / "c"),
            )
            # So that a module's functions call each other directly, and not through the linker's table.
            directly = ["-fvisibility=hidden"] if os.name == "posix" else []
            for extension in extensions:
                extension.extra_compile_args += directly
            distribution = Distribution({"name": "alpacli", "ext_modules": extensions})
            command = distribution.get_command_obj("build_ext")
            command.build_lib, command.build_temp = str(made), str(self._workshop / "objects")
            command.parallel = os.cpu_count()
            command.ensure_finalized()
            command.run()
        for library in sorted(path for path in made.rglob("*") if path.is_file()):
            build_data["force_include"][str(library)] = library.relative_to(made).as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    @property
    def _compiles(self) -> bool:
        return os.environ.get("ALPACLI_COMPILED") == "1"

    @property
    def _page(self) -> Path:
        return Path(self.directory) / "alpacli.1"

    @property
    def _workshop(self) -> Path:
        return Path(self.directory) / "compiling"
