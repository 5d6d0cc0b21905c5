"""GGUF files are read as they were written, number by number, and what can't be read is named."""

import struct
from pathlib import Path

import numpy as np
import pytest

from utils.course.paths import load_file
from utils.models.bundled import ModelFileError
from utils.models.gguf import open_gguf

gguf_files = load_file(Path(__file__).with_name("gguf_files.py"))
ABOUT = {"an int": 7, "a float": 0.5, "a word": "Wörter", "yes": True, "words": ["a", "", "c"], "numbers": [1, -2, 3]}


def write(folder, kind="F32", shape=(3, 64), seed=0, about=ABOUT):
    """A file with two tensors, and the values of the second."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    data, numbers = gguf_files.quantise(values, kind)
    first = (struct.pack("<3f", 1, 2, 3), (3,), "F32")
    path = gguf_files.write_gguf(folder / "a.gguf", about, {"first": first, "second": (data, shape, kind)})
    return path, numbers, values


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("shape", [(3, 64), (32,), (2, 3, 32)])
def test_tensors_have_the_values_that_were_written(tmp_path, kind, shape):
    path, numbers, values = write(tmp_path, kind, shape)
    gguf = open_gguf(path)
    found = gguf.tensor("second")
    assert found.dtype == np.float32 and found.shape == shape
    np.testing.assert_allclose(found, numbers.reshape(shape), rtol=1e-6, atol=1e-7)
    steps = {"F32": 0, "F16": 1e-3, "Q8_0": 0.02, "Q4_0": 0.4, "Q4_1": 0.3}
    np.testing.assert_allclose(found, values, atol=steps[kind])
    assert gguf.tensor("first").tolist() == [1, 2, 3]


@pytest.mark.parametrize("alignment", [32, 64, 256])
def test_metadata_and_alignment(tmp_path, alignment):
    about = ABOUT | {"general.alignment": alignment}
    path, numbers, _ = write(tmp_path, about=about)
    gguf = open_gguf(path)
    assert gguf.metadata == about
    np.testing.assert_array_equal(gguf.tensor("second"), numbers)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
def test_the_library_of_the_format_reads_the_same(tmp_path, kind):
    library = pytest.importorskip("gguf")
    path, _, _ = write(tmp_path, kind)
    (theirs,) = (tensor for tensor in library.GGUFReader(path).tensors if tensor.name == "second")
    dequantised = library.dequantize(theirs.data, theirs.tensor_type)
    np.testing.assert_allclose(open_gguf(path).tensor("second"), dequantised.reshape(3, 64), rtol=1e-6, atol=1e-7)


def test_other_files_are_refused(tmp_path):
    path, _, _ = write(tmp_path)
    whole = path.read_bytes()
    for content, message in (
        (b"", "is not a GGUF file"),
        (b"PK\3\4" + whole, "is not a GGUF file"),
        (whole[:4] + struct.pack("<I", 1) + whole[8:], "of version 1, and only 2 and 3"),
        (whole[:4] + struct.pack(">I", 3) + whole[8:], "of version 50331648"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            open_gguf(path)


def test_a_file_that_was_cut_short_is_named_wherever_it_ends(tmp_path):
    path, _, _ = write(tmp_path, "Q8_0")
    whole = path.read_bytes()
    end = len(whole) - (-6 * 34 % 32)  # of the last of six blocks; what follows only fills up
    for n_bytes in (*range(5, end - 1, 7), end - 1):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(ModelFileError, match="cut short"):
            gguf = open_gguf(path)
            for name in gguf.places:
                gguf.tensor(name)


def test_lengths_that_no_file_has_are_damage(tmp_path):
    path, _, _ = write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:16] + struct.pack("<Q", 2**60) + whole[24:])
    with pytest.raises(ModelFileError, match="cut short or is damaged"):
        open_gguf(path)
    path = gguf_files.write_gguf(tmp_path / "a.gguf", {}, {"t": (b"\0" * 8, (2**40, 2**40), "F32")})
    with pytest.raises(ModelFileError, match="ends within t: it was cut short"):
        open_gguf(path).tensor("t")
    for alignment in (0, "wide"):
        about = gguf_files._string("general.alignment") + gguf_files._value(alignment)
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + about)
        with pytest.raises(ModelFileError, match="cut short or is damaged"):
            open_gguf(path)


def test_kinds_that_are_not_read_are_named(tmp_path):
    path = gguf_files.write_gguf(tmp_path / "a.gguf", {}, {"t": (b"\0" * 210, (1, 256), "Q6_K")})
    with pytest.raises(ModelFileError, match="keeps t as Q6_K, and only F32, F16, Q4_0, Q4_1, Q8_0"):
        open_gguf(path).tensor("t")
    path = gguf_files.write_gguf(tmp_path / "a.gguf", {}, {"t": (b"\0" * 340, (10, 33), "Q8_0")})
    with pytest.raises(ModelFileError, match="blocks of 32, with rows of 33"):
        open_gguf(path).tensor("t")
