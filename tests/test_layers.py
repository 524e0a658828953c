"""Imports run downwards only (docs/architecture.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAREC = sorted((ROOT / "marec_env").rglob("*.py"))

BOTTOM = ("marec_env.compiled", "marec_env.errors")  # anybody may import them
HIGHER = {  # module prefix -> what it may not import when Python loads it
    "marec_env.users": ("marec_env.pipeline", "marec_env.rewards", "marec_env.simulator"),
    "marec_env.catalog": (
        "marec_env.users",
        "marec_env.pipeline",
        "marec_env.rewards",
        "marec_env.simulator",
    ),
    "marec_env.data": (
        "marec_env.users",
        "marec_env.pipeline",
        "marec_env.rewards",
        "marec_env.simulator",
    ),
    "marec_env.embeddings": ("marec_env.pipeline", "marec_env.users", "marec_env.simulator"),
    "marec_env.text": ("marec_env.pipeline", "marec_env.users", "marec_env.simulator"),
    "marec_env.pipeline": ("marec_env.rewards", "marec_env.simulator", "marec_env.env"),
    "marec_env.rewards": ("marec_env.simulator", "marec_env.world", "marec_env.env"),
    "marec_env.config": ("marec_env.users", "marec_env.pipeline", "marec_env.data"),
    "marec_env.reporting": (
        "marec_env.data",
        "marec_env.evaluation",
        "marec_env.users",
        "marec_env.pipeline",
        "marec_env.simulator",
    ),
    "marec_env.compiled": ("marec_env.",),
    "marec_env.errors": ("marec_env.",),
    "marec_env.random": ("marec_env.",),
    "marec_env.simulator": ("marec_env.env", "marec_env.evaluation"),
    # The core does without the classic simulators and other libraries' views.
    "marec_env": ("marec_env.classic", "marec_env.adapters"),
}

AGENTS = sorted((ROOT / "agents").rglob("[a-z]*.py"))
ORDER = (  # packages of agents; each may import those before it only, anywhere in its files
    "learners",
    "baselines",
    "runs",
    "service",
    "comparison",
    "suite",
    "studies",
    "commands",
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def loaded(path: Path) -> set[str]:
    """Return what a file imports at module level, type-checking blocks left out."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("path", MAREC, ids=module_of)
def test_marec_env_imports_downwards(path: Path):
    imports = loaded(path)
    assert not {name for name in imports if name.split(".")[0] in ("agents", "ray", "wandb")}
    for place, forbidden in HIGHER.items():
        apart = module_of(path).startswith(("marec_env.classic", "marec_env.adapters"))
        if apart and place == "marec_env":
            continue
        if f"{module_of(path)}.".startswith(f"{place}."):
            wrong = {name for name in imports if name.startswith(forbidden)}
            wrong = {name for name in wrong if not name.startswith(BOTTOM)}
            assert not wrong, f"{module_of(path)} imports upwards: {sorted(wrong)}"


@pytest.mark.parametrize("path", MAREC, ids=module_of)
def test_models_of_language_are_met_where_text_is_made_only(path: Path):
    """Not even within a function."""
    if module_of(path).startswith(("marec_env.embeddings", "marec_env.text")):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            wrong = ("transformers", "tokenizers", "peft", "xllamacpp")
            assert not [name for name in names if name.split(".")[0] in wrong]


@pytest.mark.parametrize("path", AGENTS, ids=module_of)
def test_agents_import_downwards(path: Path):
    package = module_of(path).split(".")[1]
    above = ORDER[ORDER.index(package) + 1 :] if package in ORDER else ()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            wrong = [name for name in above if f"{node.module}.".startswith(f"agents.{name}.")]
            assert not wrong, f"{module_of(path)} imports upwards: {node.module}"


@pytest.mark.parametrize("path", [*MAREC, *AGENTS], ids=module_of)
def test_nobody_but_commands_imports_the_laboratory(path: Path):
    """Not even within a function: who reads the core does not meet the studies."""
    if module_of(path).startswith(("agents.studies", "agents.commands")):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        assert not [name for name in names if name.startswith("agents.studies")]


def test_importing_marec_env_is_light():
    code = "import marec_env, sys; print([m for m in ('ray', 'wandb', 'transformers', 'torch') "
    code += "if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_help_of_train_is_quick():
    """Nothing heavy is imported to answer --help."""
    command = [sys.executable, "-X", "importtime", "train.py", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"ray", "torch", "wandb", "transformers", "pydantic"}
