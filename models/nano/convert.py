"""A shipped, quantised GGUF file back to float: the twins that oracles are computed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

FILE_TYPES = {"F32": (Kind.F32, 0), "F16": (Kind.F16, 1), "Q8_0": (Kind.Q8_0, 7)}
"""Format name: tensor type of the matrices, and GGUF's number of such a file."""


def dequantise(path: Path, out_path: Path, kind: str = "F32") -> None:
    """Write the float twin of a GGUF file: the same metadata, and every tensor at the value that it decodes to.

    Args:
        path: of a GGUF file of this project.
        out_path: of the new file.
        kind: F32, or F16 for the matrices (vectors stay float32).

    Raises:
        KeyError: unknown kind.
    """
    dtype, file_type = (np.float32 if FILE_TYPES[kind][0] == Kind.F32 else np.float16), FILE_TYPES[kind][1]
    reader = GGUFReader(path)
    writer = GGUFWriter(out_path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value, value_type = field.contents(), field.types[0]
        if field.name == "general.file_type":
            value = file_type
        item = field.types[-1] if value_type == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, value_type, sub_type=item)
    for tensor in reader.tensors:
        array = dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, array.astype(dtype if array.ndim == 2 else np.float32))
    finish(writer)


def finish(writer: GGUFWriter) -> None:
    """Write everything out and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
