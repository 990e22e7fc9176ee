"""House rules as tests. Each rule is a function from text to faults, and is shown to find one."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from torghut.config import Settings
from torghut.domain.events import EventKind
from torghut.domain.limits import LIMITS
from torghut.domain.risk_policy import SWITCHES
from torghut.recovery_points import RecoveryPoint

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "torghut"
MODULE_LINES = 400
FUNCTION_LINES = 60

BANNED_FILES = {"utils", "util", "helpers", "helper", "manager", "managers", "common"}
BANNED_WORDS = re.compile(r"(?:^|_)(?:managers?|helpers?|utils?|process_data|handle_stuff)(?:_|$)")
TWO_L = re.compile(r"cancel" + r"led", re.I)
THEIR_TWO_L = {"CancelledError", "cancelled"}  # names of the standard library
THEIR_NAMES = {"proxy_manager_for"}  # overrides of requests.adapters.HTTPAdapter
LATER = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME)\b")
BARE_IGNORE = re.compile(r"type:\s*ignore(?!\[)")
ADDRESS = re.compile(r"(?:https?|ftp|file|git\+\w+|ssh)://(?P<host>[^\s/:'\"]*)")
HOSTS_NOT_OF_DOWNLOADS = re.compile(
    r"127\.0\.0\.1|localhost|(?:[\w-]+\.)*alpaca\.markets|simulator|prometheus"  # services of ours
)
WORKPLACE = re.compile(r"(?<![\w.])/(?:work|root|home|Users)/\w")

Faults = list[str]
Rule = Callable[[str], Faults]


# ---------------------------------------------------------------------- what is looked at


@cache
def project_files() -> tuple[Path, ...]:
    """Files that are, or would be, under version control; without git all but what is made."""
    asked = ["git", "-C", str(ROOT), "ls-files", "-z", "-c", "-o", "--exclude-standard"]
    try:
        answer = subprocess.run(asked, capture_output=True, check=True, text=True).stdout
        found = [ROOT / name for name in answer.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        made = re.compile(r"/(?:\.venv|\.git|\.\w+_cache|\.hypothesis|__pycache__|build|dist)/")
        found = [p for p in ROOT.rglob("*") if not made.search(p.as_posix())]
    return tuple(sorted(path for path in found if path.is_file()))


def python_files(folder: Path) -> list[Path]:
    """Python files below `folder`."""
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the project."""
    for path in project_files():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def check(rule: Rule, files: list[Path]) -> None:
    """Fail with every fault that `rule` finds in `files`."""
    assert files, "no files: the rule would hold of nothing"
    found = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in files
        for fault in rule(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


# ---------------------------------------------------------------------- rules of the text


def long_module(source: str) -> Faults:
    """A module has under MODULE_LINES lines."""
    lines = len(source.splitlines())
    return [f"{lines} lines, under {MODULE_LINES} wanted"] if lines >= MODULE_LINES else []


def long_function(source: str) -> Faults:
    """A function has under FUNCTION_LINES lines."""
    return [
        f"{node.name} (line {node.lineno}) has {length} lines, under {FUNCTION_LINES} wanted"
        for node in functions(ast.parse(source))
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) >= FUNCTION_LINES
    ]


def banned_identifier(source: str) -> Faults:
    """No name that says nothing: manager, helper, utils, process_data, handle_stuff."""
    return [
        f"{name} (line {line}) is no name that says what it is"
        for name, line in defined_names(ast.parse(source))
        if name not in THEIR_NAMES and BANNED_WORDS.search(words_of(name))
    ]


def words_of(name: str) -> str:
    """Words of a name, lower case, with an underscore between them; Python's own term goes."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return snake.replace("context_manager", "context")


def defined_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that the module gives: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def two_l(source: str) -> Faults:
    """canceled has one l; comments may quote others, and names of Python's own stay."""
    return [
        f"line {token.start[0]}: {token.string[:60]!r}"
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type != tokenize.COMMENT
        and TWO_L.search(token.string)
        and not (token.type == tokenize.NAME and token.string in THEIR_TWO_L)
    ]


def bare_ignore(source: str) -> Faults:
    """An ignored type error says which one."""
    return [
        f"line {token.start[0]}: {token.string}"
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and BARE_IGNORE.search(token.string)
    ]


def put_off(text: str) -> Faults:
    """Nothing is put off in the code: an issue is the place for it."""
    return [f"has {match.group()}" for match in LATER.finditer(text)]


def download_address(text: str) -> Faults:
    """No address to download from: where packages come from is the installer's own setting."""
    return [
        match.group()
        for match in ADDRESS.finditer(text)
        if not HOSTS_NOT_OF_DOWNLOADS.fullmatch(match["host"])
    ]


def workplace(text: str) -> Faults:
    """No path of somebody's home or workplace."""
    return [f"names {match.group()}…" for match in WORKPLACE.finditer(text)]


# ---------------------------------------------------------------------- rules of documentation


@cache
def port_methods() -> frozenset[str]:
    """Methods documented at the port they implement."""
    tree = ast.parse((PACKAGE / "ports.py").read_text(encoding="utf-8"))
    return frozenset(
        method.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and "Protocol" in names(node.bases)
        for method in functions(node)
    )


def names(nodes: list[ast.expr]) -> set[str]:
    """The last names of the expressions."""
    return {ast.unparse(node).split("[")[0].split(".")[-1] for node in nodes}


def undocumented(source: str) -> Faults:
    """Public functions, classes and methods have docstrings.

    Not asked of: private and dunder names, methods of a Protocol, methods of a class with a base
    (which may be overrides), implementations of a port, methods of one statement, nested functions.
    """
    tree = ast.parse(source)
    faults = [] if ast.get_docstring(tree) or not tree.body else ["the module has no docstring"]
    for node in tree.body:
        faults += _undocumented(node, "")
        if isinstance(node, ast.ClassDef) and not node.bases and not node.name.startswith("_"):
            for member in node.body:
                faults += _undocumented(member, f"{node.name}.", port_methods())
    return faults


def _undocumented(node: ast.stmt, prefix: str, exempt: frozenset[str] = frozenset()) -> Faults:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return []
    if node.name.startswith("_") or node.name in exempt or ast.get_docstring(node):
        return []
    if prefix and isinstance(node, ast.FunctionDef) and len(node.body) == 1:
        return []
    return [f"{prefix}{node.name} (line {node.lineno}) has no docstring"]


# ---------------------------------------------------------------------- the tests


@pytest.mark.parametrize(
    "rule", [long_module, long_function, banned_identifier, two_l, undocumented]
)
def test_production_code(rule: Rule) -> None:
    """The rules of production code hold in every module."""
    check(rule, python_files(PACKAGE))


@pytest.mark.parametrize("rule", [banned_identifier, bare_ignore])
def test_all_code(rule: Rule) -> None:
    """The rules of all code hold in tests and migrations too."""
    check(rule, [f for d in ("torghut", "tests", "migrations") for f in python_files(ROOT / d)])


@pytest.mark.parametrize("rule", [put_off, workplace])
def test_all_texts(rule: Rule) -> None:
    """The rules of all texts hold in everything under version control."""
    check(rule, [path for path, _ in texts()])


def test_no_lock_or_configuration_file_holds_a_download_address() -> None:
    """Lock, build and deployment files name packages and hashes, never where to get them."""
    whole = {"constraints.txt", "pyproject.toml", "Makefile", ".ci/run", ".importlinter"}
    files = [
        path
        for path, _ in texts()
        if (name := path.relative_to(ROOT).as_posix()) in whole
        or path.suffix in {".toml", ".cfg", ".ini", ".lock"}
        or name.startswith("deploy/")
    ]
    assert whole <= {path.relative_to(ROOT).as_posix() for path in files}
    check(download_address, files)


def test_no_file_is_named_after_nothing() -> None:
    """A module is named after what is in it."""
    folders = [PACKAGE, ROOT / "tests", ROOT / "migrations"]
    found = [p for d in folders for p in python_files(d) if p.stem in BANNED_FILES]
    assert found == []


BAD: list[tuple[Rule, str]] = [
    (long_module, "x = 1\n" * MODULE_LINES),
    (long_function, "def f():\n" + "    x = 1\n" * (FUNCTION_LINES - 1)),
    (banned_identifier, "class OrderManager: ..."),
    (banned_identifier, "def process_data(): ..."),
    (banned_identifier, "string_utils = 1"),
    (two_l, "status = 'cancel" + "led'"),
    (two_l, "def is_cancel" + "led_now(): ..."),
    (bare_ignore, "x = y  # type: ignore"),
    (put_off, "# TO" + "DO: later"),
    (download_address, "--index-url https://mirror.example/simple"),
    (download_address, "x @ git+https://example.com/x"),
    (download_address, "find-links = file:///opt/x"),
    (workplace, "see /home" + "/someone/notes"),
    (undocumented, "def f(): ..."),
    (undocumented, '"""Doc."""\n\ndef f(): ...'),
    (
        undocumented,
        '"""Doc."""\n\nclass C:\n    """Doc."""\n    def f(self):\n        g()\n        h()',
    ),
]


@pytest.mark.parametrize(("rule", "text"), BAD, ids=[rule.__name__ for rule, _ in BAD])
def test_control_the_rule_finds_it(rule: Rule, text: str) -> None:
    """Control: a rule that finds nothing here would prove nothing above."""
    assert rule(text)


GOOD: list[tuple[Rule, str]] = [
    (banned_identifier, "from contextlib import contextmanager\n@contextmanager\ndef f(): ..."),
    (two_l, "# Alpaca writes cancel" + "led\nfuture.cancel" + "led()\n"),
    (bare_ignore, "x = y  # type: ignore[misc]"),
    (download_address, "http://127.0.0.1:8080 https://paper-api.alpaca.markets postgresql://h/d"),
    (workplace, "HOME=/root and /var/lib/torghut/home/x"),
    (undocumented, '"""Doc."""\n\nclass C:\n    """Doc."""\n    def f(self): return 1'),
    (undocumented, '"""Doc."""\n\nclass _C:\n    def f(self): ...\n\ndef _g(): ...'),
]


@pytest.mark.parametrize(("rule", "text"), GOOD, ids=[rule.__name__ for rule, _ in GOOD])
def test_control_the_rule_lets_it_pass(rule: Rule, text: str) -> None:
    """Control the other way round."""
    assert rule(text) == []


# ---------------------------------------------------------------------- no dead module


def module_name(path: Path) -> str:
    """Dotted name of a module of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def used_modules(path: Path) -> set[str]:
    """Names that `path` imports or, to start a module as a program, spells out in a string."""
    used: set[str] = set()
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            used |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used |= {node.value} if node.value.startswith("torghut.") else set()
    return used


def entry_points() -> set[str]:
    """Modules that are started from outside."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = list(project["scripts"].values())
    for group in project["entry-points"].values():
        named += group.values()
    return {reference.partition(":")[0] for reference in named}


LIBRARIES = {"torghut.client"}  # for other people's programs: a module of ours needs none


def test_no_module_is_dead() -> None:
    """Each module is used by another production module, or is an entry point."""
    files = python_files(PACKAGE)
    used = {
        name for path in files for name in used_modules(path) if name != module_name(path)
    } | entry_points()
    dead = [
        module_name(path)
        for path in files
        if path.name not in ("__init__.py", "__main__.py") and module_name(path) not in used
    ]
    assert sorted(set(dead) - LIBRARIES) == []


def test_every_entry_point_exists() -> None:
    """What pyproject.toml names is there."""
    known = {module_name(path) for path in python_files(PACKAGE)}
    assert entry_points() <= known


# ---------------------------------------------------------------------- README and Settings


def table_rows(heading: str) -> dict[str, list[str]]:
    """First cell (without its backticks) → other cells, of the tables under a README heading."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    level = heading.split(" ", 1)[0]
    assert f"\n{heading}\n" in text, f"README.md has no heading {heading!r}"
    section = text.split(f"\n{heading}\n", 1)[1]
    section = re.split(rf"^#{{1,{len(level)}}} ", section, maxsplit=1, flags=re.M)[0]
    rows: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
            rows[first.strip("`")] = rest
    return rows


def setting_names() -> dict[str, object]:
    """Outside name of each setting → its default."""
    found: dict[str, object] = {}
    for name, field in Settings.model_fields.items():
        if name in ("risk", "strategies", "sinks", "accounts", "intakes", "webhooks"):
            continue  # tables of the TOML file, described below the table
        alias = field.validation_alias
        default = field.get_default(call_default_factory=True)
        found[alias if isinstance(alias, str) else f"TORGHUT_{name.upper()}"] = default
    return found


def shown(default: object) -> str:
    """A default as the README writes it; what has none in code is described in words."""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


def test_readme_has_every_setting_with_its_default() -> None:
    """The README's table of settings and `Settings` say the same."""
    rows, settings = table_rows("## Settings"), setting_names()
    settings_rows = {name: row for name, row in rows.items() if name.isupper()}
    assert settings_rows.keys() == settings.keys()
    wrong = {
        name: rows[name][0]
        for name, default in settings.items()
        if default is not None and rows[name][0] != shown(default)
    }
    assert wrong == {}


def test_readme_has_every_limit_with_its_default_and_unit() -> None:
    """The README's tables of limits and switches and the code say the same."""
    rows = table_rows("### Risk limits")
    assert rows.keys() == {*LIMITS, *SWITCHES}
    for name, spec in LIMITS.items():
        default = "off" if spec.default is None else f"`{spec.default}`"
        assert rows[name][:2] == [default, spec.unit], name


def test_architecture_names_real_modules_points_and_events() -> None:
    """docs/architecture.md has real modules and every recovery point, docs/events.md every kind."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"`(?:torghut/)?([a-z_]+(?:/[a-z_]+)*\.py)`", text))
    assert modules
    assert [name for name in sorted(modules) if not (PACKAGE / name).is_file()] == []
    assert [name.value for name in RecoveryPoint if f"`{name.value}`" not in text] == []
    events = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    assert [kind.value for kind in EventKind if f"`{kind.value}`" not in events] == []
