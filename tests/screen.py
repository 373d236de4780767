"""A screen that nobody sees: Xvfb, and what it shows as a PNG file."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Screen:
    """What Xvfb shows.

    Args:
        path: its frame buffer, an XWD file of 32 bits a pixel.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def pixels(self, width: int, height: int) -> NDArray[np.uint8]:
        """The upper left corner, uint8 (height, width, 3): red, green, blue."""
        raw = self.path.read_bytes()
        head = struct.unpack(">25I", raw[:100])
        at, n_rows, bytes_per_line = head[0] + 12 * head[19], head[5], head[12]
        lines = np.frombuffer(raw, np.uint8, n_rows * bytes_per_line, at).reshape(n_rows, bytes_per_line)
        return lines[:height, : 4 * width].reshape(height, width, 4)[:, :, 2::-1]

    def save(self, path: Path, width: int, height: int) -> None:
        """Write the upper left corner as a PNG file."""
        rows = self.pixels(width, height).reshape(height, -1)
        data = b"".join(b"\0" + row.tobytes() for row in rows)
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
                for kind, body in chunks
            )
        )


@contextmanager
def xvfb(folder: Path, size: str = "1280x800") -> Iterator[tuple[str, Screen]]:
    """Start Xvfb; yields the value for DISPLAY, and the screen."""
    read, write = os.pipe()
    command = [
        "Xvfb",
        "-displayfd",
        str(write),
        "-screen",
        "0",
        f"{size}x24",
        "-fbdir",
        str(folder),
        "-nolisten",
        "tcp",
    ]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            number = pipe.readline().strip()
        if not number:
            raise OSError("Xvfb did not start")
        yield f":{number}", Screen(folder / "Xvfb_screen0")
    finally:
        server.terminate()
        server.wait(10)
