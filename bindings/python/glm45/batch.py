"""Several sessions of one model in shared forward passes, on the caller's thread."""
from __future__ import annotations

from contextlib import ExitStack
from ctypes import POINTER, byref, c_void_p, pointer
from typing import TYPE_CHECKING, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from . import _ffi
from .events import Error, Event, Paused, Ready, TurnEnd
from .stream import LOOK_UP_NS, as_event

if TYPE_CHECKING:
    from .model import Model
    from .session import Session


def step(model: "Model", sessions: Sequence["Session"], budget_ns: int) -> List[Event]:
    """See Model.step."""
    n = len(sessions)
    records = [_ffi.EventRecord() for _ in sessions]
    with ExitStack() as stack:  # until the events' strings are copied
        for s in sessions:
            s._settle_if_left()
        handles = (c_void_p * n)(*[stack.enter_context(s._handle) for s in sessions])
        events = (POINTER(_ffi.EventRecord) * n)(*[pointer(r) for r in records])
        how = _ffi.Step(budget_ns=budget_ns)
        model.library.call("glm_sessions_step", handles, n, byref(how), events)
        return [s._taken(as_event(s, r)) for s, r in zip(sessions, records)]


def _cancel(sessions: Iterable["Session"]) -> None:
    """Ends turns that are under way."""
    for s in sessions:
        s.cancel()
    for s in sessions:
        s._abandon(s._n_stream)


def stream_all(model: "Model", sessions: Iterable["Session"],
               budget_ns: Optional[int]) -> Iterator[Tuple["Session", Event]]:
    """See Model.stream_all. Sessions beyond what one pass takes begin as others end."""
    left = list(sessions)
    began: Set["Session"] = set()
    most = model.info.batch_max
    try:
        while left:
            group = left[:most]
            began.update(group)
            events = step(model, group, LOOK_UP_NS if budget_ns is None else budget_ns)
            over = {s for s, e in zip(group, events) if isinstance(e, (TurnEnd, Error, Ready))}
            left = [s for s in left if s not in over]
            began -= over
            for session, event in zip(group, events):
                if budget_ns is not None or not isinstance(event, Paused):
                    yield session, event
    finally:
        _cancel(began)
