"""Python functions as tools: declared to the model by their signature and docstring, called with arguments that were
checked against it.

    @tool
    def get_weather(city: str, unit: Literal["c", "f"] = "c") -> str:
        \"\"\"Get the weather of a city.\"\"\"
"""
from __future__ import annotations

import asyncio
import dataclasses
import enum
import inspect
import json
import re
from typing import (Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, TypeVar, Union, get_type_hints,
                    overload)

from . import _ffi
from .hints import Wrong, convert, schema

Function = Callable[..., Any]
ToolLike = Union[Function, Mapping[str, Any], str, bytes, Sequence[Union[Function, Mapping[str, Any]]]]
F = TypeVar("F", bound=Function)

_MARK = "__glm45_tool__"  # (name, description) that override what a function says itself


# ---- what a function says of itself ------------------------------------------------------------------------------------

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?):\s*$")
_ITEM = re.compile(r"^\s+(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")
_FIELD = re.compile(r"^:(param|return|returns|raises|rtype|type)\b(?:\s+[^:]*?)?\s*(\w*):\s*(.*)$")


def read_docstring(text: str) -> Tuple[str, Dict[str, str]]:
    """A docstring's description, and those of its parameters: "Args:" with an indented line each, or ":param name:"."""
    description: List[str] = []
    items: Dict[str, List[str]] = {}
    section, item = "", ""
    for line in inspect.cleandoc(text).split("\n"):
        title, field = _SECTION.match(line), _FIELD.match(line)
        entry = _ITEM.match(line) if section in ("Args", "Arguments", "Parameters") else None
        if title:
            section, item = title[1], ""
        elif field:
            section, item = "field", field[2] if field[1] == "param" else ""
            items[item] = [field[3]]
        elif entry and not (item and len(line) - len(line.lstrip()) > 4):
            item = entry[1]
            items[item] = [entry[2]]
        elif item and line.strip():
            items[item].append(line.strip())
        elif not section:
            description.append(line)
    items.pop("", None)
    return "\n".join(description).strip(), {name: " ".join(lines).strip() for name, lines in items.items()}


def _name(function: Function) -> str:
    name = getattr(function, _MARK, (None, None))[0] or getattr(function, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        raise TypeError(f"{function!r} has no name that a model could call it by: use tool(name=...)")
    return name


def _parameters(function: Function) -> List[Tuple[inspect.Parameter, Any]]:
    """The parameters with their types. TypeError for what no JSON object can fill."""
    called = function if inspect.isroutine(function) else getattr(function, "__call__")
    try:
        hints = get_type_hints(called, include_extras=True)
    except NameError as e:
        raise TypeError(f"{_name(function)}: a type cannot be resolved: {e}") from None
    out = []
    for p in inspect.signature(function).parameters.values():
        if p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            raise TypeError(f"{_name(function)}: {p} cannot be given by name; a tool's parameters have to be")
        if p.name not in hints:
            raise TypeError(f"{_name(function)}: the parameter {p.name} has no type; a tool's parameters need one")
        out.append((p, hints[p.name]))
    return out


def _default(value: object) -> Dict[str, Any]:
    try:
        plain = json.loads(to_json(value))
    except (TypeError, ValueError):
        return {}
    return {} if plain is None else {"default": plain}


def declaration(function: Function) -> Dict[str, Any]:
    """A function as chat APIs declare a tool. TypeError where its signature cannot be."""
    name = _name(function)
    description, said = read_docstring(inspect.getdoc(function) or "")
    properties: Dict[str, Any] = {}
    required: List[str] = []
    for p, hint in _parameters(function):
        try:
            entry = schema(hint)
        except TypeError as e:
            raise TypeError(f"{name}: the parameter {p.name}: {e}") from None
        if p.name in said:
            entry.setdefault("description", said[p.name])
        if p.default is p.empty:
            required.append(p.name)
        else:
            entry.update(_default(p.default))
        properties[p.name] = entry
    parameters: Dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    description = getattr(function, _MARK, (None, None))[1] or description
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


@overload
def tool(function: F) -> F: ...
@overload
def tool(*, name: Optional[str] = None, description: Optional[str] = None) -> Callable[[F], F]: ...


def tool(function: Optional[F] = None, *, name: Optional[str] = None,
         description: Optional[str] = None) -> Union[F, Callable[[F], F]]:
    """Marks a function as a tool and checks that it can be one; it stays the function that it is. Session.tools takes
    unmarked functions too.

    The model is told the name, the docstring, and the parameters: str, int, float, bool, None, list[T], tuple, dict[str,
    T], Literal, Enum, Optional, Union, dataclasses, TypedDict, and Annotated[T, "what it is"]. A parameter with a default
    need not be given. Parameters are described by Annotated or under "Args:" in the docstring.
    """
    def mark(f: F) -> F:
        setattr(f, _MARK, (name, description))
        first = next(iter(inspect.signature(f).parameters), "")
        if first not in ("self", "cls"):  # a method is checked once it is bound
            declaration(f)
        return f

    return mark if function is None else mark(function)


# ---- what a session is given ---------------------------------------------------------------------------------------------

def functions_of(tools: Iterable[object]) -> Dict[str, Function]:
    """The functions among them, by the names that the model knows them by."""
    return {_name(t): t for t in tools if callable(t)}


def _items(tools: Sequence[ToolLike]) -> List[object]:
    """Tools in any of their forms, one by one."""
    out: List[object] = []
    for t in tools:
        if isinstance(t, (str, bytes)):
            parsed = json.loads(t)
            out += parsed if isinstance(parsed, list) else [parsed]
        elif callable(t) or isinstance(t, Mapping):
            out.append(t)
        else:
            out += t
    return out


def declare(tools: Sequence[ToolLike]) -> Tuple[bytes, Dict[str, Function]]:
    """The JSON array for the library, and the functions in it."""
    if len(tools) == 1 and isinstance(tools[0], (str, bytes)):  # as it is, so that errors point into it
        return _ffi.utf8(tools[0]), {}
    items = _items(tools)
    declared = [declaration(t) if callable(t) else t for t in items]
    return _ffi.utf8(json.dumps(declared, ensure_ascii=False)), functions_of(items)


# ---- calls -----------------------------------------------------------------------------------------------------------------

def _plain(value: object) -> object:
    """For json.dumps: what a tool may return beside JSON's own types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"{value!r} has no form in JSON")


def to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _result(value: object) -> str:
    return value if isinstance(value, str) else to_json(value)


def _error(message: str) -> str:
    return json.dumps({"error": message}, ensure_ascii=False)


def _failure(e: Exception) -> str:
    return _error(f"{type(e).__name__}: {e}" if str(e) else type(e).__name__)


def _find(functions: Mapping[str, Function], name: str) -> Function:
    if name not in functions:
        raise Wrong(f"there is no tool {name}; there are: {', '.join(functions) or 'none'}")
    return functions[name]


def check_arguments(function: Function, arguments_json: str) -> Dict[str, Any]:
    """A call's arguments as the function's types have them. Wrong says what does not fit."""
    given = json.loads(arguments_json)
    out: Dict[str, Any] = {}
    for p, hint in _parameters(function):
        if p.name in given:
            out[p.name] = convert(given.pop(p.name), hint, p.name)
        elif p.default is p.empty:
            raise Wrong(f"{p.name} is missing")
    for name in given:
        raise Wrong(f"{name} is no parameter of {_name(function)}")
    return out


def carry_out(functions: Mapping[str, Function], name: str, arguments_json: str) -> str:
    """The result of a call, as text for the model. What goes wrong is a result, too."""
    try:
        function = _find(functions, name)
        arguments = check_arguments(function, arguments_json)
    except Wrong as e:
        return _error(str(e))
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"the tool {name} is an `async def`: use `await chat.stream(...)` or `await call.arun()`")
    try:
        return _result(function(**arguments))
    except Exception as e:
        return _failure(e)


async def carry_out_async(functions: Mapping[str, Function], name: str, arguments_json: str) -> str:
    """As carry_out; a function that is no coroutine runs in a thread."""
    function = functions.get(name)
    if not inspect.iscoroutinefunction(function):
        return await asyncio.to_thread(carry_out, functions, name, arguments_json)
    assert function is not None
    try:
        return _result(await function(**check_arguments(function, arguments_json)))
    except Wrong as e:
        return _error(str(e))
    except Exception as e:
        return _failure(e)
