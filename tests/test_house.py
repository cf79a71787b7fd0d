"""The rules of the house that a machine can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What each room may not import: imports point downwards.
FLOORS = {
    "errors": 0, "disk": 0, "trace": 0, "decoding": 0, "decoding_process": 0, "images": 0, "network": 0, "capture": 0,
    "relations": 0, "overwriting": 0, "allocator": 0,
    "checkpoints": 1, "zoo": 1, "datasets": 1, "parameterizations": 1,
    "filters": 2, "weights": 2, "receptive_field": 2, "counts": 2, "rules": 2, "graph_rectifiers": 2,
    "attribution": 2, "synthesis": 2, "patches": 2, "faithfulness": 2, "effective_field": 2, "gabor": 2,
    "orientation": 2, "targets": 2, "shadows": 2, "methods": 2,
    "relevance": 2, "health": 2, "deep_lift": 2, "lift_rules": 2, "stem": 2, "comparison": 2,
    "feature_maps": 2, "nearest": 2, "published": 2, "trained": 2, "flow": 2, "architecture": 2, "outline": 2,
    "second_opinion": 2, "asking_captum": 2,
    "card": 3, "figures": 3, "training": 3,
    "cli": 4, "commands": 4,
}  # fmt: skip


def imported_by(code: str) -> set[str]:
    """Which of streamlit, captum, plotly a fresh interpreter has imported after ``code``."""
    probe = f"import sys\n{code}\nprint([m for m in ('streamlit', 'captum', 'plotly') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout))


def modules() -> list[str]:
    files = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "sp_core").rglob("*.py"))
    return sorted(".".join(file.parts) for file in files if file.name not in {"__main__", "__init__"})


def test_sp_core_never_imports_streamlit():
    code = "import importlib\n" + "\n".join(f"importlib.import_module('{name}')" for name in modules())
    assert "streamlit" not in imported_by(code)


def test_the_check_above_can_fail():
    assert imported_by("import pages.ui.cache") >= {"streamlit"}


def test_import_is_light():
    assert imported_by("import sp_core as sp; sp.Network; sp.open_image; sp.Unit") == set()


def test_indexing_and_training_need_only_torch():
    code = "import sp_core as sp; sp.build_patch_index; sp.PatchIndex; import sp_core.training, sp_core.commands.train"
    assert imported_by(code + "; import sp_core.commands.index, sp_core.commands.top") == set()


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "sp_core":
                found |= {f"sp_core.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "sp_core").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    room = path.relative_to(ROOT / "sp_core").parts[0].removesuffix(".py")
    if room in {"__init__", "__main__"}:
        return
    assert room in FLOORS, f"{room} is a new room: give it a floor"
    for name in _imports(path):
        parts = name.split(".")
        assert parts[0] != "pages", f"{path.name} imports {name}"
        if parts[0] == "sp_core" and len(parts) > 1 and parts[1] in FLOORS:
            assert FLOORS[parts[1]] <= FLOORS[room], f"{room} (floor {FLOORS[room]}) imports {name}, which is above it"


@pytest.mark.parametrize("path", sorted((ROOT / "pages").glob("*.py")), ids=lambda p: p.name)
def test_pages_read_as_tables_of_contents(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 150
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert all(f.end_lineno - f.lineno < 45 for f in functions), "a page's functions are short"
    first = next(
        node for node in tree.body if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant)
    )
    assert ast.unparse(first) == "from pages.ui import nav", "the guard comes first"
    assert "nav.ensure()" in text


def test_app_is_only_the_frame():
    assert len((ROOT / "app.py").read_text().splitlines()) < 60


def test_no_public_name_is_hidden_by_its_module():
    import sp_core

    homes = set(sp_core._HOME.values())
    assert not homes & set(sp_core._HOME), "importing the module would replace the function of the same name"
    for name in sp_core._HOME:
        assert callable(getattr(sp_core, name)), name


def test_every_requirement_has_a_reason():
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / file).read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                assert "#" in line, f"{file}: {line}"
