"""Rules about the shape of the code that neither ruff nor mypy knows.

Each test lists every offence at once. The rules and their reasons are in CONTRIBUTING.md.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOOR = ("serving.core", "serving.store", "serving.formats")
MODULE_LINES = 300
TEST_LINES = 600
EXCUSE = "Long because"

# Libraries with few places each; all others of ours reach them through those.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "coremltools": ("serving.formats.core_ml", "serving.formats.outline_core_ml", "flows.translation"),
    "evidently": ("flows",),
    "grpc": ("serving.rpc",),
    "matplotlib": ("flows.catalog.plot", "flows.rollout.plot"),
    "mlflow": ("flows",),
    "onnx": ("serving.formats", "flows.translation"),
    "onnxruntime": ("serving.formats.onnx_runtime",),
    "pandas": ("flows",),
    "prefect": ("flows",),
    "prometheus_client": ("serving.telemetry",),
    "pynvml": ("serving.telemetry.machine",),
    "supervisor": ("flows.cli",),
    "torch": ("serving.formats",),
    "tritonclient": ("flows.cli",),
    "typer": ("flows.cli",),
}
# Seconds of import time and hundreds of megabytes that a restarting server must not pay for.
NOT_AT_STARTUP = ("coremltools", "evidently", "grpc", "mlflow", "pandas", "prefect", "torch")

EMPTY_WORDS = {
    "manager",
    "helper",
    "helpers",
    "util",
    "utils",
    "handler",
    "service",
    "impl",
    "common",
    "misc",
}
EMPTY_FIRST_WORDS = {"base", "abstract"}
EMPTY_LAST_WORDS = {"data", "info"}


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed source file; `name` is dotted, a package's own file carries the package's name."""

    path: Path
    name: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""

    def lines(self) -> int:
        return len(self.path.read_text().splitlines())

    def imports(self) -> Iterator[tuple[str, int]]:
        """Dotted names imported anywhere in the file, inside functions too, with their line."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(node)
                yield source, node.lineno
                yield from ((f"{source}.{alias.name}", node.lineno) for alias in node.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        package = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        kept = package[: len(package) - node.level + 1]
        return ".".join([*kept, node.module] if node.module else kept)


@cache
def _modules(folder: str) -> tuple[Module, ...]:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(path, name, ast.parse(path.read_text(), str(path))))
    return tuple(found)


def _ours() -> tuple[Module, ...]:
    return _modules("serving") + _modules("flows")


def _within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _layer_offence(importer: str, imported: str) -> str | None:
    """Why `importer` may not import `imported`, both dotted names of ours."""
    allowed: tuple[str, ...]
    if _within(importer, "flows"):
        allowed, rule = ("flows", *FLOOR), f"flows imports only {', '.join(FLOOR)} from serving"
    elif _within(importer, "serving.core"):
        allowed, rule = ("serving.core",), "serving.core is the lowest layer"
    elif _within(importer, "serving.store"):
        allowed, rule = ("serving.core", "serving.store"), "serving.store imports only serving.core"
    elif _within(importer, "serving.formats"):
        allowed, rule = ("serving.core", "serving.formats"), "serving.formats imports only serving.core"
    else:
        allowed, rule = ("serving",), "serving never imports flows"
    # `from serving import core` names the package first; the second name decides.
    return None if imported == "serving" or _within(imported, *allowed) else rule


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        pytest.param("serving.core.model", "serving.core.clock", True, id="within core"),
        pytest.param("serving.core.model", "serving.store.audit", False, id="core up to store"),
        pytest.param("serving.store.audit", "serving.core.clock", True, id="store down to core"),
        pytest.param("serving.store.audit", "serving.formats.loader", False, id="store across to formats"),
        pytest.param("serving.formats.loader", "serving.store.audit", False, id="formats across to store"),
        pytest.param("serving.store.audit", "serving.settings", False, id="store up to the rest"),
        pytest.param("serving.app", "serving.formats.loader", True, id="the rest down to formats"),
        pytest.param("serving.app", "flows.settings", False, id="serving to flows"),
        pytest.param("flows.promote", "serving.store.audit", True, id="flows to the floor"),
        pytest.param("flows.promote", "serving.router", False, id="flows past the floor"),
        pytest.param("flows.promote", "serving.storehouse", False, id="a name that only begins alike"),
    ],
)
def test_layer_rule_holds_when_tabulated(importer: str, imported: str, allowed: bool) -> None:
    """The rule that the next test applies says what is meant on both sides of each border."""
    assert (_layer_offence(importer, imported) is None) is allowed


def test_imports_point_downwards_when_parsed() -> None:
    """No import of ours, function-level ones included, goes against the layers."""
    offences = [
        f"{module.name}:{line} imports {imported}: {rule}"
        for module in _ours()
        for imported, line in module.imports()
        if _within(imported, "serving", "flows")
        and (rule := _layer_offence(module.name, imported)) is not None
    ]
    assert offences == []


def test_core_needs_only_arrays_when_parsed() -> None:
    """The lowest layer uses the standard library and array types, nothing else."""
    allowed = sys.stdlib_module_names | {"serving", "numpy", "ml_dtypes"}
    offences = [
        f"{module.name}:{line} imports {imported}"
        for module in _modules("serving/core")
        for imported, line in module.imports()
        if imported.split(".")[0] not in allowed
    ]
    assert offences == []


def test_libraries_stay_in_their_place_when_parsed() -> None:
    """A library with listed places is imported nowhere else in the packages."""
    offences = [
        f"{module.name}:{line} imports {imported}, which belongs to {' or '.join(places)}"
        for module in _ours()
        for imported, line in module.imports()
        if (places := ONLY_IN.get(imported.split(".")[0])) is not None and not _within(module.name, *places)
    ]
    assert offences == []


def test_serving_starts_light_when_its_app_is_imported() -> None:
    """Importing the application loads none of the libraries that cost seconds and megabytes."""
    program = (
        "import sys, serving.app, serving.__main__; print(*{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert sorted(set(run.stdout.split()) & set(NOT_AT_STARTUP)) == []


def _words(name: str) -> list[str]:
    """The words of a snake_case or CamelCase name, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _says_nothing(name: str) -> bool:
    words = _words(name)
    return bool(words) and (not EMPTY_WORDS.isdisjoint(words) or words[0] in EMPTY_FIRST_WORDS)


def _class_says_nothing(name: str) -> bool:
    return _says_nothing(name) or _words(name)[-1] in EMPTY_LAST_WORDS


@pytest.mark.parametrize(
    ("name", "empty"),
    [
        pytest.param("AlertManager", True, id="word at the end"),
        pytest.param("BaseLoader", True, id="word at the front"),
        pytest.param("ModelInfo", True, id="last word"),
        pytest.param("http_utils", True, id="snake case"),
        pytest.param("LeaseImpl", True, id="implementation"),
        pytest.param("Database", False, id="only part of a word"),
        pytest.param("Utilisation", False, id="longer word"),
        pytest.param("InfoLine", False, id="info not last"),
    ],
)
def test_name_rule_holds_when_tabulated(name: str, empty: bool) -> None:
    """The rule that the next test applies sees words, not letters."""
    assert _class_says_nothing(name) is empty


def test_names_say_something_when_parsed() -> None:
    """No module or class is named with a word that fits anything."""
    offences = [f"module {module.name}" for module in _ours() if _says_nothing(module.name.split(".")[-1])]
    offences += [
        f"{module.name}:{node.lineno} class {node.name}"
        for module in _ours()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and _class_says_nothing(node.name)
    ]
    assert offences == []


def test_files_shadow_nothing_when_listed() -> None:
    """No file bears the name of a standard library or dependency module."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    taken = {re.split(r"[\[=<>~!]", name)[0].lower().replace("-", "_") for name in wanted}
    taken |= sys.stdlib_module_names
    assert [m.name for m in _ours() if not m.path.name.startswith("__") and m.path.stem in taken] == []


def test_server_folder_holds_no_python_when_listed() -> None:
    """A Python file under mlflow/ could stand in for the installed package of that name."""
    assert sorted((ROOT / "mlflow").rglob("*.py")) == []


def test_modules_stay_short_when_counted() -> None:
    """A longer module is split, or its docstring says why not in a sentence with the excuse's words."""
    offences = [
        f"{module.name}: {module.lines()} lines; split it or write '{EXCUSE} ...' in its docstring"
        for folder, limit in (("serving", MODULE_LINES), ("flows", MODULE_LINES), ("tests", TEST_LINES))
        for module in _modules(folder)
        if module.lines() > limit and EXCUSE not in module.docstring
    ]
    assert offences == []


def test_modules_introduce_themselves_when_parsed() -> None:
    """Every module that holds anything begins by saying what it is for."""
    modules = _ours() + _modules("tests")
    assert [module.name for module in modules if module.tree.body and not module.docstring] == []


def _dotted(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def test_tests_wait_on_conditions_when_parsed() -> None:
    """No test sleeps: it waits on a condition with a deadline. Yielding to the loop is not sleeping."""
    offences = []
    for module in _modules("tests"):
        offences += [f"{module.name}:{line}" for name, line in module.imports() if name == "time.sleep"]
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and _dotted(node.func) in ("time.sleep", "asyncio.sleep"):
                yields = [ast.unparse(argument) for argument in node.args] == ["0"]
                offences += [] if yields else [f"{module.name}:{node.lineno}"]
    assert offences == []


def test_environment_is_read_in_settings_when_parsed() -> None:
    """Only modules named settings read or hand on the environment."""
    reading = {"os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv"}
    offences = []
    for module in _ours():
        if module.path.name == "settings.py":
            continue
        offences += [f"{module.name}:{line}" for name, line in module.imports() if name in reading]
        offences += [
            f"{module.name}:{node.lineno}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute) and _dotted(node) in reading
        ]
    assert offences == []
