"""Models: opening a checkpoint, what it is, what it would need, its tokens."""
from __future__ import annotations

import ctypes
import logging
import os
import weakref
from array import array
from ctypes import byref, c_int32, c_size_t, c_void_p
from dataclasses import dataclass
from types import TracebackType
from typing import (TYPE_CHECKING, Any, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple, Type, Union)

from . import _ffi
from .options import session_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .events import Event
    from .options import SessionKeywords
    from .session import Session
    from .snapshot import Place
    from .tools import Function

PathLike = Union[str, bytes, "os.PathLike[str]"]
LibraryLike = Union[None, str, "os.PathLike[str]", _ffi.Library]
LogSink = Union[logging.Logger, Callable[[int, str], object]]
Progress = Callable[[int, int], object]

_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}


@dataclass(frozen=True)
class ModelInfo:
    """What the checkpoint is. Sizes in bytes; fingerprint is a SHA-256."""
    template: str
    n_layer: int
    n_vocab: int
    n_ctx_train: int
    d_model: int
    n_expert: int
    n_expert_used: int
    n_nextn: int
    batch_max: int
    kv_bytes_per_token: int
    weight_bytes: int
    fingerprint: bytes


@dataclass(frozen=True)
class Estimate:
    """Memory that a model and its sessions would need, in bytes."""
    mapped_bytes: int
    private_bytes: int
    kv_bytes: int
    device_bytes: int


class _Open:
    """The options of one opening, with what has to stay alive: while it runs, or (logger) until the last close."""

    def __init__(self, *, weights: str = "map", template: str = "auto", threads: int = 0, activations: str = "auto",
                 kv_bytes: int = 0, expert_cache_bytes: int = 0, device: str = "cpu", device_index: int = 0,
                 logger: Optional[LogSink] = None, log_level: int = 3, progress: Optional[Progress] = None) -> None:
        self.options = _ffi.ModelOptions(
            weights=_ffi.code_of(weights, _ffi.WEIGHTS, "weights"),
            template_family=_ffi.code_of(template, _ffi.TEMPLATES, "template"),
            device=_ffi.code_of(device, _ffi.DEVICES, "device"),
            device_index=_ffi.unsigned(device_index, 31, "device_index"),
            n_threads=_ffi.unsigned(threads, 32, "threads"),
            activations=_ffi.code_of(activations, _ffi.ACTIVATIONS, "activations"),
            kv_bytes=_ffi.unsigned(kv_bytes, 64, "kv_bytes"),
            expert_cache_bytes=_ffi.unsigned(expert_cache_bytes, 64, "expert_cache_bytes"))
        self.raised: Optional[BaseException] = None
        self.keep: Tuple[object, ...] = ()
        if logger is not None:
            self._set_logger(logger, log_level)
        if progress is not None:
            self._set_progress(progress)

    def _set_logger(self, sink: LogSink, level: int) -> None:
        if isinstance(sink, logging.Logger):
            log = sink

            def put(level: int, text: str) -> None:
                log.log(_LEVELS.get(level, logging.DEBUG), "%s", text)
        else:
            call = sink

            def put(level: int, text: str) -> None:
                call(level, text)

        def write(_user: Optional[int], level: int, text: int, size: int) -> None:
            put(level, _ffi.text_at(text, size))

        hook = _ffi.LogFn(write)
        struct = _ffi.Logger(max_level=_ffi.unsigned(level, 32, "log_level"), write=hook)
        self.options.logger = ctypes.pointer(struct)
        self.keep = (hook, struct)

    def _set_progress(self, progress: Progress) -> None:
        def report(_user: Optional[int], done: int, total: int) -> int:
            try:
                progress(done, total)
            except BaseException as e:  # goes on in open, behind the library's frames
                self.raised = e
                return 1
            return 0

        self.options.progress = _ffi.ProgressFn(report)

    def call(self, lib: _ffi.Library, name: str, *arguments: Any) -> None:
        """A call with these options; an exception from progress comes out of it as it is."""
        try:
            lib.call(name, *arguments)
        except _ffi.GlmError:
            if self.raised is None:
                raise
        finally:
            self.options.progress = _ffi.ProgressFn()  # the closure holds self: no cycle may stay
        if self.raised is not None:
            try:
                raise self.raised
            finally:
                self.raised = None


def _path_bytes(path: PathLike) -> bytes:
    name = os.fsencode(path)
    if b"\0" in name:
        _ffi.invalid("path", "a NUL character in a file's name")
    return name


def _library(library: LibraryLike) -> _ffi.Library:
    return library if isinstance(library, _ffi.Library) else _ffi.load_library(library)


def as_ids(ids: Iterable[int]) -> Any:
    """Token ids as the library takes them; arrays of numbers of any library will do."""
    try:
        items = array("i", ids)
    except OverflowError:
        _ffi.invalid("ids", "an id is outside the vocabulary")
    return (c_int32 * len(items)).from_buffer_copy(items)


class Model:
    """A checkpoint: a Hugging Face folder or a GGUF file. Any number of threads may use it at once.

        with Model("path/to/checkpoint") as model, model.session() as chat:
            print(chat.chat("Hello!"))

    weights: "map", "read" (into memory) or "none" (tokenizer and chat format only); template: "auto", "4.5" or "4.7";
    threads: 0 for the machine's cores, at most 8; activations: "auto" or "f32"; kv_bytes: a cap for the caches of all
    sessions, 0 for none; expert_cache_bytes: for models larger than the memory, keep so many bytes of experts and read the
    others when they are needed, 0 to map them all; logger: a logging.Logger or a callable(level, text) for lines up to log_level (1 errors to 4
    debugging); progress: a callable(done, total) while weights are read (an exception from it gives up and comes out
    here); library: the shared library, if load_library() should not look for it.
    """

    def __init__(self, path: PathLike, *, weights: str = "map", template: str = "auto", threads: int = 0,
                 activations: str = "auto", kv_bytes: int = 0, expert_cache_bytes: int = 0, device: str = "cpu",
                 device_index: int = 0, logger: Optional[LogSink] = None, log_level: int = 3,
                 progress: Optional[Progress] = None, library: LibraryLike = None) -> None:
        name = _path_bytes(path)
        self.library = _library(library)
        how = _Open(weights=weights, template=template, threads=threads, activations=activations, kv_bytes=kv_bytes,
                    expert_cache_bytes=expert_cache_bytes, device=device, device_index=device_index, logger=logger,
                    log_level=log_level, progress=progress)
        out = c_void_p()
        how.call(self.library, "glm_model_open", name, byref(how.options), byref(out))
        self._keep = how.keep
        self._handle = _ffi.Handle("model", out.value or 0, self.library.cdll.glm_model_close, how.keep)
        self._finalizer = weakref.finalize(self, self._handle.close)

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Gives the model back; sessions go on with it until they are closed. Again is fine."""
        self._finalizer()

    @property
    def closed(self) -> bool:
        return self._handle.closed

    @property
    def info(self) -> ModelInfo:
        """What the checkpoint is."""
        out = _ffi.ModelInfo()
        with self._handle as handle:
            self.library.call("glm_model_describe", handle, byref(out))
        return ModelInfo(
            template=_ffi.name_of(out.template_family, _ffi.TEMPLATES), n_layer=out.n_layer, n_vocab=out.n_vocab,
            n_ctx_train=out.n_ctx_train, d_model=out.d_model, n_expert=out.n_expert,
            n_expert_used=out.n_expert_used, n_nextn=out.n_nextn, batch_max=out.batch_max,
            kv_bytes_per_token=out.kv_bytes_per_token, weight_bytes=out.weight_bytes,
            fingerprint=bytes(out.fingerprint))

    @staticmethod
    def estimate(path: PathLike, *, sessions: int = 1, n_ctx: int = 0, kv_type: str = "auto", weights: str = "map",
                 threads: int = 0, activations: str = "auto", expert_cache_bytes: int = 0,
                 library: LibraryLike = None) -> Estimate:
        """What opening the checkpoint and so many sessions would need, from its headers alone."""
        name, lib, out = _path_bytes(path), _library(library), _ffi.Estimate()
        how = _Open(weights=weights, threads=threads, activations=activations, expert_cache_bytes=expert_cache_bytes)
        lib.call("glm_model_estimate", name, byref(how.options), byref(session_options(n_ctx=n_ctx, kv_type=kv_type)),
                 _ffi.unsigned(sessions, 32, "sessions"), byref(out))
        return Estimate(out.mapped_bytes, out.private_bytes, out.kv_bytes, out.device_bytes)

    def session(self, **options: "Unpack[SessionKeywords]") -> "Session":
        """Opens a session. n_ctx: most tokens, 0 for the model's; kv_type: "auto", "f32", "bf16", "int8" or "fp8";
        overflow: what happens when the context is full, "error", or "drop" the oldest turns from the model's sight;
        event_bytes: in `async for`, the worker pauses when so much waits to be taken, 0 for 1 MiB; speculation: drafts
        by the model's own layer for it, "auto", "off" or "on", which never change the text."""
        from .session import Session
        return Session(self, **options)

    def load(self, source: "Place", *, tools: "Iterable[Function]" = (),
             **options: "Unpack[SessionKeywords]") -> "Session":
        """A session from what Session.save wrote, a path or a binary file object: it goes on as the saved one would,
        and computes nothing again. tools: the functions of its tools, which a snapshot cannot hold. Options that are
        not given are the saved ones."""
        from .session import Session
        from .snapshot import FileObject, path_bytes
        from .tools import functions_of
        record, out = session_options(**options), c_void_p()
        with self._handle as handle:
            if isinstance(source, (str, bytes)) or hasattr(source, "__fspath__"):
                self.library.call("glm_session_load", handle, path_bytes(source), byref(record), byref(out))
            else:
                with FileObject(source) as stream:
                    self.library.call("glm_session_load_from", handle, byref(stream), byref(record), byref(out))
        return Session._of(self, out, functions_of(tools))

    def step(self, sessions: "Sequence[Session]", budget_ms: Optional[float] = None) -> "List[Event]":
        """Steps sessions of this model together, in at most one forward pass that all of them share: one event each, or
        Paused. At most info.batch_max; they may join and leave between calls."""
        from .batch import step
        from .options import nanoseconds
        return step(self, sessions, 0 if budget_ms is None else nanoseconds(budget_ms / 1e3, "budget_ms"))

    def stream_all(self, sessions: "Iterable[Session]", *,
                   budget_ms: Optional[float] = None) -> "Iterator[Tuple[Session, Event]]":
        """The events of the turns of any number of sessions, computed together: (session, event) pairs until each has
        had its TurnEnd, or an Error in place of an exception. Leaving the loop early cancels the turns that began."""
        from .batch import stream_all
        from .options import nanoseconds
        return stream_all(self, sessions, None if budget_ms is None else nanoseconds(budget_ms / 1e3, "budget_ms"))

    def tokenize(self, text: Union[str, bytes], *, specials: bool = False) -> List[int]:
        """Text to token ids. specials: special tokens spelled out in the text are meant as such."""
        data, flags, n = _ffi.utf8(text), _ffi.TOKENIZE_SPECIALS if specials else 0, c_size_t()
        capacity = len(data) + 1  # a token has at least one byte
        while True:
            ids = (c_int32 * capacity)()
            try:
                with self._handle as handle:
                    self.library.call("glm_tokenize", handle, data, len(data), flags, ids, capacity, byref(n))
                return ids[:n.value]
            except _ffi.GlmError as e:
                if e.code != _ffi.ELIMIT or n.value <= capacity:
                    raise
                capacity = n.value

    def detokenize(self, ids: Iterable[int]) -> str:
        """Token ids to text; bytes that are no UTF-8 become U+FFFD."""
        items, size = as_ids(ids), c_size_t()
        capacity = 16 * len(items) + 16
        while True:
            text = ctypes.create_string_buffer(capacity)
            try:
                with self._handle as handle:
                    self.library.call("glm_detokenize", handle, items, len(items), text, capacity, byref(size))
                return text.raw[:size.value].decode("utf-8", "replace")
            except _ffi.GlmError as e:
                if e.code != _ffi.ELIMIT or size.value < capacity:
                    raise
                capacity = size.value + 1
