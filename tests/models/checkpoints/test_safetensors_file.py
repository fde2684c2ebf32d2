"""safetensors files: the library that defines the format writes, and says which damaged ones are to be refused."""
import json
import os
import random

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from configs.errors import UserError
from models.checkpoints import safetensors_file

NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "U8": "uint8", "I64": "int64",
         "BOOL": "bool", "F8_E4M3": "float8_e4m3fn"}  # the format's name and the library's
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
        "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6,
        "F6_E3M2": 6, "F4": 4}
FILES = 3000  # damaged ones a test


def random_content(chance):
    """{name: {"dtype", "shape", "data"}} for the library, of up to five tensors."""
    content = {}
    for number in range(chance.randint(0, 5)):
        dtype, shape = chance.choice(list(NAMES)), [chance.randint(0, 3) for _ in range(chance.randint(0, 3))]
        size = BITS[dtype] // 8 * int(np.prod(shape))
        content[chance.choice("abcü") + str(number)] = {"dtype": NAMES[dtype], "shape": shape,
                                                        "data": chance.randbytes(size)}
    return content


def parts(data):
    """(header as text, the rest) of a file."""
    length = int.from_bytes(data[:8], "little")
    return data[8:8 + length].decode(), data[8 + length:]


def joined(header, rest):
    text = (header if isinstance(header, str) else json.dumps(header)).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + rest


def read(tmp_path, data):
    """{name: Tensor} of these bytes in a file."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    return safetensors_file.read_header(str(path))


def bytes_of(tensor):
    with open(tensor.path, "rb") as f:
        f.seek(tensor.start)
        return f.read(BITS[tensor.dtype] * int(np.prod(tensor.shape)) // 8)


def test_files_of_the_library_are_read_as_it_reads_them(tmp_path):
    chance = random.Random(1)
    for _ in range(300):
        data = safetensors.serialize(random_content(chance), {"some": "remark"} if chance.random() < 0.5 else None)
        expected = dict(safetensors.deserialize(data))
        found = read(tmp_path, data)
        assert set(found) == set(expected)
        for name, tensor in found.items():
            assert (tensor.dtype, list(tensor.shape)) == (expected[name]["dtype"], expected[name]["shape"])
            assert bytes_of(tensor) == expected[name]["data"]


@pytest.mark.parametrize("dtype", safetensors_file.READABLE)
def test_numbers_are_those_of_numpy_and_tensorflow(tmp_path, dtype):
    import tensorflow.compat.v1 as tf
    numpy_dtype = tf.bfloat16.as_numpy_dtype if dtype == "BF16" else np.dtype(NAMES[dtype])
    values = np.array([[0.1, -3.7, 65504.0], [1e-7, float("inf"), 0.0]]).astype(numpy_dtype)
    content = {"x": {"dtype": NAMES[dtype], "shape": [2, 3], "data": values.tobytes()}}
    found = read(tmp_path, safetensors.serialize(content))["x"].read()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))


def test_a_file_that_is_cut_after_its_header_was_read_is_named(tmp_path):
    tensor = read(tmp_path, safetensors.serialize({"x": {"dtype": "float32", "shape": [9], "data": bytes(36)}}))["x"]
    os.truncate(tensor.path, os.path.getsize(tensor.path) - 5)
    with pytest.raises(UserError, match="x.safetensors has become shorter since its header was read"):
        tensor.read()


def test_dtype_of_no_weight_is_refused_when_it_is_read(tmp_path):
    data = safetensors.serialize({"x": {"dtype": "int64", "shape": [1], "data": bytes(8)}})
    with pytest.raises(UserError, match="stores a weight as I64, which cannot be read; give the file in F64, F32"):
        read(tmp_path, data)["x"].read()


def test_library_reads_what_is_written_to_the_bit(tmp_path):
    tensors = {"b": np.array([[1e-40, np.nan, -0.0]], np.float32), "a": np.random.RandomState(0).randn(5, 3, 2)[::2],
               "empty": np.zeros([0, 4], np.float32)}
    path = str(tmp_path / "x.safetensors")
    safetensors_file.write(path, iter(tensors.items()))
    found = safetensors.numpy.load_file(path)
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        assert found[name].dtype == np.float32 and found[name].shape == value.shape
        assert found[name].tobytes() == value.astype(np.float32).tobytes()
    with safetensors.safe_open(path, "np") as f:
        assert f.metadata() == {"format": "pt"}


def test_full_disk_is_one_line():
    with pytest.raises(UserError, match="/dev/full cannot be written .*No space left on device.*; make room"):
        safetensors_file.write("/dev/full", [("x", np.zeros(3, np.float32))])


# Damage: what the library refuses must be refused, in one line.

X = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
Y = {"dtype": "F16", "shape": [2], "data_offsets": [24, 28]}


@pytest.mark.parametrize("header, size", [
    ({"x": X, "y": {**Y, "data_offsets": [20, 24]}}, 24),
    ({"x": X, "y": {**Y, "data_offsets": [28, 32]}}, 32),
    ({"x": X, "y": X}, 24),
    ({"x": X, "y": {**Y, "data_offsets": [24, 20]}}, 20),
    ({"x": X, "y": {**Y, "data_offsets": [24, 27]}}, 27),
    ({"x": {**X, "dtype": "F64"}}, 24),
    ({"x": {**X, "dtype": "F33"}}, 24),
    ({"x": {**X, "shape": [2.0, 3]}}, 24),
    ({"x": {**X, "shape": [True, 6]}}, 24),
    ({"x": {**X, "shape": [-2, -3]}}, 24),
    ({"x": {**X, "shape": [2**64, 0], "data_offsets": [0, 0]}}, 0),
    ({"x": {**X, "shape": [2**32, 2**32, 0], "data_offsets": [0, 0]}}, 0),
    ({"x": {**X, "shape": {}, "data_offsets": [0, 4]}}, 4),
    ({"x": {**X, "data_offsets": [False, 24]}}, 24),
    ({"x": {**X, "data_offsets": [0, 24, 24]}}, 24),
    ({"x": {"dtype": "F32", "shape": [6]}}, 24),
    ({"x": {**X, "more": float("nan")}}, 24),
    ({"x": None}, 0),
    ({"x": X}, 25),
    ({"x": X}, 23),
    ({"x": X, "__metadata__": {"a": 1}}, 24),
    ({"x": X, "__metadata__": ["a"]}, 24),
    ({"x": X, "__metadata__": {"a": "\ud800"}}, 24),
    ({"\ud800": X}, 24),
    ([1], 0), ("[" * 5000, 0), ("\ufeff{}", 0), ("{}\0", 0)])
def test_damaged_header_is_named_as_it_is_refused_by_the_library(tmp_path, header, size):
    data = joined(header, bytes(size))
    with pytest.raises(safetensors.SafetensorError) as refused:
        safetensors.deserialize(data)
    with pytest.raises(UserError, match="is damaged, cut off or no safetensors file") as caught:
        read(tmp_path, data)
    reason = str(refused.value).partition(": ")[2].partition("`")[0]  # of two tensors at one place it names either
    assert reason and reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("header, size, words", [
    (" ", 7, "a header of 1 bytes in a file of 16"),
    (f'{{"x": {json.dumps(X)}, "x": {json.dumps(X)}}}', 24, '"x" is given twice'),
    ('{"x": ["F32", [1, 7], [0, 28]]}', 28, "list indices")])
def test_header_that_is_refused_before_or_after_the_library_is_named(tmp_path, header, size, words):
    with pytest.raises(UserError) as caught:
        read(tmp_path, joined(header, bytes(size)))
    assert words in str(caught.value)


@pytest.mark.parametrize("shape, words", [([0, 2**62], "array is too big"), ([3, 0, 2**60, 5], "array is too big"),
                                          ([1] * 50 + [6], "maximum supported dimension")])
def test_a_shape_that_the_library_knows_and_numpy_does_not_is_named(tmp_path, shape, words):
    size = 0 if 0 in shape else 24
    data = joined({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}, bytes(size))
    assert safetensors.deserialize(data)[0][1]["shape"] == shape
    with pytest.raises(UserError, match=f"is damaged, cut off or no safetensors file \\({words}"):
        read(tmp_path, data)


def test_header_that_is_longer_than_the_library_allows_is_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    with open(path, "wb") as f:
        f.write((10**8 + 1).to_bytes(8, "little") + b"{")
        f.truncate(10**9)
    with pytest.raises(UserError, match="a header of 100000001 bytes in a file of 1000000000"):
        safetensors_file.read_header(str(path))


def changed_bytes(data, chance):
    """The file with a few bytes changed, put in, taken out, or cut off."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 2)):
        place = chance.randrange(len(data))
        how = chance.randrange(4)
        if how == 0:
            data[place] = chance.choice(b'0123456789[]{}:,"\\ \0\xff')
        elif how == 1:
            data[place:place] = bytes([chance.choice(b'123456789[]{},"')])
        elif how == 2:
            del data[place]
        else:
            del data[max(place, 9):]
    return bytes(data)


def changed_entry(data, chance):
    """The file with one value of its header changed, and often the header's order."""
    header, rest = parts(data)
    header = json.loads(header)
    names = [name for name in header if name != "__metadata__"]
    if not names:
        return data + b"."
    entry = header[chance.choice(names)]
    how = chance.randrange(5)
    if how == 0:
        entry["data_offsets"][chance.randrange(2)] += chance.choice([-8, -4, -1, 1, 4, 8])
    elif how == 1:
        entry["dtype"] = chance.choice(list(BITS))
    elif how == 2 and entry["shape"]:
        entry["shape"][chance.randrange(len(entry["shape"]))] = chance.choice([0, 1, 2, 6, 2**31, -1, 1.0, None])
    elif how == 3:
        header[chance.choice(names)] = entry
    else:
        del entry[chance.choice(list(entry))]
    pairs = list(header.items())
    chance.shuffle(pairs)
    return joined(dict(pairs), rest)


@pytest.mark.parametrize("change", [changed_bytes, changed_entry])
def test_whatever_the_library_refuses_is_refused_in_one_line(tmp_path, change):
    chance, refused, read_alike = random.Random(7), 0, 0
    for number in range(FILES):
        data = change(safetensors.serialize(random_content(chance), {"a": "b"}), chance)
        try:
            expected = dict(safetensors.deserialize(data))
        except safetensors.SafetensorError:
            expected = None
        try:
            found = read(tmp_path, data)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        assert expected is not None, f"file {number}: {data[:200]}"
        assert {name: (tensor.dtype, list(tensor.shape), bytes_of(tensor)) for name, tensor in found.items()} \
            == {name: (entry["dtype"], entry["shape"], entry["data"]) for name, entry in expected.items()}
        read_alike += 1
    print(f"{FILES} files: {refused} refused, {read_alike} read as the library reads them")
    assert refused > FILES / 4 and read_alike > FILES / 100
