"""The C library through ctypes: structs and constants as in <glm45/glm45.h>, finding and loading the shared library,
errors, and handles that are never used after they were closed. Nothing here knows what a conversation is.
"""
from __future__ import annotations

import ctypes
import os
import sys
import threading
from ctypes import (POINTER, c_char, c_char_p, c_double, c_float, c_int32, c_size_t, c_ssize_t, c_uint8, c_uint32, c_uint64,
                    c_void_p)
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, List, Mapping, NoReturn, Optional, Tuple, Type, Union

VERSION = (0, 1)
LAST_ROW = 2**64 - 1
MESSAGE_SPECIALS = 1
TOKENIZE_SPECIALS = 1
ROWS_LAST, ROWS_ALL = 0, 1

STATUS: Dict[str, int] = {
    "GLM_OK": 0, "GLM_EINVAL": -1, "GLM_ENOMEM": -2, "GLM_EIO": -3, "GLM_EFORMAT": -4, "GLM_ESTATE": -5,
    "GLM_EBUSY": -6, "GLM_ELIMIT": -7, "GLM_ECONTEXT": -8, "GLM_EUTF8": -9, "GLM_ESCHEMA": -10, "GLM_EVERSION": -11,
    "GLM_EMISMATCH": -12, "GLM_EDEVICE": -13, "GLM_ENUMERIC": -14, "GLM_EFORK": -15, "GLM_ENOTSUP": -16,
}
OK, EINVAL, EIO, ESTATE, EBUSY, ELIMIT, EVERSION = 0, -1, -3, -5, -6, -7, -11

# The enumerations, by the names that this package takes and gives.
WEIGHTS = {"map": 0, "read": 1, "none": 2}
TEMPLATES = {"auto": 0, "4.5": 1, "4.7": 2}
KV_TYPES = {"auto": 0, "f32": 1, "bf16": 2, "int8": 3, "fp8": 4}
DEVICES = {"cpu": 0, "cuda": 1}
ACTIVATIONS = {"auto": 0, "f32": 1}
OVERFLOWS = {"error": 0, "drop": 1}
SPECULATIONS = {"auto": 0, "off": 1, "on": 2}
ROLES = {"system": 0, "user": 1, "assistant": 2, "tool": 3}
THINKING = {"on": 0, "off": 1, "budget": 2}
TOOL_CHOICES = {"auto": 0, "none": 1, "required": 2, "named": 3}
END_REASONS = {"stop": 0, "length": 1, "cancelled": 2, "tools": 3, "time": 4}
EVENTS = {"none": 0, "prefill": 1, "reasoning": 2, "text": 3, "tool_call_begin": 4, "tool_call_delta": 5,
          "tool_call": 6, "turn_end": 7, "think_cut": 8, "loop": 9, "ready": 10, "error": 11}


class Sized(ctypes.Structure):
    """A struct that begins with its own size. Built without arguments it is what the header's INIT macro gives."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.struct_size = ctypes.sizeof(self)


class Error(Sized):
    _fields_ = [("struct_size", c_uint32), ("code", c_int32), ("offset", c_uint64), ("where", c_char * 128),
                ("message", c_char * 256)]


AllocFn = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_size_t, c_size_t)
ReleaseFn = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_size_t, c_size_t)
LogFn = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_void_p, c_size_t)
RunFn = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_uint32)
FileOpenFn = ctypes.CFUNCTYPE(c_int32, c_void_p, c_char_p, POINTER(c_void_p), POINTER(c_uint64))
FileReadFn = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_uint64, c_void_p, c_uint64)
FileMapFn = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_uint64, c_uint64, POINTER(c_void_p))
FileUnmapFn = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_uint64)
FileCloseFn = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
ProgressFn = ctypes.CFUNCTYPE(c_int32, c_void_p, c_uint64, c_uint64)
WriteFn = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t)
ReadFn = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t, POINTER(c_size_t))


class Allocator(Sized):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("user", c_void_p), ("alloc", AllocFn),
                ("release", ReleaseFn)]


class Logger(Sized):
    _fields_ = [("struct_size", c_uint32), ("max_level", c_uint32), ("user", c_void_p), ("write", LogFn)]


class Runner(Sized):
    _fields_ = [("struct_size", c_uint32), ("width", c_uint32), ("user", c_void_p), ("run", RunFn)]


class Files(Sized):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("user", c_void_p), ("open", FileOpenFn),
                ("read", FileReadFn), ("map", FileMapFn), ("unmap", FileUnmapFn), ("close", FileCloseFn)]


class ModelOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("weights", c_uint32), ("template_family", c_uint32), ("device", c_uint32),
                ("device_index", c_int32), ("n_threads", c_uint32), ("activations", c_uint32), ("repack", c_uint32),
                ("kv_bytes", c_uint64), ("expert_cache_bytes", c_uint64), ("plugin_path", c_char_p),
                ("allocator", POINTER(Allocator)), ("logger", POINTER(Logger)), ("runner", POINTER(Runner)),
                ("files", POINTER(Files)), ("progress_user", c_void_p), ("progress", ProgressFn)]


class ModelInfo(Sized):
    _fields_ = [("struct_size", c_uint32), ("template_family", c_uint32), ("n_layer", c_uint32),
                ("n_vocab", c_uint32), ("n_ctx_train", c_uint32), ("d_model", c_uint32), ("n_expert", c_uint32),
                ("n_expert_used", c_uint32), ("n_nextn", c_uint32), ("batch_max", c_uint32),
                ("kv_bytes_per_token", c_uint64), ("weight_bytes", c_uint64), ("fingerprint", c_uint8 * 32)]


class Estimate(Sized):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("mapped_bytes", c_uint64),
                ("private_bytes", c_uint64), ("kv_bytes", c_uint64), ("device_bytes", c_uint64)]


class SessionOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("n_ctx", c_uint32), ("kv_type", c_uint32), ("overflow", c_uint32),
                ("event_bytes", c_uint64), ("speculation", c_uint32), ("reserved", c_uint32)]


class Message(Sized):
    _fields_ = [("struct_size", c_uint32), ("role", c_uint32), ("text", c_char_p), ("text_size", c_size_t),
                ("reasoning", c_char_p), ("reasoning_size", c_size_t), ("calls_json", c_char_p),
                ("calls_size", c_size_t), ("flags", c_uint32), ("reserved", c_uint32)]


class TurnOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("thinking", c_uint32), ("think_tokens", c_uint32),
                ("max_tokens", c_uint32), ("max_ns", c_uint64), ("seed", c_uint64), ("temperature", c_float),
                ("top_p", c_float), ("min_p", c_float), ("repeat_penalty", c_float), ("top_k", c_int32),
                ("tool_choice", c_uint32), ("tool_name", c_char_p), ("think_close", c_char_p),
                ("answer_schema", c_char_p), ("stop", POINTER(c_char_p)), ("n_stop", c_uint32),
                ("n_logprobs", c_uint32), ("stop_lines", c_uint32), ("stop_dedent", c_uint32),
                ("keep_thoughts", c_uint32), ("reserved", c_uint32),
                ("answer_pattern", c_char_p)]

    def __init__(self, **fields: Any) -> None:
        nan = float("nan")
        as_it_is = {"temperature": nan, "top_p": nan, "min_p": nan, "repeat_penalty": nan, "top_k": -1}
        super().__init__(**{**as_it_is, **fields})


class EventRecord(Sized):
    _fields_ = [("struct_size", c_uint32), ("type", c_uint32), ("status", c_int32), ("end_reason", c_uint32),
                ("call_id", c_uint64), ("text", c_void_p), ("text_size", c_size_t), ("name", c_void_p),
                ("name_size", c_size_t), ("arguments", c_void_p), ("arguments_size", c_size_t),
                ("rows_done", c_uint64), ("rows_total", c_uint64), ("n_prompt", c_uint64), ("n_reused", c_uint64),
                ("n_think", c_uint64), ("n_answer", c_uint64), ("prefill_ns", c_uint64), ("decode_ns", c_uint64),
                ("pending", c_uint32), ("reserved", c_uint32)]


class Step(Sized):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("budget_ns", c_uint64)]


class Stats(Sized):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("n_prompt", c_uint64), ("n_reused", c_uint64),
                ("n_generated", c_uint64), ("n_drafted", c_uint64), ("n_accepted", c_uint64), ("kv_bytes", c_uint64),
                ("kv_shared_bytes", c_uint64), ("draft_speedup", c_double),
                ("n_expert_hit", c_uint64), ("n_expert_miss", c_uint64),
                ("n_expert_foreseen", c_uint64), ("n_foreseen_used", c_uint64), ("expert_bytes_read", c_uint64),
                ("expert_wait_ns", c_uint64)]


class ByteStream(Sized):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("user", c_void_p), ("write", WriteFn),
                ("read", ReadFn)]


STRUCTS: Mapping[str, Type[Sized]] = {
    "glm_error": Error, "glm_allocator": Allocator, "glm_logger": Logger, "glm_runner": Runner, "glm_files": Files,
    "glm_model_options": ModelOptions, "glm_model_info": ModelInfo, "glm_estimate": Estimate,
    "glm_session_options": SessionOptions, "glm_message": Message, "glm_turn_options": TurnOptions,
    "glm_event": EventRecord, "glm_step": Step, "glm_stats": Stats, "glm_stream": ByteStream,
}

_handle, _out, _err = c_void_p, POINTER(c_void_p), POINTER(Error)
_ids, _floats = POINTER(c_int32), POINTER(POINTER(c_float))
_event, _how, _bytes = POINTER(EventRecord), POINTER(Step), POINTER(ByteStream)
# name: (result, arguments). A function whose last argument is _err returns a status.
FUNCTIONS: Mapping[str, Tuple[Any, List[Any]]] = {
    "glm_version": (c_uint32, []),
    "glm_status_name": (c_char_p, [c_int32]),
    "glm_model_open": (c_int32, [c_char_p, POINTER(ModelOptions), _out, _err]),
    "glm_model_close": (None, [_handle]),
    "glm_model_describe": (c_int32, [_handle, POINTER(ModelInfo), _err]),
    "glm_model_estimate": (c_int32, [c_char_p, POINTER(ModelOptions), POINTER(SessionOptions), c_uint32,
                                     POINTER(Estimate), _err]),
    "glm_session_open": (c_int32, [_handle, POINTER(SessionOptions), _out, _err]),
    "glm_session_close": (None, [_handle]),
    "glm_session_say": (c_int32, [_handle, c_uint32, c_char_p, c_size_t, _err]),
    "glm_session_add": (c_int32, [_handle, POINTER(Message), _err]),
    "glm_session_messages": (c_int32, [_handle, c_char_p, c_size_t, POINTER(c_uint64), _err]),
    "glm_session_tools": (c_int32, [_handle, c_char_p, c_size_t, _err]),
    "glm_session_turn": (c_int32, [_handle, POINTER(TurnOptions), _err]),
    "glm_session_step": (c_int32, [_handle, _how, _event, _err]),
    "glm_sessions_step": (c_int32, [POINTER(_handle), c_uint32, _how, POINTER(_event), _err]),
    "glm_session_end_thought": (c_int32, [_handle, _err]),
    "glm_tool_result": (c_int32, [_handle, c_uint64, c_char_p, c_size_t, _err]),
    "glm_session_cancel": (None, [_handle]),
    "glm_session_stats": (c_int32, [_handle, POINTER(Stats), _err]),
    "glm_session_start": (c_int32, [_handle, _err]),
    "glm_session_poll": (c_int32, [_handle, _event, _err]),
    "glm_session_fd": (c_ssize_t, [_handle]),
    "glm_session_fork": (c_int32, [_handle, _out, _err]),
    "glm_session_mark": (c_int32, [_handle, POINTER(c_uint64), _err]),
    "glm_session_rewind": (c_int32, [_handle, c_uint64, _err]),
    "glm_session_save": (c_int32, [_handle, c_char_p, _err]),
    "glm_session_save_to": (c_int32, [_handle, _bytes, _err]),
    "glm_session_load": (c_int32, [_handle, c_char_p, POINTER(SessionOptions), _out, _err]),
    "glm_session_load_from": (c_int32, [_handle, _bytes, POINTER(SessionOptions), _out, _err]),
    "glm_session_infill": (c_int32, [_handle, c_char_p, c_size_t, c_char_p, c_size_t, _err]),
    "glm_session_infill_file": (c_int32, [_handle, c_char_p, c_char_p, c_size_t, _err]),
    "glm_tokenize": (c_int32, [_handle, c_char_p, c_size_t, c_uint32, _ids, c_size_t, POINTER(c_size_t), _err]),
    "glm_detokenize": (c_int32, [_handle, _ids, c_size_t, c_void_p, c_size_t, POINTER(c_size_t), _err]),
    "glm_session_feed": (c_int32, [_handle, _ids, c_size_t, c_uint32, _err]),
    "glm_session_logits": (c_int32, [_handle, c_uint64, _floats, _err]),
    "glm_session_hidden": (c_int32, [_handle, c_uint64, _floats, _err]),
    "glm_session_mask": (c_int32, [_handle, POINTER(POINTER(c_uint32)), _err]),
    "glm_session_sample": (c_int32, [_handle, _ids, _err]),
}


class GlmError(Exception):
    """What the library refused, or could not go on with.

    code: the negative status; name: "GLM_EINVAL" and so on; where: the file, tensor, argument, key or JSON pointer;
    offset: byte, token, row or number, where one applies; message: a sentence with the remedy.
    """

    def __init__(self, code: int, where: str, offset: int, message: str) -> None:
        super().__init__(code, where, offset, message)
        self.code = code
        self.name = next((n for n, c in STATUS.items() if c == code), f"status {code}")
        self.where = where
        self.offset = offset
        self.message = message

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" + (f" ({self.where})" if self.where else "")


def invalid(where: str, message: str) -> NoReturn:
    """Raises what the library would for a wrong argument."""
    raise GlmError(EINVAL, where, 0, message)


def code_of(value: str, table: Mapping[str, int], where: str) -> int:
    """The number of a name such as "user" or "bf16"."""
    if value not in table:
        invalid(where, f"{value!r} is none of " + ", ".join(map(repr, table)))
    return table[value]


def c_text(text: Union[str, bytes], where: str) -> bytes:
    """Text that the library takes up to its NUL."""
    data = utf8(text)
    if b"\0" in data:
        invalid(where, "a NUL character in it")
    return data


def name_of(code: int, table: Mapping[str, int]) -> str:
    """The name of a number that the library gave."""
    return next((name for name, c in table.items() if c == code), str(code))


def unsigned(value: int, bits: int, where: str) -> int:
    """The value, if it fits: ctypes would cut it silently."""
    if not 0 <= value < 1 << bits:
        invalid(where, f"{value} is not between 0 and 2**{bits} - 1")
    return value


def utf8(text: Union[str, bytes]) -> bytes:
    """Text as the library takes it. Lone surrogates pass: the library refuses them with their offset."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def text_at(pointer: Optional[int], size: int) -> str:
    """A copy of text in the library's memory."""
    return ctypes.string_at(pointer, size).decode("utf-8", "replace") if pointer else ""


class Library:
    """The shared library with its functions' types set."""

    def __init__(self, path: str) -> None:
        self.path = path
        # CDLL gives the interpreter's lock back during calls: other Python threads run while a step computes.
        self.cdll = ctypes.CDLL(path)
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self.cdll, name)
            function.restype, function.argtypes = result, arguments
        self.version: Tuple[int, int, int] = self._version()
        if self.version[:2] != VERSION:
            found, wanted = ".".join(map(str, self.version)), ".".join(map(str, VERSION))
            raise GlmError(EVERSION, path, 0, f"the library is version {found}, this package needs {wanted}")

    def _version(self) -> Tuple[int, int, int]:
        n = int(self.cdll.glm_version())
        return n // 10000, n // 100 % 100, n % 100

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function that returns a status, and raises GlmError for a negative one."""
        err = Error()
        if getattr(self.cdll, name)(*arguments, ctypes.byref(err)):
            raise GlmError(err.code, err.where.decode("utf-8", "replace"), err.offset,
                           err.message.decode("utf-8", "replace"))


def library_names() -> List[str]:
    """What the shared library is called here."""
    if sys.platform == "darwin":
        return ["libglm45.1.dylib", "libglm45.dylib"]
    if sys.platform == "win32":
        return ["glm45-1.dll", "glm45.dll"]
    return ["libglm45.so.1", "libglm45.so"]


def candidates(path: Optional[str]) -> List[str]:
    """Where to look: what the caller or GLM45_LIBRARY says and nothing else, or next to this package, then wherever
    the system's loader looks."""
    given = path or os.environ.get("GLM45_LIBRARY")
    if given:
        return [given]
    here = [str(Path(__file__).parent / name) for name in library_names()]
    return [p for p in here if os.path.exists(p)] + library_names()


_loaded: Dict[str, Library] = {}
_load_lock = threading.Lock()


def load_library(path: Union[None, str, "os.PathLike[str]"] = None) -> Library:
    """The shared library: path, the environment variable GLM45_LIBRARY, next to the package, or the system's.

    Raises OSError when there is none, with the places that were tried.
    """
    tried = []
    with _load_lock:
        for place in candidates(os.fspath(path) if path is not None else None):
            try:
                if place not in _loaded:
                    _loaded[place] = Library(place)
                return _loaded[place]
            except (OSError, AttributeError) as e:
                tried.append(f"{place}: {e}")
    raise OSError("no usable libglm45; set GLM45_LIBRARY to it, or pass library=. Tried " + "; ".join(tried))


class Handle:
    """A pointer that the library gave. Any thread may use it or close it at any time: `with handle as pointer` keeps it
    open until the end of the block, and whoever is last after a close gives it back.
    """

    def __init__(self, what: str, pointer: int, close: Callable[[int], object], keep: object) -> None:
        self._what = what
        self._pointer = pointer
        self._close = close
        self._keep = keep  # what the library may call until the handle is closed
        self._pid = os.getpid()
        self._lock = threading.RLock()  # reentrant: signal handlers and finalizers run inside of any call
        self._users = 0
        self._closing = False
        self._closed = False

    def __enter__(self) -> int:
        if os.getpid() != self._pid:  # the lock may be for ever held in a child; the library refuses the handle
            return self._pointer
        with self._lock:
            if self._closing:
                invalid(self._what, f"the {self._what} is closed")
            self._users += 1
        return self._pointer

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if os.getpid() == self._pid:
            with self._lock:
                self._users -= 1
            self._give_back()

    @property
    def closed(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Closes it now, or when the last user is done. Again is fine."""
        self._closing = True
        if os.getpid() == self._pid:
            self._give_back()

    def _give_back(self) -> None:
        with self._lock:
            if not self._closing or self._users or self._closed:
                return
            self._closed = True
        self._close(self._pointer)
        self._keep = None
