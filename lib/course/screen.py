"""What a student's code says without being run: is it an answer, whose code is it, what should be looked at."""

import ast

from lib.course.questions import bound

LONGEST = 50_000  # characters of one cell
# Words in code that answers no question of a chapter, and that the grader cannot defend itself against in full.
SUSPICIOUS = {
    "os", "sys", "gc", "ctypes", "subprocess", "signal", "socket", "threading", "multiprocessing", "importlib",
    "inspect", "pickle", "shutil", "builtins", "atexit", "eval", "exec", "compile", "globals", "setattr", "delattr",
    "__import__", "__subclasses__", "__code__", "__globals__", "__builtins__", "__closure__", "__mro__", "__del__",
    "__eq__", "__ne__", "__bool__", "__le__", "__ge__", "__lt__", "__gt__", "__torch_function__", "__array_function__",
    "__array_ufunc__", "__instancecheck__", "_getframe", "currentframe", "write_text", "write_bytes", "savetxt", "mmap"}
METHODS = {"eval", "compile", "inspect"}  # of networks and others: harmless after a dot
WRITING = set("wax+")


def parsed(source: str) -> ast.Module | str:
    """The code as a tree, or what is wrong with it in one line."""
    if len(source) > LONGEST:
        return f"longer than {LONGEST} characters"
    try:
        return ast.parse(source)
    except SyntaxError as error:
        return f"SyntaxError: {error.msg} (line {error.lineno} of the cell)"
    except (ValueError, MemoryError, RecursionError) as error:
        return f"{type(error).__name__}: it cannot be read as Python"


def plain(source: str) -> str:
    """The source without IPython's commands: lines that begin with % or ! become comments."""
    return "\n".join("#" + line if line[:1] in ("%", "!") else line for line in source.split("\n"))


def same(one: str, other: str) -> bool:
    """Whether two sources differ by nothing but blank lines and spaces at line ends."""
    def lines(source: str) -> list[str]:
        """The lines that say something."""
        return [line.rstrip() for line in source.split("\n") if line.strip()]
    return lines(one) == lines(other)


def from_lib(sources: list[str]) -> set[str]:
    """The names under which a chapter has modules of lib and what it imports from them."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
                found |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.asname or "lib" for alias in node.names if alias.name.split(".")[0] == "lib"}
    return found


def _loads(tree: ast.AST) -> set[str]:
    """The names that code reads, anywhere in it."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _imported(tree: ast.AST) -> set[str]:
    """The modules of lib that code imports itself, as 'lib.attacks'."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "lib"}


def borrowed(answer: str, own: list[str], solution: str, lib: set[str]) -> set[str]:
    """What of lib an answer uses, itself or through the student's own cells, and our solution does not.

    lib: the names that the chapter has from lib (`from_lib`). Names reached by tricks such as getattr are not seen.
    """
    pieces = [node for source in own if isinstance(tree := parsed(plain(source)), ast.Module) for node in tree.body]
    defines = [(bound(ast.Module([node], [])), node) for node in pieces]
    tree, ours = ast.parse(answer), ast.parse(solution)
    trees, todo, seen = [tree], [*_loads(tree)], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for names, node in defines:
            if name in names:
                trees.append(node)
                todo += _loads(node)
    renamed = {alias.asname for node in trees for part in ast.walk(node)
               if isinstance(part, ast.Import | ast.ImportFrom) for alias in part.names}
    used = ((seen & lib) - renamed) | {name for part in trees for name in _imported(part)}
    return used - _loads(ours) - _imported(ours)


def suspicious(source: str) -> list[str]:
    """Words of the code that an instructor should look at, in order of the alphabet."""
    tree = parsed(plain(source))
    if isinstance(tree, str):
        return []
    found = set()
    for node in ast.walk(tree):
        words = {getattr(node, "id", None), getattr(node, "name", None)} | {getattr(node, "attr", None)} - METHODS
        if isinstance(node, ast.ImportFrom):
            words.add((node.module or "").split(".")[0])
        words |= {word.split(".")[0] for word in words if isinstance(word, str)}
        found |= words & SUSPICIOUS
        if isinstance(node, ast.Global):
            found.add("global")
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "open":
            given = [*node.args[1:], *(word.value for word in node.keywords)]
            if any(not isinstance(mode, ast.Constant) or WRITING & set(str(mode.value)) for mode in given):
                found.add("open to write")
    return sorted(found)
