"""Every text that skte can show, in the order of the files: python docs/_messages.py > FILE.

To be read in one sitting before a release. Values appear as {expression}.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

_SHORTEST = 25  # characters, and one space: names, keys and formats are no messages


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of every literal but docstrings; an f-string is one text."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, ast.unparse(node)[2:-1]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        else:
            yield from texts(node)


def main() -> None:
    """Print the texts of each file below its name."""
    package = Path(__file__).parents[1] / "skte"
    for path in sorted(package.rglob("*.py")):
        found = [
            f"{line:5}  {' '.join(text.split())}"
            for line, text in texts(ast.parse(path.read_text("utf-8")))
            if len(text) >= _SHORTEST and " " in text.strip()
        ]
        if found:
            print(f"\n{path.relative_to(package.parent)}", *found, sep="\n")


if __name__ == "__main__":
    main()
