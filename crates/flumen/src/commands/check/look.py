"""Looks whether sources can be read by this Python, and whether the functions that are named are there.

Reads a JSON list of {"text", "body", "function"} and prints a list of the same length: null, or what is wrong.
"""

import ast
import json
import sys


def bound(body):
    """The names that a module has once it was run; None where that cannot be told."""
    names = set()
    for node in ast.walk(ast.Module(body=[shallow(statement) for statement in body], type_ignores=[])):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            if node.name == "*":
                return None
            names.add((node.asname or node.name).split(".")[0])
    return names


def shallow(node):
    """Without what stands in functions and classes: those names are theirs."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        node.body = []
        return node
    for field in ("body", "orelse", "finalbody"):
        if isinstance(getattr(node, field, None), list):
            setattr(node, field, [shallow(one) for one in getattr(node, field)])
    for handler in getattr(node, "handlers", []):
        handler.body = [shallow(one) for one in handler.body]
    return node


def look(text, body, function):
    # The body of a function may return.
    source = "async def body():\n" + "".join(f" {line}" for line in text.splitlines(True)) if body else text
    try:
        module = ast.parse(source)
    except SyntaxError as error:
        # A function of its own adds a line above, and a column.
        line, column = (error.lineno or 1) - body, max((error.offset or 1) - body, 1)
        return {"line": max(line, 1), "column": column, "message": error.msg}
    except ValueError as error:
        return {"line": 1, "column": 1, "message": str(error)}
    names = bound(module.body) if function else None
    if names is not None and function not in names:
        return {"functions": sorted(names)}
    return None


print(json.dumps([look(**one) for one in json.load(sys.stdin)]))
