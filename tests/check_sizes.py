"""The size budget, a smell detector: at most 300 code lines per file and 60 per function (`make lint` runs it).

Code lines are those that are neither blank, nor comment, nor docstring.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_BUDGET, FUNCTION_BUDGET = 300, 60
EXCEPTIONS: dict[str, str] = {}  # path or path:function -> the reason it may be longer


def code_lines(tree: ast.AST, source: list[str]) -> set[int]:
    """Numbers of the lines of `tree` that hold code."""
    docs: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docs |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    first = getattr(tree, "lineno", 1)
    last = getattr(tree, "end_lineno", len(source))
    lines = {n for n in range(first, last + 1) if (text := source[n - 1].strip()) and not text.startswith("#")}
    return lines - docs


def over_budget(path: Path) -> list[str]:
    text = path.read_text()
    tree, source, name = ast.parse(text), text.splitlines(), str(path.relative_to(ROOT))
    sizes = [(name, len(code_lines(tree, source)), FILE_BUDGET)]
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    sizes += [(f"{name}:{f.name}", len(code_lines(f, source)), FUNCTION_BUDGET) for f in functions]
    return [
        f"{what}: {size} code lines, budget {budget}"
        for what, size, budget in sizes
        if size > budget and what not in EXCEPTIONS
    ]


def main() -> int:
    folders = ("trt_blendmask", "samples", "tests", "benchmarks")
    problems = [p for folder in folders for file in sorted((ROOT / folder).rglob("*.py")) for p in over_budget(file)]
    print("\n".join(problems) or "sizes: all within budget")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
