"""The weights of an ONNX graph: its initializers and constants, in the layouts and under the names that PyTorch uses.

Sources: the message definitions of ``onnx.proto`` and the operators' inputs in the ONNX operator reference. The graph
itself is not run; weights in other files are not followed.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import torch

from sp_core.checkpoints.limits import Limits
from sp_core.checkpoints.names import clean
from sp_core.checkpoints.pickled import Described
from sp_core.checkpoints.protobuf import FIXED32, FIXED64, LENGTH, VARINT, Field, Walker
from sp_core.checkpoints.stored import Quantised, Storage, Stored, contiguous, stored
from sp_core.errors import SpError

_DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 4: torch.uint16, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64, 12: torch.uint32, 13: torch.uint64, 14: torch.complex64,
    15: torch.complex128, 16: torch.bfloat16, 17: torch.float8_e4m3fn, 18: torch.float8_e4m3fnuz,
    19: torch.float8_e5m2, 20: torch.float8_e5m2fnuz,
}  # fmt: skip
# TensorProto's fields of numbers that are as wide there as in memory, and those that are written seven bits a byte.
_PLAIN_DATA = {4: torch.float32, 9: None, 10: torch.float64}
_VARINT_DATA = {5, 7, 11}
_LEAVES = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), ("", "weight", "bias")),
    "BatchNormalization": ("", "weight", "bias", "running_mean", "running_var"),
    "InstanceNormalization": ("", "weight", "bias"),
    "LayerNormalization": ("", "weight", "bias"),
    "GroupNormalization": ("", "weight", "bias"),
    "PRelu": ("", "weight"),
    "QLinearConv": ("", "", "", "weight", "", "", "", "", "bias"),
}
_ANONYMOUS = re.compile(r"^\d*$|::|^val_|_output_\d|\.weight_bias$|^[A-Z]\w*_\d+$")  # names that exporters make up
NOTE = "ONNX file: only its weights were read, its graph was not."


@dataclass
class _Node:
    kind: str = ""
    name: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    constant: Stored | None = None


@dataclass
class _Graph:
    tensors: dict[str, Stored] = field(default_factory=dict)
    nodes: list[_Node] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    external: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)


def open_onnx(file: BinaryIO, name: str, size: int, limits: Limits) -> Described | None:
    """The weights of an ONNX file; None when the bytes are some other protocol buffer.

    Raises:
        SpError: it is ONNX without weights of its own. ValueError and others where it is damaged.
    """
    walker = Walker(file, name, limits)
    graph = _Graph()
    sure = False
    try:
        versioned, held = False, False
        for part in walker.fields(0, size):
            versioned |= part.number == 1 and part.wire == VARINT and 0 < part.value < 100
            sure |= versioned and part.number in {2, 3} and part.wire == LENGTH
            if part.number == 7 and part.wire == LENGTH and versioned:
                held = True
                _read_graph(walker, part, graph, limits)
            elif part.number in {2, 3} and part.wire == LENGTH and part.end - part.start < 100:
                graph.facts["producer" if part.number == 2 else "producer_version"] = clean(walker.text(part))
            elif part.number == 8 and part.wire == LENGTH:
                versions = [one.value for one in walker.fields(part.start, part.end) if one.number == 2]
                graph.facts |= dict.fromkeys(["opset"], versions[-1]) if versions else {}
    except (ValueError, IndexError, struct.error):
        if sure:
            raise
        return None
    if not held:
        return None
    return _described(graph, name)


def _described(graph: _Graph, name: str) -> Described:
    notes = [NOTE]
    tensors, transposed, renamed = _as_torch(graph)
    if graph.external:
        notes.append(
            f"{len(graph.external)} tensors lie in other files, which are not followed; "
            "onnx.save(onnx.load(path), 'one.onnx') puts them in one."
        )
    if not tensors:
        why = notes[1] if graph.external else "give the network that it was made of."
        raise SpError(f"{name} is an ONNX file without weights of its own: {why}")
    if transposed:
        notes.append(f"{transposed} matrices were transposed to [out, in], as PyTorch keeps them.")
    if renamed:
        notes.append(f"{renamed} weights are named after the layers that use them.")
    return Described("onnx", tensors, graph.facts, notes)


# --- reading messages -------------------------------------------------------------------------------------------------


def _read_graph(walker: Walker, message: Field, graph: _Graph, limits: Limits) -> None:
    for part in walker.fields(message.start, message.end):
        if part.wire != LENGTH:
            continue
        if part.number == 1:
            node = _read_node(walker, part)
            if node.constant is not None and node.outputs:
                graph.tensors.setdefault(node.outputs[0], node.constant)
                graph.constants.add(node.outputs[0])
            graph.nodes.append(node)
        elif part.number == 5:
            name, tensor = _read_tensor(walker, part)
            if tensor is None:
                graph.external.append(name)
            elif name in graph.tensors:
                raise ValueError(f"'{name[:60]}' is named twice")
            else:
                graph.tensors[name] = tensor
            limits.check_count(len(graph.tensors), walker.name)


def _read_node(walker: Walker, message: Field) -> _Node:
    node = _Node()
    for part in walker.fields(message.start, message.end):
        if part.number == 1:
            node.inputs.append(walker.text(part))
        elif part.number == 2:
            node.outputs.append(walker.text(part))
        elif part.number == 3:
            node.name = walker.text(part)
        elif part.number == 4:
            node.kind = walker.text(part)
        elif part.number == 5:
            inner = list(walker.fields(part.start, part.end))
            key = "".join(walker.text(one) for one in inner if one.number == 1)
            for one in inner:
                if one.number == 3 and one.wire == VARINT:
                    node.numbers[key] = one.value
            if node.kind in {"Constant", ""} and key == "value":
                for one in inner:
                    if one.number == 5:
                        node.constant = _read_tensor(walker, one)[1]
    if node.kind != "Constant":
        node.constant = None
    return node


def _read_tensor(walker: Walker, message: Field) -> tuple[str, Stored | None]:
    """A ``TensorProto``: its name and where its numbers lie; None when that is another file."""
    shape: list[int] = []
    kind, name, external = 0, "", False
    found: Storage | None = None
    wide: list[int] = []
    loose = bytearray()  # numbers that are written one by one
    for part in walker.fields(message.start, message.end):
        if part.number == 1:
            shape += walker.whole_numbers(part)
        elif part.number == 2:
            kind = part.value
        elif part.number == 8:
            name = walker.text(part)
        elif part.number in _PLAIN_DATA and part.wire == LENGTH:
            found = Storage(torch.uint8, part.end - part.start, name, walker.file, part.start)
        elif part.number in _PLAIN_DATA and part.wire in {FIXED32, FIXED64}:
            loose += walker.data(part)
        elif part.number in _VARINT_DATA:
            wide += walker.whole_numbers(part)
        elif part.number == 13 or (part.number == 14 and part.value == 1):
            external = True
    if external:
        return name, None
    dtype = _DTYPES.get(kind)
    if dtype is None:  # texts, four-bit numbers: known to be there, left out
        return name, Stored(Storage(torch.uint8, 0, name), 0, (0,), (1,), None)
    if wide:
        loose = bytearray(_packed(wide, dtype))
    if found is None:
        found = Storage(torch.uint8, len(loose), name, io.BytesIO(bytes(loose)), 0)
    storage = replace(found, dtype=dtype, count=found.count // dtype.itemsize, name=name)
    made = stored(storage, 0, shape, contiguous(tuple(shape[:32])), dtype)
    if made.numel() * dtype.itemsize != found.count:
        raise ValueError(f"'{name[:60]}' has {found.count} bytes where {made.numel() * dtype.itemsize} are needed")
    return name, made


def _packed(numbers: list[int], dtype: torch.dtype) -> bytes:
    """Numbers that were widened for the message, as they lie in memory: halves stand as the bits of whole numbers."""
    width = dtype.itemsize
    mask = 2 ** (8 * width) - 1
    return b"".join((number & mask).to_bytes(width, "little") for number in numbers)


# --- as PyTorch keeps them --------------------------------------------------------------------------------------------


def _as_torch(graph: _Graph) -> tuple[dict[str, Stored], int, int]:
    """The weights by name, how many were transposed, and how many were named after the layer that uses them."""
    known = dict(graph.tensors)
    behind = {name: name for name in known}  # what an Identity or a DequantizeLinear passes on
    helpers: set[str] = set()  # scales and zeros
    for node in graph.nodes:
        first = 3 if node.kind == "QLinearConv" else 0  # where its weight is given
        source = behind.get(node.inputs[first]) if len(node.inputs) > first else None
        if node.kind in {"DequantizeLinear", "QuantizeLinear", "QLinearConv"}:
            helpers |= {*node.inputs[1:3], *(node.inputs[4:8] if node.kind == "QLinearConv" else ())}
        if source is None or not node.outputs:
            continue
        if node.kind == "QLinearConv":
            known[source] = _dequantised(known[source], node.inputs[4:6], known, 0) or known[source]
        elif node.kind == "Identity":
            behind[node.outputs[0]] = source
        elif node.kind == "DequantizeLinear":
            real = _dequantised(known[source], node.inputs[1:3], known, node.numbers.get("axis", 1))
            if real is not None:
                known[source] = real
                behind[node.outputs[0]] = source
    uses = _uses(graph, known, behind)
    tensors: dict[str, Stored] = {}
    transposed = renamed = 0
    for name, tensor in known.items():
        used = uses.get(name, [])
        if not _is_weight(tensor, used, name in helpers or name in graph.constants):
            continue
        if tensor.ndim == 2 and used and all(turned for _, turned in used):
            tensor, transposed = _transposed(tensor), transposed + 1
        named = [] if used and _ANONYMOUS.search(name) else [clean(name)]
        # An exporter keeps equal weights once: each layer gets its own again, tied.
        after = [path for path, _ in used if path not in known and (not named or len(used) > 1)]
        renamed += bool(after)
        for wanted in named + after or [clean(name)]:
            tensors.setdefault(wanted, tensor)
    return tensors, transposed, renamed


def _uses(graph: _Graph, known: Mapping[str, Stored], behind: Mapping[str, str]) -> dict[str, list[tuple[str, bool]]]:
    """For each weight the names that the layers using it would give it, and whether they take it as [in, out]."""
    uses: dict[str, list[tuple[str, bool]]] = {}
    made_by: dict[str, str] = {}  # the layer that an output comes from
    for place, node in enumerate(graph.nodes):
        if node.kind == "Add" and len(node.inputs) == 2:  # exporters of 2017 wrote the bias as a layer of its own
            for name, other in (node.inputs, node.inputs[::-1]):
                if name in behind and other in made_by and known[behind[name]].ndim == 1:
                    uses.setdefault(behind[name], []).append((f"{made_by[other]}.bias", False))
        leaves = _LEAVES.get(node.kind, ())
        if not leaves:
            continue
        # The weight of a layer says best what the layer was called.
        weight = next((name for name, leaf in zip(node.inputs, leaves, strict=False) if leaf == "weight"), "")
        path = clean(weight.removesuffix(".weight")) if weight.endswith(".weight") else _path(node, place)
        made_by |= dict.fromkeys(node.outputs, path)
        turned = node.kind == "MatMul" or (node.kind == "Gemm" and not node.numbers.get("transB"))
        for leaf, name in zip(leaves, node.inputs, strict=False):
            if leaf and name in behind:
                uses.setdefault(behind[name], []).append((f"{path}.{leaf}", turned and leaf == "weight"))
    return uses


def _is_weight(tensor: Stored, used: list[tuple[str, bool]], helper: bool) -> bool:
    """Leaves out the small numbers of a graph: shapes, axes, scales, constants of formulas."""
    if used:
        return True
    real = tensor.quantised is not None or (tensor.dtype is not None and tensor.dtype.is_floating_point)
    return not helper and real and tensor.numel() > 1


def _dequantised(tensor: Stored, scales: list[str], known: Mapping[str, Stored], axis: int) -> Stored | None:
    """The tensor with its scale and zero; None where they are not known, or are of a kind that is not read."""
    if tensor.dtype not in {torch.int8, torch.uint8, torch.int32} or not scales or scales[0] not in known:
        return None
    scale, zero = known[scales[0]], known.get(scales[1]) if len(scales) > 1 and scales[1] else None
    axis = axis - 2**64 + tensor.ndim if axis >= 2**63 else axis
    axis = axis if 0 <= axis < tensor.ndim else 0
    fits = {1, tensor.shape[axis] if tensor.ndim else 1}
    parts = [part for part in (scale, zero) if part is not None]
    if not all(part.is_dense and part.ndim <= 1 and part.numel() in fits for part in parts):
        return None
    return replace(tensor, quantised=Quantised(scale, zero if zero is not None else 0, axis))


def _transposed(tensor: Stored) -> Stored:
    quantised = tensor.quantised
    if quantised is not None:
        quantised = replace(quantised, axis=1 - quantised.axis)
    return replace(tensor, shape=tensor.shape[::-1], stride=tensor.stride[::-1], quantised=quantised)


def _path(node: _Node, place: int) -> str:
    """The path of the layer that a node came from, where the exporter wrote it, else its kind and place.

    >>> _path(_Node("Conv", "/layer1/layer1.0/conv1/Conv"), 3), _path(_Node("Conv"), 3)
    ('layer1.0.conv1', 'conv_3')
    """
    steps: list[str] = []
    last = ""
    for step in node.name.split("/")[1:-1] if node.name.startswith("/") else ():
        if last and step.startswith(f"{last}."):  # layer1, layer1.0
            steps.pop()
        steps.append(step)
        last = step
    path = ".".join(steps)
    return clean(path) or f"{node.kind.lower()}_{place}"
