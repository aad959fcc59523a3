"""One safe way to turn plain state into bytes, and to write and read a file of it.

A checkpoint is an ordinary `torch.save` archive of named tensors and one JSON string that says
where each tensor belongs, followed by the SHA-256 of everything before it. Equal states, with keys
in the same order, give equal bytes; one changed bit is noticed.

Mirrors the tutorial's section "Loading an agent for inference, testing and rendering".
Leaves out: anything that would execute code on loading (`weights_only=True`), and Python objects of
any kind: an agent describes itself as plain data with `state()`.
Needs: nothing else.
"""

import hashlib
import io
import json
import os
from contextlib import suppress
from pathlib import Path

import torch

FORMAT = "tinyevo-2"
WRITERS = {"tinyevo-1": "tinyevo 0.1.0"}  # versions of tinyevo that wrote earlier formats
DIGEST_SIZE = hashlib.sha256().digest_size
TENSOR = "$tensor"  # in the JSON, {TENSOR: name} stands for the tensor of that name


def copied(state):
    """A copy of plain state that shares nothing with it; its tensors are on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.detach().cpu().clone()
    if isinstance(state, dict):
        return {name: copied(value) for name, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [copied(value) for value in state]
    return state


def dumps(state):
    """Encode plain state as bytes.

    `state` nests dicts, lists, numbers, strings, None and tensors; keys that are not strings become
    strings. Raises TypeError for other values.
    """
    tensors = {}

    def placeholder(value):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"a checkpoint holds plain data and tensors, not {value!r}")
        name = str(len(tensors))
        # Laid out anew, so that equal tensors are equal bytes wherever they came from.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {TENSOR: name}

    text = json.dumps({"format": FORMAT, "state": state}, default=placeholder)
    archive = io.BytesIO()
    torch.save({"json": text, "tensors": tensors}, archive)
    digest = hashlib.sha256(archive.getbuffer()).digest()  # of the bytes where they are
    archive.write(digest)
    return archive.getvalue()


def loads(data):
    """Decode what `dumps` made; tuples come back as lists, tensors on the CPU.

    Raises ValueError if the bytes are damaged, come from anywhere else or from another version of
    tinyevo; nothing in them is ever executed.
    """
    archive, digest = data[:-DIGEST_SIZE], data[-DIGEST_SIZE:]
    if hashlib.sha256(archive).digest() != digest:
        raise ValueError("it is damaged, or not a tinyevo checkpoint")
    content = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    tensors = content["tensors"]

    def tensor(item):
        return tensors[item[TENSOR]] if TENSOR in item else item

    outline = json.loads(content["json"], object_hook=tensor)
    if outline["format"] != FORMAT:
        writer = WRITERS.get(outline["format"], "another version of tinyevo")
        what = f"its format is {outline['format']!r}, of {writer}"
        raise ValueError(f"{what}; this version reads {FORMAT!r}")
    return outline["state"]


def write(path, data):
    """Write bytes to `path` so that the file is always whole: either the old one or the new one.

    They go to a temporary file beside it, are forced to the disk, and only then take the name; a
    file that holds them already is left alone. Raises OSError, naming the file, if they cannot be
    written; the old file is still there then.
    """
    path, temporary = Path(path), Path(f"{path}.tmp")
    # Sizes first: a large file that has grown, as a memory does, need not be read.
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        temporary.unlink(missing_ok=True)  # an earlier write that was killed may have left one
        return
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):  # a full disk does not say which file it was
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def save(state, path):
    """Write `state` to a file, whole or not at all."""
    write(path, dumps(state))


def load(path, build=lambda state: state):
    """Read a state written by `save`, and return what `build` makes of it.

    Raises ValueError, naming the file, on anything that is damaged, foreign, or not what `build`
    can use; OSError if it cannot be read, MemoryError or `torch.OutOfMemoryError` if it is too
    large for this machine.
    """
    data = Path(path).read_bytes()
    try:
        return build(loads(data))
    except ValueError as error:
        raise ValueError(f"cannot load {path}: {error}") from error
    except (MemoryError, torch.OutOfMemoryError):
        raise  # nothing is wrong with the file
    except Exception as error:  # a foreign file can fail in a dozen ways
        raise ValueError(f"cannot load {path}: it holds something else ({error!r})") from error
