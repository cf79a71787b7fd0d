"""Writes ONNX messages by hand, so that tests need neither the library nor its idea of what is well formed."""

import struct


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


KINDS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}


def tensor(name, array, how="raw", kind=None):
    """A ``TensorProto`` of a NumPy array; ``how`` is the field the numbers stand in."""
    out = b"".join(number(1, size) for size in array.shape) + number(2, kind or KINDS[str(array.dtype)])
    flat = array.ravel()
    if how == "raw":
        out += block(9, array.tobytes())
    elif how == "float":
        out += block(4, flat.astype("<f4").tobytes())
    elif how == "float one by one":
        out += b"".join(varint(4 << 3 | 5) + struct.pack("<f", value) for value in flat)
    elif how == "double":
        out += block(10, flat.astype("<f8").tobytes())
    elif how == "int32":  # halves as the bits of whole numbers
        whole = flat.view("uint16") if flat.dtype == "float16" else flat
        out += block(5, b"".join(varint(int(value)) for value in whole))
    elif how == "int64":
        out += block(7, b"".join(varint(int(value)) for value in flat))
    elif how == "external":
        out += block(13, block(1, "location") + block(2, "../secret.bin")) + number(14, 1)
    return out + block(8, name)


def node(kind, inputs, outputs, name="", **numbers):
    out = b"".join(block(1, one) for one in inputs) + b"".join(block(2, one) for one in outputs)
    out += block(3, name) + block(4, kind)
    for key, value in numbers.items():
        made = block(5, value) + number(20, 4) if isinstance(value, bytes) else number(3, value) + number(20, 2)
        out += block(5, block(1, key) + made)
    return out


def model(nodes, tensors, opset=17):
    graph = b"".join(block(1, one) for one in nodes) + b"".join(block(5, one) for one in tensors)
    return number(1, 8) + block(2, "by hand") + block(3, "1") + block(7, graph) + block(8, number(2, opset))
