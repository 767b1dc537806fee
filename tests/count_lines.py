"""Lines of Python in plugins/ and the role, without blank lines, comments, docstrings and DOCUMENTATION, EXAMPLES, RETURN."""
from __future__ import annotations

import ast
import pathlib
import tokenize

TEXTS = ("DOCUMENTATION", "EXAMPLES", "RETURN", "TOKEN", "IDENTITY", "PEERS_TOKEN", "INFO")  # of modules and doc fragments
ROOT = pathlib.Path(__file__).resolve().parent.parent


def count(path: pathlib.Path) -> int:
    with tokenize.open(path) as handle:
        source = handle.read()
    lines = set()
    with open(path, "rb") as handle:
        for token in tokenize.tokenize(handle.readline):
            if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER):
                lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in TEXTS and isinstance(getattr(node.value, "value", None), str):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


if __name__ == "__main__":
    total = 0
    for path in sorted([*ROOT.glob("plugins/**/*.py"), *ROOT.glob("roles/**/*.py")]):
        total += (lines := count(path))
        print(f"{lines:6} {path.relative_to(ROOT)}")
    print(f"{total:6} in all")
