"""What a pickle describes, without making any of it: a stack machine that calls nothing.

``pickle.Unpickler`` looks up names that the file gives and calls them with what the file gives; torch's safe reader
does so for a list of names. Here a name stays a :class:`Global`, a text. Calls, objects and their states become
:class:`Made`, a record of what the pickle wanted; the few functions that stand for plain values and tensors
(``stand_ins.py``) are answered by code of this project that builds descriptions. Nothing is imported, no attribute of
anything is looked up, nothing is allocated that is larger than the pickle itself.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from sp_core.checkpoints.limits import Limits, raised_by
from sp_core.checkpoints.stored import Storage, Stored
from sp_core.errors import SpError

_MARK = object()
_SIMPLE = (str, int, float, bool, bytes, type(None))
# Opcodes whose argument is the value itself.
_LITERALS = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "FLOAT",
        "BINFLOAT",
    ]
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


@dataclass(frozen=True, slots=True)
class Global:
    """A name of a class or function in a pickle, as text: ``Global("torch.nn.modules.conv.Conv2d")``."""

    name: str


@dataclass(eq=False, slots=True)
class Made:
    """An object that the pickle would have made: by calling ``maker`` with ``arguments``, and giving it ``state``."""

    maker: Any
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    @property
    def maker_name(self) -> str:
        """The class or function, in words."""
        return self.maker.name if isinstance(self.maker, Global) else "an unnamed object"


StandIn = Callable[["Machine", tuple[Any, ...]], Any]


class Machine:
    """Runs pickles one after another; remembers every tensor, storage and foreign object that it met.

    Args:
        stand_ins: what answers a call of a name; every other call becomes a :class:`Made`.
        find_storage: the storage that a persistent id names.
        plain: names that are harmless words, such as ``torch.float32``.
        name: of the file, for messages.
    """

    def __init__(
        self,
        stand_ins: Mapping[str, StandIn],
        find_storage: Callable[[Machine, Any], Any],
        plain: Callable[[str], bool],
        name: str,
        limits: Limits,
    ) -> None:
        self.stand_ins, self.find_storage, self.plain = stand_ins, find_storage, plain
        self.name, self.limits = name, limits
        self.tensors: list[Stored] = []
        self.storages: dict[Any, Storage] = {}
        self.called: dict[str, None] = {}  # foreign names that would have been called, in order
        self.named: dict[str, None] = {}  # every name that is not plain
        self._steps = 0

    def spend(self, steps: int) -> None:
        """Count work; refuses a pickle of more than the limit."""
        self._steps += steps
        if self._steps > self.limits.steps:
            raise SpError(
                f"{self.name} has more than {self.limits.steps} pickled parts{raised_by('steps')}; "
                "save the state dict alone."
            )

    def run(self, stream: BinaryIO) -> Any:
        """The value that the next pickle of ``stream`` describes; reads up to its last byte."""
        self.stack: list[Any] = []
        self.marks = 0
        self.memo: dict[int, Any] = {}
        for opcode, argument, _position in pickletools.genops(_Bounded(stream, self.limits, self.name)):  # type: ignore[arg-type]
            self.spend(1)
            name = opcode.name
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name == "STOP":
                return self.stack.pop()
            elif name not in {"PROTO", "FRAME"}:
                _OPCODES[name](self, argument)
        raise EOFError("the pickle has no end")

    # --- what opcodes do ---------------------------------------------------------------------------------------------

    def _mark(self, _: Any) -> None:
        self.marks += 1
        if self.marks > self.limits.nesting:
            raise SpError(
                f"{self.name} nests containers more than {self.limits.nesting} deep{raised_by('nesting')}; "
                "save the state dict alone."
            )
        self.stack.append(_MARK)

    def _since_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:  # IndexError where there is none: the file is damaged
            at -= 1
            if at < 0:
                raise IndexError("a part has no beginning")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        self.marks -= 1
        return values

    def _put(self, index: Any) -> None:
        self.memo[len(self.memo) if index is None else int(index)] = self.stack[-1]

    def _get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    def _tuple(self, count: int) -> None:
        values = tuple(self.stack[len(self.stack) - count :])
        if len(values) != count or any(value is _MARK for value in values):
            raise IndexError("a part is missing")
        del self.stack[len(self.stack) - count :]
        self.stack.append(values)

    def _append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Made):
            target.items.extend(values)
        else:
            raise TypeError("parts are appended to what is no list")

    def _set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if len(values) % 2:
            raise ValueError("a key has no value")
        if isinstance(target, dict):
            for key, value in zip(values[::2], values[1::2], strict=True):
                target[_key(key)] = value
        elif isinstance(target, Made):
            target.items.extend(zip(values[::2], values[1::2], strict=True))
        else:
            raise TypeError("keys are given to what is no dictionary")

    def _dictionary(self, _: Any) -> None:
        values = self._since_mark()
        self.stack.append({})
        self._set_items(values)

    def _global(self, argument: str) -> None:
        self.stack.append(self._named(argument.replace(" ", ".", 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name is no text")
        self.stack.append(self._named(f"{module}.{name}"))

    def _extension(self, code: int) -> None:
        self.stack.append(self._named(f"copyreg.extension.{code}"))

    def _named(self, name: str) -> Global:
        name = ".".join("builtins" if part == "__builtin__" else part for part in name[:200].split("."))
        name = "".join(letter if letter.isprintable() else "?" for letter in name)
        if not self.plain(name):
            self.named.setdefault(name)
        return Global(name)

    def call(self, maker: Any, arguments: Any) -> Any:
        """What calling ``maker`` stands for: a stand-in's answer, or a record of it."""
        if isinstance(arguments, list):
            self.spend(len(arguments))
        arguments = tuple(arguments) if isinstance(arguments, (tuple, list)) else (arguments,)
        stand_in = self.stand_ins.get(maker.name) if isinstance(maker, Global) else None
        if stand_in is not None:
            return stand_in(self, arguments)
        made = Made(maker, arguments)
        if not (isinstance(maker, Global) and self.plain(maker.name)):
            self.called.setdefault(made.maker_name)
        return made

    def _reduce(self, _: Any) -> None:
        arguments, maker = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(maker, arguments))

    def _new_with_keywords(self, _: Any) -> None:
        keywords, arguments, maker = self.stack.pop(), self.stack.pop(), self.stack.pop()
        made = self.call(maker, arguments)
        if isinstance(made, Made):
            made.items.append(keywords)
        self.stack.append(made)

    def _instance(self, argument: str) -> None:
        values = self._since_mark()
        self.stack.append(self.call(self._named(argument.replace(" ", ".", 1)), values))

    def _object(self, _: Any) -> None:
        maker, *values = self._since_mark()
        self.stack.append(self.call(maker, values))

    def _build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if target is _MARK:
            raise IndexError("a state belongs to nothing")
        if isinstance(target, Made):
            target.state = state  # the state of a dictionary or a tensor (_metadata, hooks) is of no use here

    def _persistent(self, argument: Any) -> None:
        self.stack.append(self.find_storage(self, argument if argument is not None else self.stack.pop()))


def _key(key: Any) -> Any:
    """A key that is cheap and safe to hash; others (nested tuples, objects) become a text of their own."""
    if isinstance(key, _SIMPLE) or (isinstance(key, tuple) and all(isinstance(part, _SIMPLE) for part in key)):
        return key
    return f"<{type(key).__name__} {id(key)}>"


_OPCODES: dict[str, Callable[[Machine, Any], Any]] = {
    "MARK": Machine._mark,
    "POP": lambda m, _: m._since_mark() if m.stack[-1] is _MARK else m.stack.pop(),
    "POP_MARK": lambda m, _: m._since_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine._get),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_SET": lambda m, _: m.stack.append([]),  # never hashed: a set is read as a list
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "TUPLE": lambda m, _: m.stack.append(tuple(m._since_mark())),
    "LIST": lambda m, _: m.stack.append(m._since_mark()),
    "FROZENSET": lambda m, _: m.stack.append(m._since_mark()),
    "DICT": Machine._dictionary,
    "APPEND": lambda m, _: m._append([m.stack.pop()]),
    "APPENDS": lambda m, _: m._append(m._since_mark()),
    "ADDITEMS": lambda m, _: m._append(m._since_mark()),
    "SETITEM": lambda m, _: m._set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m._set_items(m._since_mark()),
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), Machine._extension),
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,
    "NEWOBJ_EX": Machine._new_with_keywords,
    "INST": Machine._instance,
    "OBJ": Machine._object,
    "BUILD": Machine._build,
    "PERSID": Machine._persistent,
    "BINPERSID": Machine._persistent,
}


class _Bounded:
    """A stream for ``pickletools`` that gives no more bytes than a pickle may have, however many a length asks for."""

    def __init__(self, stream: BinaryIO, limits: Limits, name: str) -> None:
        self.stream, self.left, self.name, self.limits = stream, limits.header_mb * 2**20, name, limits

    def read(self, count: int) -> bytes:
        return self._spent(self.stream.read(min(count, self.left + 1)))

    def readline(self) -> bytes:
        return self._spent(self.stream.readline(self.left + 1))

    def tell(self) -> int:
        return self.stream.tell()

    def _spent(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise SpError(
                f"{self.name} lists more than {self.limits.header_mb} MB of names{raised_by('header_mb')}; "
                "that is no network."
            )
        return data
