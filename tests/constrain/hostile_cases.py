"""Requests to `glm45 constrain` with schemas made to hurt: (name, line)."""
import json

BILLION = 10**9
BROKEN = "no request: "  # begins the names of cases at which the command may also end with a message


def nested(before, inner, after, n):
    """A schema's text with n levels."""
    return before * n + inner + after * n


def line(schema_text, *texts):
    """A request of a schema that is text already: json.dumps would go down its levels."""
    return f'{{"schema": {schema_text}, "texts": {json.dumps(list(texts))}}}'.encode()


def request(schema, *texts):
    return line(json.dumps(schema), *texts)


def union(n, word, leaf):
    """word of two of word of two ...: 2^n ways, n levels deep, without sharing only in what it means."""
    defs = {f"d{i}": {word: [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(n)}
    defs[f"d{n}"] = leaf
    return {"$ref": "#/$defs/d0", "$defs": defs}


def product(n):
    """allOf of n unions of two, none the same: 2^n combinations."""
    return {"allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(n)]}


def product_of_values(n):
    """The same of values: neighbours share a key."""
    ways = [[{f"k{i}": {"const": 1}}, {f"k{i + 1}": {"minimum": 2}}] for i in range(n)]
    return {"type": "object", "allOf": [{"oneOf": [{"properties": a}, {"properties": b}]} for a, b in ways]}


def chain(n, word="allOf"):
    """References in a row, n long."""
    defs = {f"d{i}": {word: [{"$ref": f"#/$defs/d{i + 1}"}]} for i in range(n)}
    defs[f"d{n}"] = {"type": "integer"}
    return {"$ref": "#/$defs/d0", "$defs": defs}


def deep(n):
    yield f"not, {n} levels", line(nested('{"not":', "{}", "}", n), "1")
    yield f"items, {n} levels", line(nested('{"items":', "{}", "}", n), "[[[1]]]")
    yield f"properties, {n} levels", line(nested('{"properties":{"a":', "{}", "}}", n), '{"a":{}}')
    yield f"anyOf, {n} levels", line(nested('{"anyOf":[', "{}", "]}", n), "1")
    yield f"const of arrays, {n} levels", line('{"const":' + nested("[", "", "]", n) + "}", "[[]]")
    yield f"unknown keyword's arrays, {n} levels", line('{"x-note":' + nested("[", "", "]", n) + "}", "1")
    yield f"$ref's pointer, {n} steps", request({"$ref": "#" + "/not" * n}, "1")
    yield f"pattern's groups, {n} levels", request({"pattern": nested("(", "a", ")", n)}, '"a"')
    yield f"pattern's classes, {n} levels", request({"pattern": nested("[", "a", "]", n)}, '"a"')
    yield f"{BROKEN}never closed, {n} levels", b'{"schema": ' + b"[" * n


def unions():
    for n in (20, 60, 1000):
        yield f"anyOf doubled {n} times", request(union(n, "anyOf", {"type": "integer"}), "1", '"x"')
        yield f"oneOf doubled {n} times", request(union(n, "oneOf", {"type": "integer"}), "1", '"x"')
        yield f"allOf doubled {n} times", request(union(n, "allOf", {"type": "integer"}), "1", '"x"')
    for n in (12, 30, 200, 2000):
        yield f"allOf of {n} unions", request(product(n), "{}", '{"a0": 1, "b1": 2}')
        yield f"allOf of {n} unions of values", request(product_of_values(n), "{}", '{"k0": 1, "k1": 2}')
    many = [{"type": "object", "properties": {"k": {"const": i}, "v": {"minLength": i % 7}}} for i in range(3000)]
    yield "anyOf of 3,000 objects", request({"anyOf": many}, '{"k": 2999, "v": "abcdefg"}', '{"k": 3000}')
    yield "oneOf of 3,000 objects", request({"oneOf": many}, '{"k": 2999, "v": "abcdefg"}', "{}")
    yield "not of 3,000 objects", request({"not": {"anyOf": many}}, '{"k": 2999, "v": "abcdefg"}')
    yield "if in if, 200 times", request(json.loads(nested('{"if":{"minLength":1},"then":', "{}", "}", 200)), '"a"')
    ifs = {"allOf": [{"if": {"required": [f"a{i}"]}, "then": {"required": [f"b{i}"]}} for i in range(400)]}
    yield "400 implications", request(ifs, "{}", '{"a7": 1, "b7": 1}')
    free = {"unevaluatedProperties": False, "anyOf": [{"properties": {f"p{i}": True}} for i in range(64)]}
    yield "64 ways to evaluate", request(free, "{}", '{"p3": 1, "p60": 2}')


def counts():
    for word in ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties", "minContains"):
        extra = {"contains": {"type": "integer"}} if word == "minContains" else {}
        yield f"{word} 10^9", request({word: BILLION, **extra}, "[1, 2]", '"abc"', '{"a": 1}')
    yield "minItems = maxItems = 10^9", request({
        "minItems": BILLION,
        "maxItems": BILLION,
        "items": {
            "const": 1
        }
    }, "[1]")
    yield "counts within counts", request(json.loads(nested('{"type":"array","maxItems":1000,"items":', "{}", "}", 50)),
                                          "[[[]]]")
    yield "minLength 1e308", line('{"minLength": 1e308}', '"a"')
    yield "maxLength of 100,000 digits", line('{"maxLength": ' + "9" * 100000 + "}", '"a"')
    yield "minimum of 100,000 digits", line('{"minimum": ' + "9" * 100000 + "}", "1")
    yield "minimum 1e999999999", line('{"minimum": 1e999999999, "type": "integer"}', "1")
    yield "multipleOf 1e-999999999", line('{"multipleOf": 1e-999999999}', "1")
    yield "multipleOf of many digits", line('{"multipleOf": 0.' + "1234567891" * 300 + "}", "1")
    yield "multipleOf 10^9 + 7", request({"type": "integer", "multipleOf": BILLION + 7}, "1000000007", "1")
    many = {"multipleOf": 7, "allOf": [{"multipleOf": n} for n in (11, 13, 17, 19, 23, 29, 31, 37, 41, 43)]}
    yield "eleven primes", request(many, "1")
    yield "uniqueItems of many", request({
        "uniqueItems": True,
        "items": {
            "type": "integer"
        }
    }, json.dumps(list(range(300))))
    small = {"type": "array", "uniqueItems": True, "items": {"enum": list(range(40))}, "minItems": 30}
    yield "uniqueItems of an enum", request(small, json.dumps(list(range(35))), json.dumps([1, 1]))


def patterns():
    runs = json.dumps("a" * 400 + "!")
    for text in ("(a+)+$", "^(a+)+$", "^(a|a)*b$", "^(a|aa)+$", "^(.*a){20}$", "(a?){60}a{60}", "^((a*)*)*$",
                 "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*)*(.*)*(.*)*x", "^(a{1,100}){1,100}$", "^(?:a{1000}){1000}$",
                 "^(((a{100}){100}){100}){100}$", "^a{1000000000}$", "^a{0,1000000000}$", ".{5000}",
                 "[a-z]{2000}x[a-z]{2000}", "(a|b|ab)*(bc|c)*a.{12}$", "^(a|b)*a(a|b){14}$", "(?=a)(?=b)(?!c)(?<=d)e",
                 r"^(a)\1*$", r"\p{L}{1000}", r"^[\w\-\.]+(\.[\w\-]+)*@[\w\-]+$", "(x+x+)+y", "^(?:.?){1000}z"):
        yield f"pattern {text}", request({"type": "string", "pattern": text}, runs, '"aaab"')
    yield "pattern of 100,000 letters", request({"pattern": "a" * 100000}, '"a"')
    yield "pattern of 20,000 alternatives", request({"pattern": "|".join(f"w{i}" for i in range(20000))}, '"w7"')
    yield "pattern of 5,000 classes", request({"pattern": "[a-cx-z0-9]?" * 5000}, runs)
    both = {"allOf": [{"pattern": f"^(.{{{n}}})*$"} for n in (7, 11, 13, 17, 19, 23)]}
    yield "six patterns at once", request(both, runs)
    yield "thirty patterns at once", request(
        {"allOf": [{
            "pattern": f"a.*{c}"
        } for c in "bcdefghijklmnopqrstuvwxyz01234"]}, runs)
    yield "patterns excluded", request({"allOf": [{"not": {"pattern": f"a.{{{n}}}b"}} for n in range(24)]}, runs)
    names = {
        f"^{c}.*{d}$": {
            "minLength": n
        }
        for n, (c, d) in enumerate((c, d) for c in "abcdefghij" for d in "klmnopqrst")
    }
    yield "100 patternProperties", request({"patternProperties": names, "additionalProperties": False}, '{"axk": "x"}')


def references():
    yield "$ref to itself", request({"$ref": "#"}, "1")
    yield "$refs in a ring", request(
        {
            "$ref": "#/$defs/a",
            "$defs": {
                "a": {
                    "$ref": "#/$defs/b"
                },
                "b": {
                    "$ref": "#/$defs/a"
                }
            }
        }, "1")
    ring = {
        f"d{i}": {
            "anyOf": [{
                "$ref": f"#/$defs/d{(i + 1) % 300}"
            }, {
                "allOf": [{
                    "$ref": f"#/$defs/d{(i + 7) % 300}"
                }]
            }]
        }
        for i in range(300)
    }
    yield "a ring of 300 unions", request({"$ref": "#/$defs/d0", "$defs": ring}, "1")
    yield "not of itself", request({"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}}, "1")
    yield "if of itself", request({"if": {"$ref": "#"}, "then": {"$ref": "#"}}, "1")
    yield "needs itself", request({
        "type": "object",
        "properties": {
            "a": {
                "$ref": "#"
            }
        },
        "required": ["a"]
    }, '{"a": {"a": 1}}')
    yield "items of itself, twice", request(
        {
            "type": "array",
            "allOf": [{
                "items": {
                    "$ref": "#"
                }
            }, {
                "items": {
                    "$ref": "#"
                }
            }]
        }, "[[[[]]]]")
    yield "$ref chain of 50,000", request(chain(50000), "1")
    yield "anyOf chain of 10,000", request(chain(10000, "anyOf"), "1")
    yield "propertyNames of itself", request({"propertyNames": {"$ref": "#"}}, '{"a": 1}')
    mutual = {
        "a": {
            "properties": {
                "x": {
                    "$ref": "#/$defs/b"
                },
                "y": {
                    "$ref": "#/$defs/a"
                }
            },
            "anyOf": [{
                "$ref": "#/$defs/b"
            }, {
                "type": "null"
            }]
        },
        "b": {
            "properties": {
                "x": {
                    "$ref": "#/$defs/a"
                },
                "z": {
                    "$ref": "#/$defs/b"
                }
            },
            "oneOf": [{
                "required": ["x"]
            }, {
                "$ref": "#/$defs/a"
            }]
        }
    }
    yield "mutual recursion through unions", request({
        "$ref": "#/$defs/a",
        "$defs": mutual
    }, '{"x": {"x": null}}', "null")


def large():
    yield "enum of 100,000 words", request({"enum": [f"word-{i}" for i in range(100000)]}, '"word-99999"', '"word-x"')
    yield "enum of 100,000 numbers", request({"enum": list(range(100000))}, "99999", "100000")
    yield "enum of 20,000 objects", request({"enum": [{"a": i, "b": [i]} for i in range(20000)]}, '{"a": 7, "b": [7]}')
    yield "enum of one word of 1 MB", request({"enum": ["x" * 1000000]}, '"xx"')
    yield "not an enum of 20,000", request({"not": {"enum": [f"w{i}" for i in range(20000)]}}, '"w7"', '"v"')
    names = {f"key-{i}": {"type": "integer"} for i in range(20000)}
    yield "20,000 properties", request({"type": "object", "properties": names}, '{"key-19999": 1}', '{"key-1": ""}')
    yield "20,000 required", request({
        "type": "object",
        "properties": names,
        "required": list(names)
    }, '{"key-19999": 1}')
    yield "60 optional in any order", request(
        {
            "properties": {
                f"k{i}": {
                    "type": "integer"
                }
                for i in range(60)
            },
            "additionalProperties": False,
            "minProperties": 30,
            "maxProperties": 40
        }, '{"k9": 1, "k3": 2}')
    yield "dependentRequired, all of all", request(
        {"dependentRequired": {
            f"k{i}": [f"k{j}" for j in range(60)]
            for i in range(60)
        }}, '{"k9": 1}')
    yield "one key 1,000,000 long", request({"properties": {"k" * 1000000: {"type": "integer"}}}, '{"k": 1}')
    tuple_ = {"prefixItems": [{"enum": [i, str(i)]} for i in range(20000)], "items": False}
    yield "20,000 prefixItems", request(tuple_, '[0, "1", 2]')


def odd():
    names = [
        "", "\0", "\x01", "\u007f", "\u0085", "\u2028", "\u202e", "\ufeff", "\uffff", "\U0010ffff", "é", "e\u0301",
        "\U0001f469\u200d\U0001f4bb", "</arg_value>", "<|user|>", "\"", "\\", "a\\u0000", "/", "~", "~0~1", "%25",
        "__proto__", "$ref", "#"
    ]
    schema = {
        "type": "object",
        "properties": {
            name: {
                "type": "integer"
            }
            for name in names
        },
        "required": names,
        "additionalProperties": False
    }
    yield "odd names", request(schema, json.dumps({name: 1 for name in names}, ensure_ascii=False), "{}")
    yield "lone surrogate in a name", line('{"properties": {"\\ud800": {"type": "integer"}}, "required": ["\\ud800"]}',
                                           "{}")
    yield "lone surrogate in a pattern", line('{"pattern": "\\udc00"}', '"a"')
    yield "half an escape", line('{"pattern": "\\\\"}', '"a"')
    yield "keywords of wrong types", line(
        '{"properties": 1, "items": "x", "required": {"a": 1}, "anyOf": {}, "minLength": -1}', "{}")
    yield "a key twice", line('{"type": "string", "type": "integer"}', "1", '"a"')
    yield f"{BROKEN}not UTF-8", b'{"schema": {"enum": ["\xff\xfe"]}, "texts": []}'
    yield f"{BROKEN}a number", line("1", "1")
    yield f"{BROKEN}no JSON", b'{"schema": {"type": '
    text = "[" * 5000
    yield "a deep text", request({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, text)
    yield "a deep text for anything", request({}, text, '{"a":' * 5000)


def cases():
    for n in (100, 1000, 100000, 1000000):
        yield from deep(n)
    for group in (unions, counts, patterns, references, large, odd):
        yield from group()
