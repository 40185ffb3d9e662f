"""Where sessions are saved to and loaded from: files by path, which the library itself writes and replaces, or Python's
binary file objects, whose exceptions come out of the call as they are."""
from __future__ import annotations

import ctypes
import os
from ctypes import c_size_t
from types import TracebackType
from typing import IO, Optional, Type, Union

from . import _ffi

Place = Union[str, bytes, "os.PathLike[str]", IO[bytes]]


class FileObject:
    """A file object as the library's stream, for a `with` around the call that uses it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._raised: Optional[BaseException] = None

    def __enter__(self) -> _ffi.ByteStream:
        self._stream = _ffi.ByteStream(write=_ffi.WriteFn(self._write), read=_ffi.ReadFn(self._read))
        return self._stream

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        del self._stream  # its callbacks hold self: no cycle may stay
        if self._raised is not None:
            try:
                raise self._raised from None
            finally:
                self._raised = None

    def _write(self, _user: Optional[int], data: int, size: int) -> int:
        try:
            rest = memoryview(ctypes.string_at(data, size))
            while len(rest):
                written = self._file.write(rest)
                rest = rest[len(rest) if written is None else written:]
        except BaseException as e:  # goes on in __exit__, behind the library's frames
            self._raised = e
            return _ffi.EIO
        return _ffi.OK

    def _read(self, _user: Optional[int], data: int, size: int, got: "ctypes._Pointer[c_size_t]") -> int:
        try:
            piece = self._file.read(size)
            if not isinstance(piece, bytes) or len(piece) > size:
                raise TypeError(f"{self._file!r} is not open for reading bytes")
            ctypes.memmove(data, piece, len(piece))
            got[0] = c_size_t(len(piece))
        except BaseException as e:
            self._raised = e
            return _ffi.EIO
        return _ffi.OK


def is_path(place: Place) -> bool:
    return isinstance(place, (str, bytes, os.PathLike))


def path_bytes(path: Union[str, bytes, "os.PathLike[str]"]) -> bytes:
    """A file's name as the library takes it."""
    return _ffi.c_text(os.fsencode(path), "path")
