"""Ways to spoil a file: as bytes, as a zip archive, as a pickle, as a header, as messages. All of it is seeded."""

import io
import json
import pickletools
import random
import struct
import zipfile

# Pieces of pickles that a reader must not stumble over, and calls that it must not make.
SNIPPETS = (
    b"cos\nsystem\n(S'echo executed >&2'\ntR",
    b"c__builtin__\neval\n(S'1/0'\ntR",
    b"c__builtin__\nbytearray\n\x8a\x05\x00\xe8vH\x17\x85R",
    b"c__builtin__\ngetattr\n(ctorch\nTensor\nS'__class__'\ntR",
    b"ctorch.hub\nload\n)R",
    b"(i__main__\nThing\n",
    b"(c__main__\nThing\no",
    b"c__main__\nThing\n)\x81}b",
    b"c__main__\nThing\n)}\x92",
    b"\x82\x01", b"\x8c\x02os\x8c\x06system\x93)R", b"0", b"1", b"2", b"(", b"t", b"l", b"d", b"e", b"u", b"s", b"a",
    b"b", b"R", b"Q", b"P1\n", b".", b")", b"]", b"}", b"\x8f", b"\x90", b"\x91", b"\x85", b"\x86", b"\x87", b"\x94",
    b"h\x00", b"j\xff\xff\xff\x7f", b"q\x00", b"r\xff\xff\xff\x7f", b"g5\n", b"p99999999\n",
    b"K\xff", b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x8b\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f", b"X\x03\x00\x00\x00\xed\xa0\x80", b"B\xff\xff\xff\x7f",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x96\x04\x00\x00\x00\x00\x00\x00\x00abcd",
    b"G\x7f\xf8\x00\x00\x00\x00\x00\x00", b"Fnan\n", b"I" + b"9" * 5000 + b"\n", b"L1L\n", b"N", b"\x88", b"V\\ud800\n",
    b"]" + b"\x94]a" * 50, b")" + b"\x85" * 500, b"(" * 200, b"]q\x07(h\x07h\x07h\x07e",
)  # fmt: skip
ODD = (
    None, True, -1, 0, 1, 2**40, 2**70, 1.5, "F32", "BF16", "F4", "../../etc/passwd", "/dev/zero", "", "a/b", "C:\\x",
    [], {}, [0, 1], [2, 1], [[]], {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "\ud800", "model.index.json",
)  # fmt: skip
NUMBERS = (0, 1, 2, 7, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**48, 2**63 - 1, 2**64 - 1)


def bytes_at_random(dice: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Bits turned, pieces cut, doubled, moved in from another file, numbers written over."""
    spoilt = bytearray(data) or bytearray(b"\0")
    for _ in range(dice.choice((1, 1, 2, 4, 12))):
        at, length = dice.randrange(len(spoilt)), dice.choice((1, 2, 4, 8, 30, 400))
        match dice.randrange(7):
            case 0:
                spoilt[at] ^= 1 << dice.randrange(8)
            case 1:
                del spoilt[at : at + length]
            case 2:
                spoilt[at:at] = spoilt[at : at + length]
            case 3:
                number = dice.choice(NUMBERS).to_bytes(8, dice.choice(("little", "big")))
                spoilt[at : at + dice.choice((1, 2, 4, 8))] = number[: dice.choice((1, 2, 4, 8))]
            case 4:
                other = dice.choice(others)
                start = dice.randrange(max(1, len(other)))
                spoilt[at : at + dice.choice((0, length))] = other[start : start + length]
            case 5:
                spoilt[at] = dice.randrange(256)
            case 6:
                del spoilt[at if dice.random() < 0.3 else max(at, len(spoilt) - length) :]
        spoilt = spoilt or bytearray(b"\0")
    return bytes(spoilt)


def beginning(dice: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The same within the first bytes, where headers, names and numbers of sizes stand."""
    end = min(len(data), dice.choice((64, 400, 3000)))
    return bytes_at_random(dice, data[:end], others) + data[end:]


def pickled(dice: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Instructions put in, taken out or swapped where instructions begin."""
    at = data.find(b"\x80")
    places = []
    try:
        stream = io.BytesIO(data)
        stream.seek(max(at, 0))
        for _ in range(5):
            for _, _, place in pickletools.genops(stream):
                places.append(place)
                if len(places) > 3000:
                    break
    except Exception:  # noqa: BLE001 -- an instruction that is none: what was found until then is enough
        pass
    if len(places) < 3:
        return bytes_at_random(dice, data, others)
    for _ in range(dice.choice((1, 1, 2, 3))):
        first = dice.randrange(len(places) - 1)
        match dice.randrange(4):
            case 0 | 1:
                data = data[: places[first]] + dice.choice(SNIPPETS) + data[places[first] :]
            case 2:
                last = min(first + dice.choice((1, 1, 3, 20)), len(places) - 1)
                data = data[: places[first]] + data[places[last] :]
            case 3:
                second = dice.randrange(len(places) - 1)
                piece = data[places[second] : places[min(second + 5, len(places) - 1)]]
                data = data[: places[first]] + piece + data[places[first] :]
    return data


def archived(dice: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One part of a zip archive spoilt, renamed, lost or doubled, or its directory rewritten."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [(item.filename, archive.read(item)) for item in archive.infolist()]
    except Exception:  # noqa: BLE001
        return bytes_at_random(dice, data, others)
    small = [place for place, (name, _) in enumerate(files) if not name.split("/")[-1].isdigit()] or [0]
    place = dice.choice(small) if dice.random() < 0.8 else dice.randrange(len(files))
    name, content = files[place]
    match dice.randrange(8):
        case 0 | 1 | 2:
            spoil = pickled if name.endswith(".pkl") else bytes_at_random
            files[place] = (name, spoil(dice, content, others))
        case 3:
            files[place] = (
                dice.choice(("../x", "", "a/data.pkl", name + "0", name.split("/")[0], "\0", name * 50)),
                content,
            )
        case 4:
            del files[place]
        case 5:
            files.append((dice.choice(files)[0], content))
        case 6:
            files[place] = (name, content[: dice.randrange(len(content) + 1)])
        case 7:
            packed = dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            return directory(dice, _zipped(files, packed), others)
    return _zipped(files, zipfile.ZIP_STORED)


def _zipped(files, packed) -> bytes:
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand there twice
        with zipfile.ZipFile(buffer, "w", packed) as archive:
            for name, content in files:
                archive.writestr(zipfile.ZipInfo(name), content, packed)
    return buffer.getvalue()


def directory(dice: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Numbers in a zip file's directory or its end written over."""
    spoilt = bytearray(data)
    entries = [place for place in range(len(data)) if data[place : place + 4] == b"PK\x01\x02"]
    end = data.rfind(b"PK\x05\x06")
    for _ in range(dice.choice((1, 2, 5))):
        if entries and dice.random() < 0.7:
            at = dice.choice(entries) + dice.choice((8, 10, 16, 20, 24, 28, 30, 32, 42))
        elif end >= 0:
            at = end + dice.choice((8, 10, 12, 16, 20))
        else:
            at = dice.randrange(len(spoilt))
        width = dice.choice((2, 4))
        value = dice.choice((*NUMBERS, dice.randrange(len(data) + 1)))
        spoilt[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(spoilt)


def header(dice: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Values in the JSON header of ``.safetensors``, or in an index, replaced."""
    lone = data[:1] == b"{"
    try:
        length = 0 if lone else struct.unpack("<Q", data[:8])[0]
        content = json.loads(data if lone else data[8 : 8 + length])
    except Exception:  # noqa: BLE001
        return bytes_at_random(dice, data, others)
    for _ in range(dice.choice((1, 1, 2))):
        place, keys = content, []
        while isinstance(place, (dict, list)) and place and (not keys or dice.random() < 0.75):
            keys.append((place, dice.choice(list(place)) if isinstance(place, dict) else dice.randrange(len(place))))
            place = keys[-1][0][keys[-1][1]]
        if not keys:
            break
        holder, key = keys[-1]
        if dice.random() < 0.2:
            del holder[key]
        elif isinstance(place, int) and dice.random() < 0.5:
            holder[key] = place + dice.choice((-4, -1, 1, 4, 400))
        else:
            holder[key] = dice.choice(ODD)
    text = json.dumps(content).encode()
    if lone:
        return text
    return struct.pack("<Q", len(text) + dice.choice((0, 0, 0, 1, -1))) + text + data[8 + length :]


def mutate(dice: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One spoilt file, in a way that suits it more often than not."""
    if data[:2] == b"PK":
        ways = (archived, archived, archived, archived, directory, bytes_at_random)
    elif data[:1] == b"{" or data[8:9] == b"{":
        ways = (header, header, beginning, bytes_at_random)
    elif data[:1] == b"\x80":
        ways = (pickled, pickled, pickled, beginning, bytes_at_random)
    else:
        ways = (beginning, bytes_at_random)
    return dice.choice(ways)(dice, data, others)
