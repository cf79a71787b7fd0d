"""What kind of file this is, told by its content: never by its ending, which is wrong too often.

Every kind that can be read becomes a :class:`Described`; for every other there is a sentence on what it is and what
to do.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from sp_core.checkpoints import onnx_weights, programs
from sp_core.checkpoints.archives import Archive
from sp_core.checkpoints.limits import Limits
from sp_core.checkpoints.pickled import Described, describe_pickle, open_legacy, open_zip
from sp_core.checkpoints.refusals import plain_pickle
from sp_core.checkpoints.safetensors_file import open_safetensors
from sp_core.checkpoints.shards import open_index
from sp_core.errors import SpError

# First bytes of files that people take for checkpoints, and what to tell them.
_OTHERS = (
    (b"\x89HDF", "a Keras or HDF5 file", "load it in Keras and save the weights as .safetensors"),
    (b"GGUF", "a GGUF language model", "give a convolutional network instead"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run 'git lfs pull' where it came from"),
    (b"<", "a web page or XML text, not weights", "download the file again, its link led to a page"),
    (b"\x89PNG", "a PNG picture", "open it as an image, not as a network"),
    (b"\xff\xd8\xff", "a JPEG picture", "open it as an image, not as a network"),
    (b"GIF8", "a GIF picture", "open it as an image, not as a network"),
    (b"RIFF", "a WebP picture or a sound", "open it as an image, not as a network"),
    (b"\x93NUMPY", "a single NumPy array", "save the weights by name, as a state dict or .safetensors"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it with 'gunzip' and give the file inside"),
    (b"BZh", "compressed with bzip2", "unpack it with 'bunzip2' and give the file inside"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it with 'unxz' and give the file inside"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it and give the file inside"),
    (b"Rar!", "a RAR archive", "unpack it and give the file inside"),
)


def describe(file: BinaryIO, name: str, limits: Limits) -> Described:
    """What ``file`` (seekable, binary) holds; ``name`` is what the messages call it. No weight is read yet.

    Raises:
        SpError: it is not a checkpoint, or is larger than the limits. Others mean that it is damaged.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(64)
    file.seek(0)
    if size == 0:
        raise SpError(f"{name} is empty (0 bytes); copy or download it again.")
    limits.check_file(size, name)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _describe_zip(Archive(file, name, limits))
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 2**40:
        return open_safetensors(file, name, size, limits)
    if head[0] == 0x80 and len(head) > 1 and head[1] in {2, 3, 4, 5}:
        found = open_legacy(file, name, limits)
        if found is None:
            raise plain_pickle(describe_pickle(file, name, limits), name)
        return found
    if head.lstrip()[:1] == b"{":
        return open_index(file, name, size, limits)
    for magic, what, advice in _OTHERS:
        if head.startswith(magic):
            raise SpError(f"{name} is {what}; {advice}.")
    if head[0] in {0x08, 0x0A, 0x12} and size > 16:
        found = onnx_weights.open_onnx(file, name, size, limits)
        if found is not None:
            return found
    raise _unknown(head, file, name, size)


def _unknown(head: bytes, file: BinaryIO, name: str, size: int) -> SpError:
    file.seek(257)
    if file.read(5) == b"ustar":
        return SpError(f"{name} is a tar archive; unpack it and give the checkpoint inside.")
    if head[:1] in {b"\x08", b"\x0a"} and size > 64:
        return SpError(
            f"{name} looks like a protocol buffer (Caffe or TensorFlow), not PyTorch weights or ONNX; "
            "export the weights from that framework as .safetensors."
        )
    if 0x81 <= head[0] <= 0x8F or head[0] in {0xDE, 0xDF}:
        return SpError(f"{name} looks like msgpack (Flax, JAX), not PyTorch weights; save them as .safetensors.")
    return SpError(
        f"{name} ({size} bytes) is neither a PyTorch checkpoint nor a .safetensors or ONNX file; "
        "save the weights with torch.save(model.state_dict(), 'weights.pth')."
    )


def _describe_zip(archive: Archive) -> Described:
    program = programs.open_program(archive)
    if program is not None:
        return program
    if not archive.root:
        shown = ", ".join(path[:60] for path in list(archive.members)[:3]) or "nothing"
        raise SpError(f"{archive.name} is a zip archive but no PyTorch checkpoint: it holds {shown}; unpack it first.")
    return open_zip(archive)


def damaged(name: str, error: BaseException) -> SpError:
    """The sentence for a file that begins like a checkpoint and then does not go on like one."""
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    reason = "".join(letter if letter.isprintable() else "?" for letter in reason)
    return SpError(f"{name} is damaged or incomplete ({reason}); copy or download it again.")
