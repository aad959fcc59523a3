"""One safe way to turn plain state into bytes, and to write and read a file of it.

A checkpoint is an ordinary `torch.save` archive of named tensors and one JSON string that says where each tensor
belongs, followed by the SHA-256 of everything before it. Equal states give equal bytes; one changed bit is noticed.

Mirrors the tutorial's section "Training and saving an agent".
Leaves out: anything that would execute code on loading (`weights_only=True`), and Python objects of any kind: an agent
describes itself as plain data with `state()`.
Needs: nothing else.
"""

import hashlib
import io
import json
import os
from pathlib import Path

import torch

FORMAT = "tinyevo-1"
DIGEST_SIZE = hashlib.sha256().digest_size
TENSOR = "$tensor"  # in the JSON, {TENSOR: name} stands for the tensor of that name


def dumps(state):
    """Encode a nesting of dicts (with string keys), lists, numbers, strings, None and tensors as bytes."""
    tensors = {}

    def placeholder(tensor):
        tensors[f"{len(tensors)}"] = tensor.detach().cpu()
        return {TENSOR: f"{len(tensors) - 1}"}

    text = json.dumps({"format": FORMAT, "state": state}, default=placeholder)
    archive = io.BytesIO()
    torch.save({"json": text, "tensors": tensors}, archive)
    return archive.getvalue() + hashlib.sha256(archive.getvalue()).digest()


def loads(data):
    """Decode what `dumps` made; tuples come back as lists, tensors on the CPU.

    Raises ValueError if the bytes are damaged or come from anywhere else; nothing in them is ever executed.
    """
    archive, digest = data[:-DIGEST_SIZE], data[-DIGEST_SIZE:]
    if hashlib.sha256(archive).digest() != digest:
        raise ValueError("it is damaged, or not a tinyevo checkpoint")
    content = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)

    def tensor_or_dict(item):
        return content["tensors"][item[TENSOR]] if TENSOR in item else item

    outline = json.loads(content["json"], object_hook=tensor_or_dict)
    if outline["format"] != FORMAT:
        raise ValueError(f"its format is {outline['format']!r}, this version of tinyevo reads {FORMAT!r}")
    return outline["state"]


def save(state, path):
    """Write `state` to `path` so that the file is always whole: either the old one or the new one.

    The bytes go to a temporary file beside it, are forced to the disk, and only then take the name.
    """
    path, temporary = Path(path), Path(f"{path}.tmp")
    data = dumps(state)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path):
    """Read a state written by `save`. Raises ValueError, naming the file, on anything damaged or foreign."""
    data = Path(path).read_bytes()
    try:
        return loads(data)
    except Exception as error:  # a foreign archive can fail to unpack in a dozen ways
        raise ValueError(f"cannot load {path}: {error}") from error
