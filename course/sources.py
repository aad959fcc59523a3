"""Finds in the source what a name stands for: the tutorial quotes it, the handout takes it out."""

import ast
import re
import textwrap
from pathlib import Path

BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.S | re.M)  # of a Markdown text
SOLUTION = re.compile(r"<!-- solution -->.*?<!-- /solution -->\n*", re.S)


def blocks(text):
    """The code blocks of a Markdown text as (kind, body): kind is the first line's words."""
    return [(match["info"].split(), match["body"]) for match in BLOCK.finditer(text)]


def find(text, name):
    """The node that defines `name`, such as "TD3.learn", in a module's text.

    Raises ValueError if there is none.
    """
    node = ast.parse(text)
    for part in name.split("."):
        found = [child for child in node.body if _name(child) == part]
        if not found:
            raise ValueError(f"there is no {name} here")
        node = found[0]
    return node


def _name(node):
    """The name that a statement gives, if it gives one."""
    if isinstance(node, ast.Assign):
        return getattr(node.targets[0], "id", None)
    return getattr(node, "name", None)


def quote(root, name, nodoc=False):
    """The source of "module:name" below the folder `root`, without its indentation."""
    module, _, name = name.partition(":")
    text = Path(root, module.replace(".", "/") + ".py").read_text(encoding="utf-8")
    node = find(text, name)
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    if nodoc and ast.get_docstring(node) is not None:
        doc = node.body[0]
        del lines[doc.lineno - first : doc.end_lineno - first + 1]
    return textwrap.dedent("\n".join(lines)) + "\n"


def requoted(text, root):
    """A Markdown text whose quotes are those of the source below the folder `root`."""

    def anew(match):
        kind = match["info"].split()
        names = [word.removeprefix("quote=") for word in kind if word.startswith("quote=")]
        if not names:
            return match[0]
        return f"```{match['info']}\n{quote(root, names[0], 'nodoc' in kind)}```"

    return BLOCK.sub(anew, text)


def span(text, name, parts=()):
    """The lines (first, end) of a function's body, without its docstring, as of a slice.

    With `parts`, of its statements that begin with one of them: one for each, side by side. Raises
    ValueError if that is not what is found.
    """
    node, lines = find(text, name), text.splitlines()
    if not parts:
        documented = ast.get_docstring(node) is not None
        first = node.body[0].end_lineno if documented else node.body[0].lineno - 1
        return first, node.end_lineno
    found = []
    for child in ast.walk(node):
        if isinstance(child, ast.stmt) and lines[child.lineno - 1].strip().startswith(parts):
            found.append(child)
    found.sort(key=lambda child: child.lineno)
    if len(found) != len(parts) or any(
        a.end_lineno + 1 != b.lineno for a, b in zip(found, found[1:])
    ):
        raise ValueError(f"{name} has not these statements side by side: {', '.join(parts)}")
    return found[0].lineno - 1, found[-1].end_lineno


def body(text, name, parts=()):
    """The lines in `span`."""
    first, end = span(text, name, parts)
    return text.splitlines()[first:end]


def emptied(text, name, parts=(), instead="pass"):
    """A module's text with one statement instead of what is in `span`."""
    first, end = span(text, name, parts)
    lines = text.splitlines(keepends=True)
    code = [line for line in lines[first:end] if line.strip()]
    indent = code[0][: len(code[0]) - len(code[0].lstrip())]
    lines[first:end] = [f"{indent}{instead}\n"]
    return "".join(lines)


def only_tests(text, names):
    """A test module's text with no other tests than these, and no helper that none of them needs.

    So it neither tests nor tells anything else.
    """
    tree, lines = ast.parse(text), text.splitlines()
    dropped = [node for node in tree.body if _is_test(node) and node.name not in names]
    while True:
        kept = [node for node in tree.body if node not in dropped]
        unused = [node for node in kept if _is_helper(node) and not _used(node, kept)]
        if not unused:
            break
        dropped += unused
    for node in sorted(dropped, key=lambda node: -node.lineno):
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        del lines[first - 1 : node.end_lineno]
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines).rstrip() + "\n")


def _is_test(node):
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def _is_helper(node):
    named = isinstance(node, (ast.FunctionDef, ast.ClassDef)) or _name(node)
    return bool(named) and not _is_test(node) and not getattr(node, "decorator_list", [])


def _used(node, others):
    """Whether one of some other statements reads the name that a statement gives."""
    parts = [part for other in others if other is not node for part in ast.walk(other)]
    return any(_name(node) == getattr(part, "id", None) for part in parts)
