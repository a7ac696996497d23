"""Lazy targets, `module:attribute`: what can be known of them without importing anything.

Listing reads the first docstring line of every component from its source, so that no listing ever waits for torch.
"""

import ast
import re
import shlex
import sys
from importlib import metadata
from importlib.machinery import ModuleSpec

SHAPE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

# Modules whose distribution has another name; the pack's own requirements are in distribution names.
_DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}


def split(target: str) -> tuple[str, str]:
    """Module and attribute of a target."""
    module, _, attribute = target.partition(":")
    return module, attribute


def locate(module: str) -> ModuleSpec | None:
    """Where `module` would be imported from; unlike importlib.util.find_spec, its parents are not imported either.

    Raises LookupError when that cannot be told (a namespace package inside one that is not imported).
    """
    name, path, spec = "", None, None
    for part in module.split("."):
        if name and path is None:
            return None  # the parent is a module, not a package
        name = f"{name}.{part}" if name else part
        if name != module and (known := getattr(sys.modules.get(name), "__path__", None)) is not None:
            path = list(known)  # a package that is imported already need not be looked for
            continue
        spec = next((s for finder in sys.meta_path if (s := finder.find_spec(name, path))), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def source(module: str) -> str | None:
    """The source text of `module`, or None when it has none (missing, compiled, not decodable)."""
    try:
        spec = locate(module)
        return spec.loader.get_source(spec.name) if spec else None
    except (AttributeError, ImportError, LookupError, OSError, SyntaxError):
        return None


def docstring(target: str) -> str:
    """The docstring of a top-level class or function, from its source; empty when there is none to be found."""
    module, attribute = split(target)
    text = source(module)
    node = _definition(text, attribute) if text else None
    return (ast.get_docstring(node) or "") if node else ""


def missing(target: str) -> str | None:
    """Why `target` cannot be imported, as far as its source tells; None when nothing speaks against it."""
    module, attribute = split(target)
    name = attribute.partition(".")[0]
    if module in sys.modules:
        return None if hasattr(sys.modules[module], name) else f"module {module!r} has no {name!r}"
    try:
        spec = locate(module)
    except LookupError:
        return None
    if spec is None:
        return f"there is no module {module!r}"
    return _missing_name(module, name)


def line_of(module: str, name: str) -> str | None:
    """`file:line` of the first line of `module` that assigns or defines `name` at its top level, or the file alone."""
    try:
        spec = locate(module)
    except LookupError:
        return None
    if spec is None or not spec.has_location:
        return None
    found = re.search(rf"^(?:def |class )?{re.escape(name)}\b", source(module) or "", re.MULTILINE)
    return f"{spec.origin}:{found.string.count(chr(10), 0, found.start()) + 1}" if found else spec.origin


def pip_install(module: str, distribution: str) -> str:
    """The command that installs `module`: the extra or the requirement of `distribution` that names it, if any does."""
    wanted = _DISTRIBUTIONS.get(module.partition(".")[0], module.partition(".")[0])
    for requirement in _requirements(distribution):
        name = re.match(r"[\w.-]+", requirement)
        if name and canonical(name[0]) == canonical(wanted):
            extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
            wanted = f"{distribution}[{extra[1]}]" if extra else requirement.partition(";")[0].strip()
            break
    return f"pip install {shlex.quote(wanted)}"


def canonical(name: str) -> str:
    """The normal form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(distribution: str) -> list[str]:
    try:
        return metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []


def _definition(text: str, name: str) -> ast.AST | None:
    """The class or function `name`, parsed alone: parsing whole files would double the time of a listing."""
    start = re.search(rf"^(?:async def|def|class)[ \t]+{re.escape(name)}\b", text, re.MULTILINE)
    if start is None:
        return None
    end = re.compile(r"^[^\s#)\]}]", re.MULTILINE).search(text, start.end())
    for block in (text[start.start() : end.start() if end else len(text)], text[start.start() :]):
        try:
            return ast.parse(block).body[0]
        except (SyntaxError, ValueError):  # a string in it has text in the first column: take the rest of the file
            continue
    return None


def _missing_name(module: str, name: str) -> str | None:
    text = source(module)
    if text is None:
        return None
    try:
        names = _top_level_names(ast.parse(text))
    except (SyntaxError, ValueError) as error:
        return f"module {module!r} does not parse (line {getattr(error, 'lineno', '?')})"
    known = not names & {"*", "__getattr__", "globals"}  # else names may appear that the source does not spell
    return f"module {module!r} has no {name!r}" if known and name not in names else None


def _top_level_names(tree: ast.Module) -> set[str]:
    """Names bound outside functions and classes; `*` for a star import."""
    names, nodes = set(), list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        if isinstance(node, ast.Name) and (isinstance(node.ctx, ast.Store) or node.id == "globals"):
            names.add(node.id)
        nodes.extend(ast.iter_child_nodes(node))
    return names
