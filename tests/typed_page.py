"""Prints docs/python.md as functions, one a block, for mypy: whoever copies from it gets types that fit.

python -m tests.typed_page > page.py
"""

import ast
from pathlib import Path
from textwrap import indent

from tests.support.kitchen import blocks

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def main() -> None:
    imports: list[str] = []
    values: dict[str, str] = {}
    for number, block in enumerate(blocks(PAGE)):
        tree = ast.parse(block.text)
        own = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        imports += [ast.unparse(node) for node in own]
        before = [values[name] for name in _names(tree) if name in values]
        print(f"async def block_{number}() -> None:")
        print(indent("\n".join(dict.fromkeys([*imports, *before, block.text])), "    "))
        imported = {alias.name for line in imports for node in ast.walk(ast.parse(line)) for alias in _aliases(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and set(_names(node.value)) <= imported:
                values |= {name: ast.unparse(node) for target in node.targets for name in _names(target)}


def _names(tree: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _aliases(node: ast.AST) -> list[ast.alias]:
    return node.names if isinstance(node, ast.Import | ast.ImportFrom) else []


if __name__ == "__main__":
    main()
