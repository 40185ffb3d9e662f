"""Type hints as JSON Schema, and JSON values as what the hints say. Nothing here knows of tools or models."""
from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import json
import sys
from typing import Annotated, Any, Dict, List, Literal, Mapping, Tuple, Union, get_args, get_origin, get_type_hints


class Wrong(ValueError):
    """A value that does not fit its type; the text says where and what was expected."""


_PLAIN: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_LISTS = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Iterable,
          collections.abc.Collection)
_SETS = (set, frozenset, collections.abc.Set)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_UNIONS: Tuple[Any, ...] = (Union,) + ((getattr(__import__("types"), "UnionType"),) if sys.version_info >= (3, 10) else ())
_MARKS = ("Required", "NotRequired", "ReadOnly")  # around a TypedDict's fields; typing or typing_extensions


def _is_typed_dict(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, dict) and hasattr(hint, "__total__")


def _mark(hint: Any) -> str:
    origin = get_origin(hint)
    return str(getattr(origin, "_name", None) or getattr(origin, "__name__", ""))


def _unwrap(hint: Any) -> Tuple[Any, str]:
    """A hint without Annotated and a field's marks, and the description that stood there."""
    description = ""
    while True:
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
            description = description or next((n for n in notes if isinstance(n, str)), "")
        elif _mark(hint) in _MARKS:
            hint = get_args(hint)[0]
        elif hasattr(hint, "__supertype__"):  # NewType
            hint = hint.__supertype__
        else:
            return hint, description


def _fields(cls: Any) -> Tuple[Dict[str, Any], List[str]]:
    """The fields of a dataclass or TypedDict, and which of them have to be there."""
    hints = get_type_hints(cls, include_extras=True)
    if not _is_typed_dict(cls):
        fields = [f for f in dataclasses.fields(cls) if f.init]
        must = [f.name for f in fields
                if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
        return {f.name: hints[f.name] for f in fields}, must
    must = [name for name, hint in hints.items()
            if _mark(hint) == "Required" or (name in cls.__required_keys__ and _mark(hint) != "NotRequired")]
    return hints, must


def _is_object(hint: Any) -> bool:
    return _is_typed_dict(hint) or (isinstance(hint, type) and dataclasses.is_dataclass(hint))


def _say(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)


# ---- schemas -------------------------------------------------------------------------------------------------------------

def _values_schema(values: List[Any]) -> Dict[str, Any]:
    types = {_PLAIN.get(type(v)) for v in values}
    one = types.pop() if len(types) == 1 else None
    return {"type": one, "enum": values} if one else {"enum": values}


def _members(cls: Any) -> List[Tuple[Any, Any]]:
    """What JSON has for an Enum's members, and they: their values, or their names where a value is no JSON scalar."""
    return [(m.value if isinstance(m.value, (str, int, float)) else m.name, m) for m in cls]


def _object_schema(cls: Any, inside: Tuple[Any, ...]) -> Dict[str, Any]:
    if cls in inside:
        raise TypeError(f"{_say(cls)} contains itself; a tool's types have to end somewhere")
    fields, must = _fields(cls)
    out: Dict[str, Any] = {"type": "object",
                           "properties": {name: schema(hint, inside + (cls,)) for name, hint in fields.items()}}
    if must:
        out["required"] = must
    return out


def _union_schema(members: Tuple[Any, ...], inside: Tuple[Any, ...]) -> Dict[str, Any]:
    each = [schema(m, inside) for m in members]
    if all(list(e) == ["type"] and isinstance(e["type"], str) for e in each):
        return {"type": [e["type"] for e in each]}
    return {"anyOf": each}


def _generic_schema(hint: Any, inside: Tuple[Any, ...]) -> Dict[str, Any]:
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin in _LISTS or origin in _SETS:
        out: Dict[str, Any] = {"type": "array"}
        if arguments:
            out["items"] = schema(arguments[0], inside)
        if origin in _SETS:
            out["uniqueItems"] = True
        return out
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return {"type": "array", "items": schema(arguments[0], inside)}
    if origin is tuple and arguments:
        return {"type": "array", "prefixItems": [schema(a, inside) for a in arguments], "minItems": len(arguments),
                "maxItems": len(arguments)}
    if origin in _MAPPINGS:
        if arguments and _unwrap(arguments[0])[0] is not str:
            raise TypeError(f"{_say(hint)}: JSON has only strings as keys")
        return {"type": "object", "additionalProperties": schema(arguments[1], inside)} if arguments else {
            "type": "object"}
    raise TypeError(f"{hint!r} is no type that a tool can take")


def schema(hint: Any, inside: Tuple[Any, ...] = ()) -> Dict[str, Any]:
    """A type hint as JSON Schema. TypeError where there is none. inside: the classes that are being described."""
    hint, description = _unwrap(hint)
    if hint in (Any, object):
        out: Dict[str, Any] = {}
    elif hint is None or (isinstance(hint, type) and hint in _PLAIN):
        out = {"type": _PLAIN[hint if hint is not None else type(None)]}
    elif get_origin(hint) is Literal:
        out = _values_schema(list(get_args(hint)))
    elif get_origin(hint) in _UNIONS:
        out = _union_schema(get_args(hint), inside)
    elif isinstance(hint, enum.EnumMeta):
        out = _values_schema([value for value, _ in _members(hint)])
    elif _is_object(hint):
        out = _object_schema(hint, inside)
        description = description or _own_docstring(hint)
    else:
        out = _generic_schema(hint, inside)
    return {**out, "description": description} if description else out


def _own_docstring(cls: Any) -> str:
    """Not the signature that dataclass makes up."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    return "" if text.startswith(f"{cls.__name__}(") else text


# ---- values --------------------------------------------------------------------------------------------------------------

def _expected(what: str, value: object, at: str) -> Wrong:
    given = json.dumps(value, ensure_ascii=False)
    return Wrong(f"{at} must be {what}, not {given if len(given) <= 80 else given[:77] + '...'}")


def _plain_value(value: Any, hint: Any, at: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and number:
        return float(value)
    if hint is int and number and float(value).is_integer():
        return int(value)
    if hint not in (int, float) and type(value) is hint:
        return value
    raise _expected({str: "a string", int: "an integer", float: "a number", bool: "true or false"}.get(hint, "null"),
                    value, at)


def _one_of(value: Any, choices: List[Tuple[Any, Any]], at: str) -> Any:
    for choice, meant in choices:
        if choice == value and isinstance(choice, bool) == isinstance(value, bool):
            return meant
    raise _expected("one of " + ", ".join(json.dumps(c, ensure_ascii=False) for c, _ in choices), value, at)


def _union_value(value: Any, members: Tuple[Any, ...], at: str) -> Any:
    """The first member of exactly the value's type, else the first that takes it."""
    taken: List[Any] = []
    problems: List[str] = []
    for m in members:
        try:
            taken.append(convert(value, m, at))
        except Wrong as e:
            problems.append(str(e))
    if not taken:
        raise Wrong("; or ".join(problems))
    return next((t for t in taken if type(t) is type(value)), taken[0])


def _object_value(value: Any, cls: Any, at: str) -> Any:
    if not isinstance(value, dict):
        raise _expected("an object", value, at)
    fields, must = _fields(cls)
    for name in must:
        if name not in value:
            raise Wrong(f"{at}.{name} is missing")
    for name in value:
        if name not in fields:
            raise Wrong(f"{at}.{name} is not known; there are {', '.join(fields)}")
    out = {name: convert(v, fields[name], f"{at}.{name}") for name, v in value.items()}
    return out if _is_typed_dict(cls) else cls(**out)


def _list_value(value: Any, origin: Any, arguments: Tuple[Any, ...], at: str) -> Any:
    if not isinstance(value, list):
        raise _expected("an array", value, at)
    each: List[Any] = [arguments[0] if arguments else Any] * len(value)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        each = list(arguments)
        if len(value) != len(each):
            raise _expected(f"an array of {len(each)}", value, at)
    made = [convert(v, hint, f"{at}[{i}]") for i, (v, hint) in enumerate(zip(value, each))]
    return tuple(made) if origin is tuple else set(made) if origin in _SETS else made


def convert(value: Any, hint: Any, at: str) -> Any:
    """A JSON value as the type that a hint, which has a schema, stands for. at: what the value is called in Wrong."""
    hint, _ = _unwrap(hint)
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if hint in (Any, object):
        return value
    if hint is None or (isinstance(hint, type) and hint in _PLAIN):
        return _plain_value(value, hint if hint is not None else type(None), at)
    if origin is Literal:
        return _one_of(value, [(a, a) for a in arguments], at)
    if origin in _UNIONS:
        return _union_value(value, arguments, at)
    if isinstance(hint, enum.EnumMeta):
        return _one_of(value, _members(hint), at)
    if _is_object(hint):
        return _object_value(value, hint, at)
    if origin in _MAPPINGS:
        if not isinstance(value, dict):
            raise _expected("an object", value, at)
        return {k: convert(v, arguments[1] if arguments else Any, f"{at}.{k}") for k, v in value.items()}
    return _list_value(value, origin, arguments, at)
