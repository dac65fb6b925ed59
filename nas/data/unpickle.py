"""Read a pickle that may hold plain data and numpy arrays and nothing else; nothing in the file is run.

A pickle is a program. This reader never lets it name a real function or class: what it may name (the way
numpy 1 and 2 write arrays, Python 2 and 3 write bytes) becomes an inert record, and the records are turned
into arrays of numbers after the program has ended, each checked against its stated shape.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

DEPTH = 8  # of nesting; a data batch has 2
NUMBER = re.compile(r"b1|[iu][1248]|f[248]|c(8|16)")  # the element types that hold nothing but numbers
BYTE_ORDER = {"|": "=", "=": "=", "<": "<", ">": ">"}

# Building values, containers and the memo, calling what find_class returned, and nothing else: no
# persistent ids, no extension registry, no instances of classes (INST, OBJ, NEWOBJ), no sets, no buffers.
_PLAIN = """
PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4
FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE
BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2
TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL
STACK_GLOBAL REDUCE BUILD
"""
OPCODES = frozenset(_PLAIN.split())
MEMO = ("PUT", "BINPUT", "LONG_BINPUT")


class _Inert:
    """A record of what the pickle asked for. It refuses state, so that a pickle cannot change it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> NoReturn:
        raise ValueError("it sets the state of something that has none")


class _Name(_Inert):
    """A class named as an argument (numpy.ndarray): it can be passed on and not called."""

    __slots__ = ()


class _Dtype:
    """numpy.dtype("u1", False, True), then a state that gives the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise ValueError("it builds an array of records")
        order = _text(state[1])
        if order not in BYTE_ORDER:
            raise ValueError(f"it builds an array of byte order {order!r}")
        self.order = BYTE_ORDER[order]


class _Array:
    """An array to be: its state is (version, shape, dtype, Fortran order, bytes)."""

    __slots__ = ("state",)

    def __init__(self, state: tuple[Any, ...] = ()) -> None:
        self.state = state

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("it builds an array without shape, type and bytes")
        self.state = state


class _Scalar(_Inert):
    """A numpy number: its type and its bytes."""

    __slots__ = ("dtype", "raw")

    def __init__(self, dtype: object, raw: object) -> None:
        self.dtype, self.raw = dtype, raw


class _Call(_Inert):
    """A function that a pickle may name; calling it makes a record."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *arguments: object) -> object:
        record = _CALLS[self._name](arguments)
        if record is None:
            raise ValueError(f"it calls {self._name} with arguments that no data batch has")
        return record


def _reconstruct(arguments: tuple[Any, ...]) -> _Array | None:
    return _Array() if len(arguments) == 3 and isinstance(arguments[0], _Name) else None


def _frombuffer(arguments: tuple[Any, ...]) -> _Array | None:
    if len(arguments) != 4:
        return None
    buffer, dtype, shape, order = arguments
    return _Array((1, shape, dtype, order == "F", buffer))


def _dtype(arguments: tuple[Any, ...]) -> _Dtype | None:
    code = _text(arguments[0]) if arguments else ""
    if not NUMBER.fullmatch(code):
        raise ValueError(f"it builds an array of type {code!r}; only numbers are read")
    return _Dtype(code)


def _scalar(arguments: tuple[Any, ...]) -> _Scalar | None:
    return _Scalar(*arguments) if len(arguments) == 2 else None


def _encode(arguments: tuple[Any, ...]) -> bytes | None:
    """Python 3 writes bytes in protocol 2 as _codecs.encode(text, "latin1")."""
    text, codec = arguments if len(arguments) == 2 else (None, None)
    return text.encode("latin1") if isinstance(text, str) and codec in ("latin1", "latin-1") else None


def _empty(arguments: tuple[Any, ...]) -> bytes | None:
    """... and the empty bytes as bytes()."""
    return None if arguments else b""


_CALLS = {
    "_reconstruct": _reconstruct,
    "_frombuffer": _frombuffer,
    "dtype": _dtype,
    "scalar": _scalar,
    "encode": _encode,
    "bytes": _empty,
}
ALLOWED = frozenset(
    {
        ("numpy.core.multiarray", "_reconstruct"),  # numpy 1
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy._core.multiarray", "_reconstruct"),  # numpy 2
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
        ("__builtin__", "bytes"),
        ("builtins", "bytes"),
    }
)


class _Unpickler(pickle.Unpickler):
    """An unpickler whose every name is an inert stand-in."""

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return _Name()
        if (module, name) not in ALLOWED:
            raise ValueError(f"it asks for {module}.{name}")
        return _Call(name)


def read_pickle(path: Path) -> Any:
    """The contents of a pickle: dicts, lists, tuples, str, bytes, numbers and numeric numpy arrays.

    Strings of Python 2 come as bytes. Raises ValueError for anything else in the file, naming it, and for a
    file that is cut off or damaged; nothing in the file is run in any case.
    """
    content = path.read_bytes()
    try:
        _scan(content)
        return _plain(_Unpickler(BytesIO(content), encoding="bytes").load(), depth=0, done={})
    except Exception as error:  # a damaged program can fail in any way: each of them is a bad file
        raise ValueError(
            f"{path} is no data batch: {error or type(error).__name__}. Nothing in it was run; fetch it again"
        ) from error


def _scan(content: bytes) -> None:
    """Read the program without running it: only known opcodes, no memo slot beyond the file's length."""
    program = pickletools.genops(content)
    while True:
        try:
            opcode, argument, _ = next(program)
        except StopIteration:
            return
        except Exception as error:
            raise ValueError(f"the pickle is cut off or damaged ({error})") from error
        if opcode.name not in OPCODES:
            raise ValueError(f"it uses the opcode {opcode.name}, which plain data do not need")
        if opcode.name in MEMO and not 0 <= int(argument or 0) <= len(content):
            raise ValueError("its memo is larger than the file")


def _plain(thing: Any, *, depth: int, done: dict[int, Any]) -> Any:
    """`thing` with its records replaced by arrays and numbers. `done` holds what was converted already."""
    if depth > DEPTH:
        raise ValueError(f"it is nested deeper than {DEPTH}")
    if thing is None or isinstance(thing, bool | int | float | str | bytes):
        return thing
    if id(thing) not in done:
        done[id(thing)] = _convert(thing, depth=depth, done=done)
    return done[id(thing)]


def _convert(thing: Any, *, depth: int, done: dict[int, Any]) -> Any:
    if isinstance(thing, dict):
        return {
            _plain(key, depth=depth + 1, done=done): _plain(value, depth=depth + 1, done=done)
            for key, value in thing.items()
        }
    if isinstance(thing, list | tuple):
        return type(thing)(_plain(item, depth=depth + 1, done=done) for item in thing)
    if isinstance(thing, bytearray):
        return bytes(thing)
    if isinstance(thing, _Array):
        return _array(thing.state)
    if isinstance(thing, _Scalar):
        return _array((1, (), thing.dtype, False, thing.raw)).item()
    raise ValueError("it holds something other than dicts, lists, text, numbers and arrays of numbers")


def _array(state: tuple[Any, ...]) -> Any:
    """The numpy array of a state, after checking that the bytes are as many as shape and type make."""
    import numpy as np

    if not state:
        raise ValueError("it builds an array without contents")
    _, shape, dtype, fortran, raw = state
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray):
        raise ValueError("it builds an array of something other than numbers")
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"it builds an array of shape {shape!r}")
    kind = np.dtype(dtype.code).newbyteorder(dtype.order)  # type: ignore[arg-type]
    if len(shape) > 16 or math.prod(shape) * kind.itemsize != len(raw):
        raise ValueError(f"it builds an array of shape {shape} and type {kind} from {len(raw)} bytes")
    return np.frombuffer(bytes(raw), kind).reshape(shape, order="F" if fortran else "C")


def _text(thing: object) -> str:
    if isinstance(thing, bytes):
        return thing.decode("latin1")
    return thing if isinstance(thing, str) else repr(thing)
