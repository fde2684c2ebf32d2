"""One safetensors file, local or gs://: written by the safetensors library, read tensor by tensor.

The format, https://huggingface.co/docs/safetensors: 8 bytes with the length of a JSON header, the header with dtype,
shape and place of each tensor, the data.  Not read by the library, which maps local files alone and gives NumPy no
bfloat16; but what it refuses is refused here, too.
"""
import json
import math
import os
import tempfile
from typing import NamedTuple

import numpy as np
import safetensors

from configs import reading, storage
from configs.errors import UserError

METADATA = "__metadata__"  # texts about the file
LONGEST_HEADER = 10**8  # bytes, the library's limit
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
        "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6,
        "F6_E3M2": 6, "F4": 4}
READABLE = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Tensor(NamedTuple):
    """Where a tensor stands: its file, dtype (of BITS), shape and first byte."""
    path: str
    dtype: str
    shape: tuple
    start: int

    def read(self):
        """float32 array.  Raises UserError for a dtype that holds no weights."""
        if self.dtype not in READABLE:
            raise UserError(f"{self.path} stores a weight as {self.dtype}, which cannot be read; give the file in"
                            f" {', '.join(READABLE)}")
        dtype = np.dtype(READABLE[self.dtype])
        with storage.open_file(self.path, "rb") as f:
            f.seek(self.start)
            value = np.frombuffer(f.read(dtype.itemsize * math.prod(self.shape)), dtype)
        if self.dtype == "BF16":  # the upper half of a float32
            value = (value.astype("<u4") << 16).view("<f4")
        return value.astype(np.float32, copy=False).reshape(self.shape)


def read_header(path):
    """{name: Tensor} of one file.  Raises UserError where it is damaged, cut off or something else."""
    size = storage.size(path)
    try:
        with storage.open_file(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if not 2 <= length <= min(LONGEST_HEADER, size - 8):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = reading.parse(f.read(length).decode(), path)
        _check(header, size - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged, cut off or no safetensors file ({error}); fetch it anew")
    return {name: Tensor(path, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
            for name, entry in header.items() if name != METADATA}


def _check(header, size):
    """Raises ValueError, KeyError, TypeError or AttributeError where the library would refuse this header of a file
    with `size` bytes of data."""
    json.dumps(header, ensure_ascii=False).encode()  # half a surrogate pair is no text
    if not all(isinstance(value, str) for value in (header.get(METADATA) or {}).values()):
        raise ValueError(f"{METADATA} holds more than texts")
    end = 0
    tensors = [(name, entry) for name, entry in header.items() if name != METADATA]
    for name, entry in sorted(tensors, key=lambda tensor: tensor[1]["data_offsets"]):
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if len(entry) > 3 or type(shape) is not list or any(type(n) is not int or n < 0 for n in [*shape, start, stop]):
            raise ValueError(f"{reading.shown(name)} is described wrongly")
        if start != end:
            raise ValueError(f"{reading.shown(name)} begins at byte {start} of the data, not at {end}")
        if math.prod(max(n, 1) for n in shape) >= 2**63 or 8 * (stop - start) != BITS[dtype] * math.prod(shape):
            raise ValueError(f"{reading.shown(name)} has {stop - start} bytes")
        end = stop
    if end != size:
        raise ValueError(f"{size} bytes of data instead of {end}")


def write(path, tensors):
    """Writes (name, float32 array) pairs, which may be made one by one: all bytes and one array are in memory."""
    if storage.is_remote(path):  # the library writes local files alone
        with tempfile.TemporaryDirectory() as folder:
            local = os.path.join(folder, os.path.basename(path))
            write(local, tensors)
            storage.copy(local, path)
        return
    content = {name: {"dtype": "float32", "shape": value.shape, "data": np.asarray(value, "<f4").tobytes()}
               for name, value in tensors}
    try:
        safetensors.serialize_file(content, path, {"format": "pt"})  # transformers demands the format's name
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} cannot be written ({error}); make room or choose another folder")
