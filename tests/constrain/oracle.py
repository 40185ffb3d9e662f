"""The independent judge: the package jsonschema, with what its versions, or Python, have otherwise than the standard
redone: equality of true and 1, exact multiples, patterns as ECMA-262 reads them, and the formats that are asserted."""
import datetime
import ipaddress
import re
from fractions import Fraction

import jsonschema

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def key(value):
    """Equal for values that JSON Schema calls equal, and hashable."""
    if isinstance(value, bool) or value is None:
        return ("literal", value)
    if isinstance(value, (int, float)):
        return ("number", value)
    if isinstance(value, str):
        return ("string", value)
    if isinstance(value, list):
        return ("array", tuple(map(key, value)))
    return ("object", frozenset((name, key(v)) for name, v in value.items()))


def exact(number):
    """A number as it is spelled in decimal."""
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def no(message):
    return jsonschema.ValidationError(message)


def enum(_, allowed, instance, __):
    if key(instance) not in map(key, allowed):
        yield no("not in enum")


def const(_, allowed, instance, __):
    if key(instance) != key(allowed):
        yield no("not the constant")


def unique_items(_, wanted, instance, __):
    if wanted and isinstance(instance, list) and len(set(map(key, instance))) < len(instance):
        yield no("items are equal")


def readings(number):
    """What a number is taken for: as it is spelled and, where that is whole, as the double that is made of it."""
    whole = isinstance(number, float) and number.is_integer()
    return [exact(number), Fraction(number)] if whole else [exact(number)]


def multiple_of(_, of, instance, __):
    if is_number(instance) and any(value % exact(of) for value in readings(instance)):
        yield no("no multiple")


KEYWORDS = {"enum": enum, "const": const, "uniqueItems": unique_items, "multipleOf": multiple_of}


# ---- patterns: an ECMA-262 expression with the u flag in Python's words

SPACE = r"\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
OUTSIDE = {"d": "[0-9]", "D": "[^0-9]", "w": "[A-Za-z0-9_]", "W": "[^A-Za-z0-9_]", "s": f"[{SPACE}]",
           "S": f"[^{SPACE}]", "/": "/"}
INSIDE = {"d": "0-9", "w": "A-Za-z0-9_", "s": SPACE, "/": "/", "b": r"\x08"}


def python_pattern(expression):
    """The same expression for Python's re. What has no counterpart is left and fails, or not, by itself."""
    out, i, in_class = [], 0, False
    while i < len(expression):
        c = expression[i]
        i += 1
        if c == "\\" and i < len(expression):
            known = INSIDE if in_class else OUTSIDE
            out.append(known.get(expression[i], c + expression[i]))
            i += 1
        elif in_class:
            in_class = c != "]"
            out.append("\\[" if c == "[" else c)
        elif c == "[":
            in_class = True
            out.append(c)
        elif expression.startswith("(?<", i - 1) and expression[i + 2:i + 3] not in ("=", "!"):
            out.append("(?P<")
            i += 2
        else:
            out.append({".": r"[^\n\r\u2028\u2029]", "$": r"\Z"}.get(c, c))
    return "".join(out)


def with_python_patterns(schema):
    """The schema with its patterns so translated, wherever they stand."""
    if isinstance(schema, list):
        return [with_python_patterns(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for word, value in schema.items():
        if word == "pattern" and isinstance(value, str):
            out[word] = python_pattern(value)
        elif word == "patternProperties" and isinstance(value, dict):
            out[word] = {python_pattern(name): with_python_patterns(part) for name, part in value.items()}
        else:
            out[word] = value if word in ("enum", "const") else with_python_patterns(value)
    return out


# ---- formats, as RFC 3339, 4122 and 2673 have them

DATE, TIME = r"(\d{4}-\d\d-\d\d)", r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"


def is_date(text):
    if not re.fullmatch(DATE, text, re.ASCII):
        return False
    try:
        datetime.date(*map(int, text.split("-")))
    except ValueError:
        return False
    return True


def is_time(text):
    """Without leap seconds: none is drawn."""
    return bool(re.fullmatch(TIME, text, re.ASCII))


def is_date_time(text):
    return len(text) > 11 and text[10] in "Tt" and is_date(text[:10]) and is_time(text[11:])


def is_uuid(text):
    return bool(re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text))


def is_ipv4(text):
    part = "(0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
    return bool(re.fullmatch(rf"{part}(\.{part}){{3}}", text))


def is_ipv6(text):
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


FORMATS = {"date": is_date, "time": is_time, "date-time": is_date_time, "uuid": is_uuid, "ipv4": is_ipv4,
           "ipv6": is_ipv6}


def checked_format(_, name, instance, __):
    if isinstance(instance, str) and name in FORMATS and not FORMATS[name](instance):
        yield no(f"not a {name}")


class Oracle:
    """Says of values whether a schema allows them, by the draft that it names, 2020-12 if none. RecursionError: the
    schema goes round without end."""

    def __init__(self, schema):
        base = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        schema = with_python_patterns(schema)
        base.check_schema(schema)
        redone = {word: check for word, check in KEYWORDS.items() if word in base.VALIDATORS}
        self.validator = jsonschema.validators.extend(base, {**redone, "format": checked_format})(schema)

    def allows(self, value):
        return self.validator.is_valid(value)
