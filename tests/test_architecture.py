"""Guards over the shape of the code. Each guard is a function, and has a test that it can fail."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny_bundle import build_tiny_bundle

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model_store", "service", "training")
CLIENT = "clients/python/endo_clip_client"
MAX_LINES = 400

FORBIDDEN = {
    "model_store": {"fastapi", "onnx", "open_clip", "pydantic", "service", "sklearn", "starlette"}
    | {"timm", "torch", "torchvision", "training", "transformers", "uvicorn"},
    "service": {"onnx", "open_clip", "sklearn", "timm", "torch", "torchvision", "training"}
    | {"transformers"},
    "training": {"fastapi", "service", "starlette", "uvicorn"},
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(source: str) -> Iterator[str]:
    """Top-level packages that a module imports, at any depth of its code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level != 1:
            # Two dots or more lead out of a package as flat as these are, to its neighbours.
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level > 1:
            yield from (alias.name for alias in node.names)


def wrong_imports(package: str, source: str) -> set[str]:
    return set(imported(source)) & FORBIDDEN[package]


def all_order(name: str) -> tuple[bool, bool, str]:
    """Order as ruff has it (RUF022): constants, then classes, then functions."""
    return (not name.isupper(), not name[0].isupper(), name)


def faults_of_all(source: str) -> list[str]:
    """What is wrong with a module's `__all__`: not sorted, or naming nothing."""
    listed, defined = names_listed(source), names_defined(source)
    faults = [] if listed == sorted(listed, key=all_order) else ["not sorted"]
    return faults + [f"{name} is listed but not there" for name in sorted(set(listed) - defined)]


def names_listed(source: str) -> list[str]:
    for node in ast.parse(source).body:
        if _names_of(node) == {"__all__"} and isinstance(node, ast.Assign | ast.AnnAssign):
            return list(ast.literal_eval(node.value)) if node.value else []
    return []


def names_defined(source: str) -> set[str]:
    return set().union(*(_names_of(node) for node in ast.parse(source).body))


def unlisted_imports(source: str, sources: dict[str, str]) -> list[str]:
    """Names that a module takes from another of the project's without their being offered.

    Args:
        source: the importing module.
        sources: dotted name of each module of the project → its source.
    """
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in sources:
            listed = set(names_listed(sources[node.module])) | {"__version__"}
            wrong += [
                f"{node.module}.{alias.name}"
                for alias in node.names
                if alias.name not in listed and f"{node.module}.{alias.name}" not in sources
            ]
    return wrong


def project_sources() -> dict[str, str]:
    found = {}
    for package in (*PACKAGES, CLIENT):
        for path in modules(package):
            parts = path.relative_to((ROOT / package).parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text(encoding="utf-8")
    return found


def _names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    flat = [item for target in targets for item in getattr(target, "elts", [target])]
    return {item.id for item in flat if isinstance(item, ast.Name)}


# ---- direction of imports ------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_in_one_direction_only(package: str):
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in modules(package)
        if (wrong := wrong_imports(package, path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize("package", PACKAGES)
def test_guard_looks_at_every_package(package: str):
    assert len(modules(package)) >= 8


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "from torch.nn import Linear",
        "def f():\n    import training.records",
        "from ..training import records",
        "from ..training.records import Record",
        "from .. import training",
    ],
)
def test_import_guard_can_fail(source: str):
    assert wrong_imports("service", source)


def beyond_the_cluster(path: str, source: str) -> set[str]:
    """What a module of the service imports of Ray, or of the package that may."""
    if path.startswith("service/cluster/"):
        return set()
    return set(re.findall(r"(?:from|import) (ray|service\.cluster)\b", source))


def test_ray_is_imported_by_the_cluster_alone():
    for package in ("model_store", "service"):
        for path in modules(package):
            name = path.relative_to(ROOT).as_posix()
            assert not beyond_the_cluster(name, path.read_text(encoding="utf-8")), name


@pytest.mark.parametrize(
    "source",
    ["import ray", "def f():\n    from ray import serve", "from service.cluster.remote import x"],
)
def test_guard_of_ray_can_fail(source: str):
    assert beyond_the_cluster("service/app.py", source)
    assert not beyond_the_cluster("service/cluster/remote.py", source)


def test_import_guard_lets_model_store_be_used():
    assert not wrong_imports("service", "from model_store import Encoder\nfrom . import app")


def test_client_imports_nothing_but_httpx_and_what_its_extras_bring():
    allowed = {*sys.stdlib_module_names, "endo_clip_client", "httpx"}
    found = {
        path.name: foreign
        for path in modules(CLIENT)
        if (foreign := set(imported(path.read_text(encoding="utf-8"))) - allowed)
    }
    assert found == {
        "heatmaps.py": {"PIL"},
        "lines.py": {"websockets"},
        "overlay.py": {"PIL"},
        "shrinking.py": {"PIL"},
        "sources.py": {"av"},
        "video.py": {"PIL"},
    }


# ---- the service without torch -------------------------------------------------------------------

ANSWER_WITHOUT_TORCH = """
import sys
for name in ("torch", "open_clip", "training"):
    sys.modules[name] = None
import io
from pathlib import Path
from fastapi.testclient import TestClient
from PIL import Image
from service.app import create_app
from service.settings import read_settings

picture = io.BytesIO()
Image.new("RGB", (96, 96), (220, 20, 20)).save(picture, "PNG")
settings = read_settings({"ENDOCLIP_BUNDLE": sys.argv[1], "ENDOCLIP_ENCODE_THREADS": "1"})
with TestClient(create_app(settings)) as client:
    answer = client.post(
        "/v1/malignancy", content=picture.getvalue(), headers={"Content-Type": "image/png"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["patients"][0]["frames"][0]["status"] == "scored", answer.text
assert sys.modules["torch"] is None
"""


def run_apart(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_service_imports_and_answers_with_torch_absent(tmp_path: Path):
    bundle = build_tiny_bundle(tmp_path / "tiny")
    done = run_apart(ANSWER_WITHOUT_TORCH, str(bundle))
    assert done.returncode == 0, done.stderr


def test_absence_guard_can_fail():
    done = run_apart("import sys\nsys.modules['torch'] = None\nimport torch")
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr


# ---- size and public names -----------------------------------------------------------------------


def too_long(text: str) -> bool:
    return len(text.splitlines()) > MAX_LINES


def test_no_module_exceeds_400_lines():
    paths = [
        path
        for folder in (*PACKAGES, CLIENT, "tests", "bench", "docker", "docs")
        for path in modules(folder)
    ]
    long = {str(p.relative_to(ROOT)) for p in paths if too_long(p.read_text(encoding="utf-8"))}
    assert not long


def test_size_guard_can_fail():
    assert too_long("x\n" * (MAX_LINES + 1))
    assert not too_long("x\n" * MAX_LINES)


def test_names_in_all_are_sorted_and_exist():
    found = {
        n: faults for n, source in project_sources().items() if (faults := faults_of_all(source))
    }
    assert not found


def test_all_is_complete_for_what_other_modules_import():
    sources = project_sources()
    found = {n: wrong for n, s in sources.items() if (wrong := unlisted_imports(s, sources))}
    assert not found


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("__all__ = ['g', 'f']\ndef f(): ...\ndef g(): ...", "not sorted"),
        ("__all__ = ['f', 'Box']\nclass Box: ...\ndef f(): ...", "not sorted"),
        ("__all__ = ['f']", "f is listed but not there"),
    ],
)
def test_public_name_guard_can_fail(source: str, fault: str):
    assert faults_of_all(source) == [fault]


def test_completeness_guard_can_fail():
    sources = {"service.app": "__all__ = ['f']\ndef f(): ...\ndef g(): ...", "service": ""}
    assert unlisted_imports("from service.app import f, g", sources) == ["service.app.g"]
    assert unlisted_imports("from service import app", sources) == []


def test_public_name_guard_accepts_constants_and_reexports():
    source = "from a import Box\n__all__ = ['LIMIT', 'Box', 'f']\nLIMIT, _X = 1, 2\ndef f(): ..."
    assert faults_of_all(source) == []
