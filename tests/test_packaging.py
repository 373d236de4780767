"""A wheel built from the sdist, installed in a fresh environment, used from an empty folder."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    if check and done.returncode:
        pytest.fail(f"{command} failed:\n{done.stdout}\n{done.stderr}")
    return done


@pytest.mark.long
def test_wheel_from_sdist_runs_from_an_empty_folder(tmp_path: Path) -> None:
    dist, empty = tmp_path / "dist", tmp_path / "empty"
    empty.mkdir()
    _run(sys.executable, "-m", "build", "--outdir", dist, ROOT, cwd=empty)
    (sdist,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")

    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert any(n.endswith("drift_edge/kernel/_kernel.c") for n in names)
    assert any(n.endswith("drift-nano-llm-Q8_0.gguf") for n in names)
    with zipfile.ZipFile(wheel) as archive:
        installed = set(archive.namelist())
    tops = {n.split("/")[0] for n in installed}
    page = {f"drift_edge/server/page/{path.name}" for path in (ROOT / "drift_edge/server/page").iterdir()}
    data = {"drift_edge/py.typed", "drift_edge/data/attributes.toml", "drift_edge/models/catalogue.toml"}
    assert page | data <= installed
    assert tops == {"drift_edge", f"{wheel.name.rsplit('-', 3)[0]}.dist-info"}
    assert "-cp311-abi3-" in wheel.name

    _run(sys.executable, "-m", "venv", tmp_path / "fresh", cwd=empty)
    python = next(p for p in (tmp_path / "fresh").glob("*/python*") if p.stem == "python")
    _run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=empty)
    # The dependencies are borrowed by path: a path in a .pth file is not searched for further .pth files, so the
    # editable install of the environment that runs this test stays out of sight.
    site = Path(
        _run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=empty).stdout.strip()
    )
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    for name in ("cli", "models", "tests"):
        failed = _run(python, "-c", f"import {name}", cwd=empty, check=False)
        assert "ModuleNotFoundError" in failed.stderr, name
    where = _run(python, "-c", "import drift_edge; print(drift_edge.__file__)", cwd=empty).stdout
    assert str(site) in where
    kernel = _run(python, "-c", "from drift_edge import kernel; print(kernel.active().name)", cwd=empty).stdout
    assert kernel.strip() == "c"
    command = next(p for p in python.parent.glob("drift-edge*"))
    answer = _run(command, "chat", "-p", "How do I make tea?", "--seed", "1", "--no-save", cwd=empty)
    assert "tea" in answer.stdout.lower()
