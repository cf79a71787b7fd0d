"""What kind of file this is, told by its content: never by its ending, which is wrong too often.

The limits are checked here, on directories and headers, before anything is unpacked or allocated.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
from dataclasses import dataclass
from typing import BinaryIO

from sp_core.errors import SpError

MAX_FILE_BYTES = 4 * 2**30
MAX_HEADER_BYTES = 64 * 2**20
MAX_ZIP_MEMBERS = 200_000
MAX_OPCODES = 5_000_000
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickled 0x1950a86a20f9469cfc6c
_PICKLES_IN_LEGACY = 4  # magic number, protocol version, system info, the object itself

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
# Globals that tensors and plain containers need. torch's own list is longer: it holds `bytearray`, with which
# fifty bytes of pickle fill the memory. Both lists must allow a name; nothing is ever added to torch's.
_TENSOR_GLOBALS = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(set|complex)|_codecs\.encode"
    r"|torch\.(Size|Tensor|device)|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout"
    r"|torch\._tensor\._rebuild_from_type_v2|torch\._utils\._rebuild_\w+"
    r"|torch\.(cuda\.|storage\.)?\w+Storage|torch\.per_(tensor|channel)_(affine|symmetric)"
    r"|torch\.(bool|half|float|double|long|short|int|bits\d\w*|b?float\d\w*|q?u?int\d\w*|complex\d+)"
)
HOW_TO_SAVE = (
    "save tensors only, with the program that made it:\n"
    "    state = model.state_dict()\n"
    "    torch.save(state, 'weights.pth')\n"
    "    # and open weights.pth here"
)


@dataclass(frozen=True)
class Container:
    """The kind of a checkpoint file and, for pickles, every global name that it asks for.

    Attributes:
        kind: ``"zip"`` (torch.save since 1.6), ``"legacy"`` (torch.save before) or ``"safetensors"``.
        refused: the globals outside what tensors need, sorted; reading is refused when there are any.
    """

    kind: str
    refused: tuple[str, ...] = ()


def inspect(file: BinaryIO, name: str) -> Container:
    """Tell what ``file`` (seekable, binary) is; ``name`` is what the messages call it.

    Raises:
        SpError: it is not a checkpoint, is cut off, or is larger than the limits.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(64)
    if size == 0:
        raise SpError(f"{name} is empty (0 bytes); copy or download it again.")
    if size > MAX_FILE_BYTES:
        raise SpError(f"{name} has {size / 2**30:.1f} GB; a checkpoint may have at most {MAX_FILE_BYTES / 2**30:g} GB.")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Container("zip", _inspect_zip(file, name, size))
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= MAX_HEADER_BYTES:
        _inspect_safetensors(file, name, size)
        return Container("safetensors")
    if head[0] == 0x80 and len(head) > 1 and head[1] in {2, 3, 4, 5}:
        return Container("legacy", _inspect_legacy(file, name))
    raise _unknown(head, file, name, size)


def _unknown(head: bytes, file: BinaryIO, name: str, size: int) -> SpError:
    for magic, what, advice in _OTHERS:
        if head.startswith(magic):
            return SpError(f"{name} is {what}; {advice}.")
    file.seek(257)
    if file.read(5) == b"ustar":
        return SpError(f"{name} is a tar archive; unpack it and give the checkpoint inside.")
    if head[:1] in {b"\x08", b"\x0a"} and size > 64:
        return SpError(
            f"{name} looks like a protocol buffer (ONNX, Caffe or TensorFlow), not PyTorch weights; "
            "export the weights from that framework as .safetensors."
        )
    if 0x81 <= head[0] <= 0x8F or head[0] in {0xDE, 0xDF}:
        return SpError(f"{name} looks like msgpack (Flax, JAX), not PyTorch weights; save them as .safetensors.")
    return SpError(
        f"{name} ({size} bytes) is neither a PyTorch checkpoint nor a .safetensors file; "
        "save the weights with torch.save(model.state_dict(), 'weights.pth')."
    )


def _inspect_zip(file: BinaryIO, name: str, size: int) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            inside = [member.filename for member in members]
            if any(path.endswith("constants.pkl") or "/code/" in path for path in inside):
                raise SpError(
                    f"{name} is a TorchScript program, which holds code; save its weights instead, "
                    "in Python: torch.save(torch.jit.load(path).state_dict(), 'weights.pth')."
                )
            _check_members(members, name, size)
            pickles = [member for member in members if member.filename.split("/")[1:] == ["data.pkl"]]
            if len(pickles) != 1:
                shown = ", ".join(inside[:3]) or "nothing"
                raise SpError(f"{name} is a zip archive but no PyTorch checkpoint: it holds {shown}; unpack it first.")
            if pickles[0].file_size > MAX_HEADER_BYTES:
                raise SpError(f"{name} lists more than {MAX_HEADER_BYTES // 2**20} MB of names; that is no network.")
            with archive.open(pickles[0]) as stream:
                return _refused(io.BytesIO(stream.read()), 1, name)
    except SpError:
        raise
    except Exception as error:  # zipfile raises BadZipFile, NotImplementedError, struct.error, UnicodeDecodeError …
        raise damaged(name, error) from error


def _check_members(members: list[zipfile.ZipInfo], name: str, size: int) -> None:
    if len(members) > MAX_ZIP_MEMBERS:
        raise SpError(f"{name} holds {len(members)} parts; a checkpoint may have at most {MAX_ZIP_MEMBERS}.")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise SpError(
            f"{name} is a compressed zip archive, which torch.save never writes; unpack it and give the file inside."
        )
    # Stored parts cannot be larger than the file they lie in, unless they overlap: a zip bomb.
    if sum(member.file_size for member in members) > size:
        raise SpError(f"{name} is {size} bytes long but claims to hold more than that; it is damaged or made to harm.")


def _inspect_safetensors(file: BinaryIO, name: str, size: int) -> None:
    file.seek(0)
    length = struct.unpack("<Q", file.read(8))[0]
    if 8 + length > size:
        raise SpError(f"{name} is cut off: its header alone needs {8 + length} of {size} bytes; copy it again.")
    try:
        header = json.loads(file.read(length))
        entries = [entry for key, entry in header.items() if key != "__metadata__"]
        end = max((int(entry["data_offsets"][1]) for entry in entries), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise damaged(name, error) from error
    if 8 + length + end != size:
        raise SpError(f"{name} should have {8 + length + end} bytes but has {size}; it is cut off, copy it again.")


def _inspect_legacy(file: BinaryIO, name: str) -> tuple[str, ...]:
    file.seek(0)
    if file.read(len(_LEGACY_MAGIC))[2:] != _LEGACY_MAGIC[2:]:
        file.seek(0)
        wanted = ", ".join(_globals(file, 1, name)[:3]) or "plain values"
        raise SpError(
            f"{name} is a Python pickle of {wanted} that torch.save did not write, and opening it could run code; "
            f"{HOW_TO_SAVE}"
        )
    file.seek(0)
    return _refused(file, _PICKLES_IN_LEGACY, name)


def _refused(stream: BinaryIO, pickles: int, name: str) -> tuple[str, ...]:
    return tuple(item for item in _globals(stream, pickles, name) if not _TENSOR_GLOBALS.fullmatch(item))


def _globals(stream: BinaryIO, pickles: int, name: str) -> list[str]:
    """Every global that the next ``pickles`` pickles ask for, sorted. Nothing is unpickled: opcodes are listed.

    The list is complete for whatever torch's own safe reader accepts: it knows the opcode GLOBAL, which spells the name
    out, and refuses STACK_GLOBAL and EXT, which need not.
    """
    found: set[str] = set()
    count = 0
    try:
        for _ in range(pickles):
            strings: list[str] = []
            for opcode, argument, _position in pickletools.genops(stream):
                count += 1
                if count > MAX_OPCODES:
                    raise SpError(f"{name} has more than {MAX_OPCODES} pickled parts; save the state dict alone.")
                if opcode.name in {"GLOBAL", "INST"}:
                    found.add(str(argument).replace("__builtin__", "builtins").replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    found.add(".".join(strings[-2:]) or "an unnamed object")
                elif isinstance(argument, str):
                    strings = [*strings[-1:], argument]
    except SpError:
        raise
    except Exception as error:  # pickletools raises ValueError, UnicodeDecodeError, struct.error … on junk
        raise damaged(name, error) from error
    return sorted(found)


def damaged(name: str, error: BaseException) -> SpError:
    """The sentence for a file that begins like a checkpoint and then does not go on like one."""
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return SpError(f"{name} is damaged or incomplete ({reason}); copy or download it again.")
