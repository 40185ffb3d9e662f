"""Random small schemas of all the keywords that the constraint engine knows, and random values near them. Everything is
drawn from the random generator that is handed in, so that a seed repeats it."""
import re

from oracle import DRAFT_7

KEYS = ["a", "b", "c", "ab", "a1", "", "é", "x y", "q\"t", "n\nl"]
WORDS = ["", "a", "b", "ab", "ba", "aab", "a1", "0", "12", "-", "é", "日本", "😀", "a b", "q\"t", "back\\", "tab\t",
         "n\nl", "/", "true", "null", "ccccccc"]
NUMBERS = [0, 1, -1, 2, 3, 5, 7, 10, 12, 99, 100, -10, 0.5, 1.0, 1.5, -0.5, 0.1, 0.3, 2.25, -3.0, 1e20, 1.5e-07,
           12345678901234567890, 2**53 + 1, -2**31]
FORMATS = {
    "date": ["2024-02-29", "2023-02-29", "1999-12-31", "1999-13-01", "2000-1-1"],
    "time": ["12:00:00Z", "23:59:59+01:00", "24:00:00Z", "12:00:00", "12:00:00.25z", "1:00:00Z"],
    "date-time": ["2024-02-29T12:00:00Z", "2023-02-29T12:00:00Z", "2024-01-01 12:00:00Z",
                  "1990-01-01T00:00:00.5+00:30"],
    "uuid": ["2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2eb8aa08-aa98-11ea-b4aa-73b441d1638",
             "2EB8AA08-AA98-11EA-B4AA-73B441D16380"],
    "ipv4": ["127.0.0.1", "256.1.1.1", "1.2.3", "01.2.3.4", "255.255.255.255"],
    "ipv6": ["::1", "1:2:3:4:5:6:7:8", "12345::", "::ffff:1.2.3.4", "1::2::3"],
    "no-such-format": ["anything"],
}
TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"]


class Patterns:
    """Random regular expressions, and strings that they match: an expression is drawn as a tree and kept beside its
    spelling. Only what ECMA and Python read alike: no \\w or \\s against other letters, no newline before $."""

    def __init__(self, rng):
        self.rng, self.trees = rng, {}

    def draw(self):
        tree = ("all", [self._piece(2) for _ in range(self.rng.randint(1, 3))])
        start, end = self.rng.random() < 0.6, self.rng.random() < 0.6
        text = ("^" if start else "") + self._spell(tree) + ("$" if end else "")
        self.trees[text] = (tree, start, end)
        return text

    def sample(self, text):
        tree, start, end = self.trees[text]
        junk = lambda free: "" if not free or self.rng.random() < 0.6 else self.rng.choice(["a", "z9", "é", "-"])
        return junk(not start) + self._sample(tree) + junk(not end)

    def _piece(self, depth):
        kinds, shares = ["char", "class", "any", "either", "many"], [5, 4, 1, 2 * (depth > 0), 3 * (depth > 0)]
        kind = self.rng.choices(kinds, shares)[0]
        if kind == "char":
            return "char", self.rng.choice("ab01-é")
        if kind == "class":
            return "class", self.rng.choice([("[a-c]", "abc"), ("[0-9]", "0159"), ("\\d", "0189"),
                                             ("[^a]", "b-0é😀"), ("[^0-9a]", "bz-é"), ("[ab-]", "ab-"),
                                             ("[A-Fa-f0-9]", "AFaf09")])
        if kind == "any":
            return "class", (".", "ab-é日😀")
        if kind == "either":
            return "either", [self._piece(depth - 1) for _ in range(self.rng.randint(2, 3))]
        least = self.rng.randint(0, 2)
        most = self.rng.choice([None, least, least + 1, least + 3])
        return "many", (self._piece(depth - 1), least, most)

    def _spell(self, tree):
        kind, what = tree
        if kind == "all":
            return "".join(map(self._spell, what))
        if kind == "char":
            return what
        if kind == "class":
            return what[0]
        if kind == "either":
            return f"({'|'.join(map(self._spell, what))})"
        inner, least, most = what
        plain = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
        return f"(?:{self._spell(inner)})" + (plain or f"{{{least},{'' if most is None else most}}}")

    def _sample(self, tree):
        kind, what = tree
        if kind == "all":
            return "".join(map(self._sample, what))
        if kind == "char":
            return what
        if kind == "class":
            return self.rng.choice(what[1])
        if kind == "either":
            return self._sample(self.rng.choice(what))
        inner, least, most = what
        return "".join(self._sample(inner) for _ in range(self.rng.randint(least, least + 2 if most is None else most)))


class Schemas:
    """Draws schemas, and values for them."""

    def __init__(self, rng):
        self.rng, self.patterns = rng, Patterns(rng)
        self.draft7, self.names = False, []

    def maybe(self, share):
        return self.rng.random() < share

    # ---- schemas

    def draw(self):
        """A whole schema, with definitions now and then."""
        self.draft7 = self.maybe(0.15)
        self.names = ["A", "B"][:self.rng.choice([0, 0, 1, 2])]
        depth = self.rng.choice([1, 1, 2, 2, 3])
        schema = self.schema(depth)
        if self.names or self.draft7:
            schema = dict(schema) if isinstance(schema, dict) else {"allOf": [schema]}
        if self.names:
            if self.draft7 and "$ref" in schema:
                schema = {"allOf": [schema]}  # its siblings would not count
            schema["definitions" if self.draft7 else "$defs"] = {name: self.schema(depth - 1) for name in self.names}
        return {"$schema": DRAFT_7, **schema} if self.draft7 else schema

    def schema(self, depth):
        kinds = {"any": 0.4, "none": 0.1, "values": 2, "string": 3, "number": 3, "literal": 0.7, "types": 1,
                 "untyped": 0.7}
        if depth > 0:
            kinds.update({"array": 4, "object": 6, "both": 3, "join": 3, "not": 0.8, "if": 1})
        if self.names:
            kinds["ref"] = 1
        kind = self.rng.choices(list(kinds), list(kinds.values()))[0]
        return getattr(self, "_" + kind)(depth)

    def _any(self, _):
        return self.rng.choice([True, {}])

    def _none(self, _):
        return False

    def _values(self, depth):
        if self.maybe(0.3):
            return {"const": self.value(min(depth, 1))}
        return {"enum": [self.value(min(depth, 1)) for _ in range(self.rng.randint(1, 4))]}

    def _literal(self, _):
        return {"type": self.rng.choice(["null", "boolean"])}

    def _string_words(self):
        out = {}
        if self.maybe(0.35):
            out["minLength"] = self.rng.randint(0, 3)
        if self.maybe(0.35):
            out["maxLength"] = self.rng.randint(0, 5)
        if self.maybe(0.35):
            out["pattern"] = self.patterns.draw()
        elif self.maybe(0.2):
            out["format"] = self.rng.choice(list(FORMATS))
        return out

    def _string(self, _):
        return {"type": "string", **self._string_words()}

    def _number_words(self):
        out = {}
        for word in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]:
            if self.maybe(0.25):
                out[word] = self.rng.choice([-10, -1, 0, 0.5, 1, 3, 7.25, 10, 99, 100, 1000])
        if self.maybe(0.2):
            out["multipleOf"] = self.rng.choice([1, 2, 3, 5, 10, 0.5, 0.1, 0.01, 1.5, 7])
        return out

    def _number(self, _):
        return {"type": self.rng.choice(["number", "integer", "integer"]), **self._number_words()}

    def _types(self, depth):
        types = self.rng.sample(TYPES, self.rng.randint(1, 3))
        return {"type": types, **self._words_of(types, depth)}

    def _untyped(self, depth):
        return self._words_of(self.rng.sample(TYPES, 2), depth)

    def _words_of(self, types, depth):
        out = {}
        if "string" in types:
            out.update(self._string_words())
        if "number" in types or "integer" in types:
            out.update(self._number_words())
        if "array" in types:
            out.update(self._array_words(max(0, depth - 1)))
        if "object" in types:
            out.update(self._object_words(max(0, depth - 1)))
        return out

    def _array_words(self, depth):
        out = {}
        if self.maybe(0.6):
            out["items"] = self.schema(depth)
        if self.maybe(0.25):
            prefix = [self.schema(depth) for _ in range(self.rng.randint(1, 3))]
            if not self.draft7:
                out["prefixItems"] = prefix
            else:
                out.update({"items": prefix, "additionalItems": out["items"]} if "items" in out else {"items": prefix})
        if self.maybe(0.2):
            out["contains"] = self.schema(depth)
            if not self.draft7 and self.maybe(0.5):
                out["minContains"] = self.rng.randint(0, 2)
            if not self.draft7 and self.maybe(0.4):
                out["maxContains"] = self.rng.randint(0, 2)
        if self.maybe(0.3):
            out["minItems"] = self.rng.randint(0, 3)
        if self.maybe(0.3):
            out["maxItems"] = self.rng.randint(0, 4)
        if self.maybe(0.15):
            out["uniqueItems"] = True
        return out

    def _array(self, depth):
        return {"type": "array", **self._array_words(depth - 1)}

    def _object_words(self, depth):
        rng, out = self.rng, {}
        names = rng.sample(KEYS, rng.randint(0, 4))
        if names:
            out["properties"] = {name: self.schema(depth) for name in names}
        if self.maybe(0.5):
            out["required"] = rng.sample(KEYS, 1) if self.maybe(0.15) else rng.sample(names, rng.randint(0, len(names)))
        if self.maybe(0.4):
            out["additionalProperties"] = False if self.maybe(0.5) else self.schema(depth)
        if self.maybe(0.2):
            out["patternProperties"] = {self.rng.choice(["^a", "b$", "[0-9]", "^x", "."]): self.schema(depth)}
        if self.maybe(0.12):
            out["propertyNames"] = rng.choice([{"maxLength": 1}, {"pattern": "^[a-c]"}, {"enum": ["a", "b", "ab"]},
                                               {"minLength": 1}, {"not": {"const": "c"}}])
        if self.maybe(0.15):
            out["minProperties"] = rng.randint(0, 2)
        if self.maybe(0.15):
            out["maxProperties"] = rng.randint(0, 3)
        if self.maybe(0.1):
            out["dependencies" if self.draft7 else "dependentRequired"] = {rng.choice(KEYS): rng.sample(KEYS[:4], 1)}
        if self.maybe(0.07):
            word = "dependencies" if self.draft7 else "dependentSchemas"
            out.setdefault(word, {})[rng.choice(KEYS)] = self.schema(depth)
        return out

    def _object(self, depth):
        return {"type": "object", **self._object_words(depth - 1)}

    def _join(self, depth):
        word = self.rng.choice(["anyOf", "anyOf", "oneOf", "allOf"])
        return {word: [self.schema(depth - 1) for _ in range(self.rng.randint(1, 3))]}

    def _not(self, depth):
        return {"not": self.schema(depth - 1)}

    def _if(self, depth):
        out = {"if": self.schema(depth - 1)}
        for word in ["then", "else"]:
            if self.maybe(0.8):
                out[word] = self.schema(depth - 1)
        return out

    def _both(self, depth):
        """Two kinds at once: their keywords hold together."""
        return {**self.rng.choice([self._object, self._array, self._string, self._number])(depth),
                **self.rng.choice([self._join, self._join, self._not, self._if, self._values])(depth)}

    def _ref(self, _):
        return {"$ref": f"#/{'definitions' if self.draft7 else '$defs'}/{self.rng.choice(self.names)}"}

    # ---- values

    def value(self, depth):
        """Any value."""
        kinds, shares = ["literal", "number", "string", "array", "object"], [2, 3, 4, depth > 0, 2 * (depth > 0)]
        kind = self.rng.choices(kinds, shares)[0]
        if kind == "literal":
            return self.rng.choice([None, True, False])
        if kind == "number":
            return self.rng.choice(NUMBERS)
        if kind == "string":
            return self.rng.choice(WORDS)
        if kind == "array":
            return [self.value(depth - 1) for _ in range(self.rng.randint(0, 3))]
        return {name: self.value(depth - 1) for name in self.rng.sample(KEYS, self.rng.randint(0, 3))}

    def near(self, root, schema=None, depth=4):
        """A value that tries to fit; it may well not."""
        schema = self._flat(root, root if schema is None else schema, 6)
        if not isinstance(schema, dict) or depth < 0:
            return self.value(1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.rng.choice(schema["enum"])
        kind = self._kind(schema)
        if kind == "object":
            return self._near_object(root, schema, depth)
        if kind == "array":
            return self._near_array(root, schema, depth)
        if kind == "string":
            return self._near_string(schema)
        if kind in ("number", "integer"):
            return self._near_number(schema, kind)
        return None if kind == "null" else self.maybe(0.5)

    def _kind(self, schema):
        if "type" in schema:
            return schema["type"] if isinstance(schema["type"], str) else self.rng.choice(schema["type"])
        hints = [("properties", "object"), ("required", "object"), ("additionalProperties", "object"),
                 ("items", "array"), ("contains", "array"), ("pattern", "string"), ("minLength", "string"),
                 ("minimum", "number")]
        fitting = [kind for word, kind in hints if word in schema]
        return self.rng.choice(fitting if fitting and self.maybe(0.8) else TYPES)

    def _flat(self, root, schema, depth):
        """The schema with a choice made at each union and references followed, all in one."""
        if not isinstance(schema, dict) or depth < 0:
            return schema
        parts = []
        if "$ref" in schema:
            definitions = root.get("definitions" if "definitions" in root else "$defs", {})
            parts.append(definitions.get(schema["$ref"].split("/")[-1], {}))
        parts += schema.get("allOf", [])
        for word in ["anyOf", "oneOf"]:
            if word in schema:
                parts.append(self.rng.choice(schema[word]))
        if "if" in schema:
            if self.maybe(0.6):
                parts += [schema["if"], schema.get("then", True)]
            else:
                parts.append(schema.get("else", True))
        out = dict(schema)
        for part in parts:
            part = self._flat(root, part, depth - 1)
            if isinstance(part, dict):
                joined = {**out.get("properties", {}), **part.get("properties", {})}
                required = sorted({*out.get("required", []), *part.get("required", [])})
                out = {**out, **part, **({"properties": joined} if joined else {}),
                       **({"required": required} if required else {})}
        return out

    def _near_object(self, root, schema, depth):
        names = [n for n in schema.get("properties", {}) if self.maybe(0.6)] + list(schema.get("required", []))
        extra = schema.get("additionalProperties", True)
        while len(set(names)) < schema.get("minProperties", 0) or self.maybe(0.1 if extra is False else 0.3):
            names.append(self.rng.choice(KEYS))
        self.rng.shuffle(names)
        out = {}
        for name in names[:schema.get("maxProperties", 9)] if self.maybe(0.8) else names:
            sub = [schema["properties"][name]] if name in schema.get("properties", {}) else []
            sub += [s for p, s in schema.get("patternProperties", {}).items() if re.search(p, name)]
            sub = sub or [extra]
            out[name] = self.near(root, {"allOf": sub} if len(sub) > 1 else sub[0], depth - 1)
        return out

    def _near_array(self, root, schema, depth):
        items = schema.get("items", True)
        prefix = schema.get("prefixItems", items if isinstance(items, list) else [])
        rest = schema.get("additionalItems", True) if isinstance(items, list) else items
        least = schema.get("minItems", 0)
        n = self.rng.randint(least, max(least, min(4, schema.get("maxItems", 3) + self.maybe(0.1))))
        out = [self.near(root, prefix[i] if i < len(prefix) else rest, depth - 1) for i in range(n)]
        if "contains" in schema and out and self.maybe(0.7):
            out[self.rng.randrange(n)] = self.near(root, schema["contains"], depth - 1)
        return out

    def _near_string(self, schema):
        if "pattern" in schema and schema["pattern"] in self.patterns.trees and self.maybe(0.8):
            return self.patterns.sample(schema["pattern"])
        if schema.get("format") in FORMATS:
            return self.rng.choice(FORMATS[schema["format"]])
        fitting = [w for w in WORDS if schema.get("minLength", 0) <= len(w) <= schema.get("maxLength", 99)]
        return self.rng.choice(fitting or WORDS)

    def _near_number(self, schema, kind):
        around = [schema[w] for w in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if w in schema]
        base = self.rng.choice(around) if around else self.rng.choice(NUMBERS)
        out = base + self.rng.choice([0, 0, 1, -1, 2, -5, 0.5, 0.25, -0.1, 10])
        if "multipleOf" in schema and self.maybe(0.7):
            step = schema["multipleOf"]
            out = round(round(out / step) * step, 6)
        return int(out) if kind == "integer" and self.maybe(0.85) else out

    def changed(self, value):
        """The value with one small change somewhere."""
        rng = self.rng
        if isinstance(value, dict) and value and self.maybe(0.85):
            name = rng.choice(list(value))
            how = rng.choice(["in", "in", "in", "drop", "add", "rename"])
            if how == "in":
                return {**value, name: self.changed(value[name])}
            if how == "add":
                return {**value, rng.choice(KEYS): self.value(1)}
            left = {n: v for n, v in value.items() if n != name}
            return left if how == "drop" else {**left, rng.choice(KEYS): value[name]}
        if isinstance(value, list) and value and self.maybe(0.85):
            i = rng.randrange(len(value))
            return rng.choice([value[:i] + [self.changed(value[i])] + value[i + 1:], value[:i] + value[i + 1:],
                               value + [value[i]], value + [self.value(1)], value[::-1]])
        if isinstance(value, str) and self.maybe(0.8):
            return rng.choice([value + rng.choice("ab0é-\\\""), value[1:], value[:-1], value.upper(), value + value])
        if isinstance(value, (int, float)) and not isinstance(value, bool) and self.maybe(0.8):
            return rng.choice([value + 1, value - 1, -value, value * 10, value + 0.5, float(value)])
        return self.value(1)
