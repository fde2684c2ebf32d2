"""One safetensors file, local or gs://: written and checked by the safetensors library, read tensor by tensor.

The format, https://huggingface.co/docs/safetensors: 8 bytes with the length of a JSON header, the header with dtype,
shape and place of each tensor, the data.  Not read by the library, which maps local files alone and gives NumPy no
bfloat16.
"""
import math
import os
import tempfile
from typing import NamedTuple

import numpy as np
import safetensors

from configs import file_errors, reading, storage
from configs.errors import UserError
from models.checkpoints import aligned

LONGEST_HEADER = 10**8  # bytes, the library's limit
READABLE = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Tensor(NamedTuple):
    """Where a tensor stands: its file, dtype (the format's name), shape and first byte."""
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
        size = dtype.itemsize * math.prod(self.shape)
        with storage.open_file(self.path, "rb") as f:
            f.seek(self.start)
            data = aligned.empty(size)
            if storage.read_into(f, data) < size:
                raise UserError(f"{self.path} has become shorter since its header was read; fetch it anew")
        value = data.view(dtype)
        if self.dtype == "BF16":  # the upper half of a float32
            value = (value.astype("<u4") << 16).view("<f4")
        return value.astype(np.float32, copy=False).reshape(self.shape)


def read_header(path):
    """{name: Tensor} of one file.  Raises UserError where it is damaged, cut off or something else."""
    size = storage.size(path)
    try:
        with storage.open_file(path, "rb") as f:
            start = f.read(8)
            length = int.from_bytes(start, "little")
            if not 2 <= length <= min(LONGEST_HEADER, size - 8):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            text = f.read(length)
        known = _known(start + text, size)
        for _, shape in known.values():
            np.broadcast_to(np.float64(), shape)  # makes no array: raises ValueError for what no array of NumPy can be
        return {name: Tensor(path, *known[name], 8 + length + entry["data_offsets"][0])
                for name, entry in reading.parse(text).items() if name in known}
    except (ValueError, TypeError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} is damaged, cut off or no safetensors file ({error}); fetch it anew")


def _known(start, size):
    """{name: (dtype, shape)} by the library of a file of `size` bytes that begins with `start`.

    Raises SafetensorError where it is none.
    """
    with tempfile.NamedTemporaryFile() as f:  # where the data would stand it has a hole, which takes no room
        f.write(start)
        f.truncate(size)
        with safetensors.safe_open(f.name, "numpy") as tensors:
            parts = {name: tensors.get_slice(name) for name in tensors.offset_keys()}
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}


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
        raise UserError(f"{path} cannot be written ({error}); {file_errors.remedy(error)}")
