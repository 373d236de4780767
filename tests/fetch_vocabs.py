"""Fetch llama.cpp's vocabulary-only files for the tests on foreign tokenizers: `make vocabs`.

They come out of the source package of the very version of llama-cpp-python that is installed, by way of pip, and go
to `tests/.vocabs/`, which git ignores. No test downloads anything: those that need the files are skipped without.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent / ".vocabs"
NAMES = ("llama-bpe", "llama-spm", "phi-3", "gemma-4", "qwen2")
# What llama.cpp has beyond them: every other way of splitting text that comes with a file, WordPiece (bert-bge) and
# Unigram (nomic-bert-moe) among them.
MORE = (
    *("aquila", "baichuan", "bert-bge", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gpt-2", "gpt-neox"),
    *("mpt", "nomic-bert-moe", "qwen35", "refact", "starcoder"),
)
ALL = NAMES + MORE


def download(folder: Path) -> Path:
    """The installed version's source package, downloaded into `folder`."""
    wanted = f"llama-cpp-python=={version('llama-cpp-python')}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python"]
    subprocess.run([*command, "-d", str(folder), wanted], check=True)
    (found,) = folder.glob("llama_cpp_python-*.tar.gz")
    return found


def extract(sdist: Path, folder: Path) -> None:
    """Just the vocabulary files of `sdist`, written into `folder`."""
    wanted = {f"vendor/llama.cpp/models/ggml-vocab-{name}.gguf" for name in ALL}
    with tarfile.open(sdist) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            if path not in wanted or (source := archive.extractfile(member)) is None:
                continue
            wanted.remove(path)
            with (folder / Path(path).name).open("wb") as target:
                shutil.copyfileobj(source, target)
    if wanted:
        sys.exit(f"{sdist.name} lacks {', '.join(sorted(wanted))}")


def main() -> None:
    """Fetch what is missing."""
    parser = argparse.ArgumentParser(description="Fetch llama.cpp's vocabulary files for the tests.")
    parser.add_argument("--sdist", type=Path, help="a source package of llama-cpp-python that is already here")
    sdist = parser.parse_args().sdist
    if all((FOLDER / f"ggml-vocab-{name}.gguf").is_file() for name in ALL):
        return
    with tempfile.TemporaryDirectory() as name:
        extract(sdist or download(Path(name)), Path(name))
        FOLDER.mkdir(exist_ok=True)  # only now, so that an interrupted download leaves nothing that looks complete
        for path in Path(name).glob("*.gguf"):
            shutil.move(path, FOLDER / path.name)
    print(f"{len(ALL)} vocabularies are in {FOLDER}")


if __name__ == "__main__":
    main()
