"""Python functions as tools: what the model is told of them, what they are called with, what comes back. Then the small
model calls some. GLM45_LIBRARY names the library."""
from __future__ import annotations

import asyncio
import enum
import json
import sys
import unittest
from dataclasses import dataclass, field
from typing import (Annotated, Any, Dict, Iterable, List, Literal, Mapping, NewType, Optional, Sequence, Set, Tuple,
                    TypedDict, Union)

from host import GREEDY, QUESTION, WEATHER, Nano

from glm45 import ToolCall, declaration, tool
from glm45.tools import carry_out, carry_out_async, check_arguments, declare, read_docstring


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Marker(enum.Enum):
    ONE = object()
    TWO = object()


@dataclass
class Point:
    """A place on the map."""
    x: float
    y: float = 0.0


@dataclass
class Route:
    points: List[Point]
    name: Optional[str] = None
    tags: Dict[str, int] = field(default_factory=dict)


class Person(TypedDict):
    name: str
    age: int


class Partly(TypedDict, total=False):
    nick: str


@dataclass
class Node:
    next: Optional["Node"]


City = NewType("City", str)


@tool
def get_weather(city: str, unit: Literal["c", "f"] = "c") -> str:
    """Get the weather of a city."""
    return f"{city} {unit}"


class Declarations(unittest.TestCase):
    def of(self, hint, **more):
        """The schema of a parameter with this type."""
        def f(x):
            pass
        f.__annotations__["x"] = hint
        parameters = declaration(f)["function"]["parameters"]
        self.assertEqual(parameters["required"], ["x"])
        return parameters["properties"]["x"]

    def test_whole(self):
        self.assertEqual(declaration(get_weather), {"type": "function", "function": {
            "name": "get_weather", "description": "Get the weather of a city.",
            "parameters": {"type": "object", "required": ["city"], "properties": {
                "city": {"type": "string"}, "unit": {"type": "string", "enum": ["c", "f"], "default": "c"}}}}})
        self.assertEqual(get_weather("Oslo"), "Oslo c")  # it stays a function

    def test_types(self):
        for hint, schema in (
                (str, {"type": "string"}), (int, {"type": "integer"}), (float, {"type": "number"}),
                (bool, {"type": "boolean"}), (None, {"type": "null"}), (Any, {}), (object, {}), (City, {"type": "string"}),
                (Optional[int], {"type": ["integer", "null"]}), (Union[int, str], {"type": ["integer", "string"]}),
                (Union[List[int], None], {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]}),
                (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}), (Literal["a", 1], {"enum": ["a", 1]}),
                (Colour, {"type": "string", "enum": ["red", "blue"]}), (Level, {"enum": [1, 2], "type": "integer"}),
                (Marker, {"type": "string", "enum": ["ONE", "TWO"]}),
                (list, {"type": "array"}), (List[str], {"type": "array", "items": {"type": "string"}}),
                (Sequence[float], {"type": "array", "items": {"type": "number"}}),
                (Iterable[str], {"type": "array", "items": {"type": "string"}}),
                (Set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
                (Tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
                (Tuple[int, str], {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}],
                                   "minItems": 2, "maxItems": 2}),
                (dict, {"type": "object"}), (Dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
                (Mapping[str, List[int]], {"type": "object", "additionalProperties": {
                    "type": "array", "items": {"type": "integer"}}}),
                (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
                (List[Annotated[str, "a word"]], {"type": "array", "items": {"type": "string", "description": "a word"}})):
            self.assertEqual(self.of(hint), schema, hint)

    @unittest.skipIf(sys.version_info < (3, 10), "no X | Y")
    def test_new_unions(self):
        self.assertEqual(self.of(eval("int | None")), {"type": ["integer", "null"]})
        self.assertEqual(self.of(eval("list[int | str]")), {"type": "array", "items": {"type": ["integer", "string"]}})

    def test_objects(self):
        point = {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}, "required": ["x"],
                 "description": "A place on the map."}
        self.assertEqual(self.of(Point), point)
        self.assertEqual(self.of(Route), {"type": "object", "required": ["points"], "properties": {
            "points": {"type": "array", "items": point}, "name": {"type": ["string", "null"]},
            "tags": {"type": "object", "additionalProperties": {"type": "integer"}}}})
        self.assertEqual(self.of(Person), {"type": "object", "required": ["name", "age"], "properties": {
            "name": {"type": "string"}, "age": {"type": "integer"}}})
        self.assertEqual(self.of(Partly), {"type": "object", "properties": {"nick": {"type": "string"}}})

    @unittest.skipIf(sys.version_info < (3, 11), "no NotRequired")
    def test_not_required(self):
        from typing import NotRequired, Required
        some = TypedDict("some", {"a": int, "b": NotRequired[int]})
        other = TypedDict("other", {"a": Required[int], "b": int}, total=False)
        for d in (some, other):
            self.assertEqual(self.of(d), {"type": "object", "required": ["a"], "properties": {
                "a": {"type": "integer"}, "b": {"type": "integer"}}})

    def test_defaults(self):
        def f(a: int = 3, b: Optional[str] = None, c: Colour = Colour.RED, d: Any = object(), *, e: bool = False):
            pass
        parameters = declaration(f)["function"]["parameters"]
        self.assertNotIn("required", parameters)
        self.assertEqual([p.get("default", "none") for p in parameters["properties"].values()],
                         [3, "none", "red", "none", False])

    def test_descriptions(self):
        def google(city: str, days: Annotated[int, "of forecast"] = 1, how: str = "x"):
            """Weather.

            Of a city, for some days.

            Args:
                city: its name,
                    as people say it
                days (int): not this one
                how: or not

            Returns:
                text: a sentence
            """

        def sphinx(city: str):
            """Weather.

            :param str city: its name
            :returns: a sentence
            """
        f = declaration(google)["function"]
        self.assertEqual(f["description"], "Weather.\n\nOf a city, for some days.")
        self.assertEqual([p["description"] for p in f["parameters"]["properties"].values()],
                         ["its name, as people say it", "of forecast", "or not"])
        f = declaration(sphinx)["function"]
        self.assertEqual((f["description"], f["parameters"]["properties"]["city"]["description"]), ("Weather.", "its name"))
        self.assertEqual(read_docstring(""), ("", {}))

    def test_names(self):
        @tool(name="weather", description="Of a city.")
        def f(city: str) -> str:
            return city
        d = declaration(f)["function"]
        self.assertEqual((d["name"], d["description"]), ("weather", "Of a city."))
        with self.assertRaises(TypeError):
            tool(lambda: 1)

    def test_methods(self):
        class Shop:
            @tool
            def price(self, item: str) -> int:
                """The price of an item."""
                return len(item)
        shop = Shop()
        self.assertEqual(list(declaration(shop.price)["function"]["parameters"]["properties"]), ["item"])
        self.assertEqual(carry_out({"price": shop.price}, "price", '{"item": "lamp"}'), "4")

    def test_what_cannot_be(self):
        def untyped(x):
            pass

        def rest(*x: int):
            pass

        def keywords(**x: int):
            pass

        def unknown(x: complex):
            pass

        def keys(x: Dict[int, str]):
            pass

        def endless(x: Node):
            pass

        def nowhere(x: "Nowhere"):  # noqa: F821
            pass
        for f, part in ((untyped, "x has no type"), (rest, "by name"), (keywords, "by name"), (unknown, "complex"),
                        (keys, "strings as keys"), (endless, "contains itself"), (nowhere, "Nowhere")):
            with self.assertRaises(TypeError) as caught:
                tool(f)
            self.assertIn(f.__name__, str(caught.exception))
            self.assertIn(part, str(caught.exception))

    def test_forms(self):
        data, functions = declare([get_weather, WEATHER, [WEATHER], json.dumps([WEATHER])])
        self.assertEqual([t["function"]["name"] for t in json.loads(data)], ["get_weather"] * 4)
        self.assertEqual(functions, {"get_weather": get_weather})
        self.assertEqual(declare([]), (b"[]", {}))
        self.assertEqual(declare(["[{"]), (b"[{", {}))  # the library says what is wrong with it


class Calls(unittest.TestCase):
    def takes(self, hint, value):
        def f(x):
            pass
        f.__annotations__["x"] = hint
        return check_arguments(f, json.dumps({"x": value}))["x"]

    def refuses(self, hint, value, *parts):
        with self.assertRaises(ValueError) as caught:
            self.takes(hint, value)
        for part in parts:
            self.assertIn(part, str(caught.exception))

    def test_values(self):
        for hint, value, meant in (
                (str, "7", "7"), (int, 7, 7), (int, 7.0, 7), (float, 7, 7.0), (bool, True, True), (None, None, None),
                (Any, {"a": [1]}, {"a": [1]}), (Optional[int], None, None), (Optional[int], 3, 3),
                (Union[int, str], "3", "3"), (Union[float, int], 3, 3), (Union[int, float], 3.5, 3.5),
                (Literal["a", 1], 1, 1), (Colour, "blue", Colour.BLUE), (Level, 2, Level.HIGH), (Marker, "ONE", Marker.ONE),
                (List[float], [1, 2], [1.0, 2.0]), (Set[int], [1, 1], {1}), (Tuple[int, ...], [1, 2], (1, 2)),
                (Tuple[int, str], [1, "a"], (1, "a")), (Dict[str, Colour], {"a": "red"}, {"a": Colour.RED}),
                (Point, {"x": 1}, Point(1.0)), (Person, {"name": "A", "age": 3}, {"name": "A", "age": 3}),
                (Route, {"points": [{"x": 1, "y": 2}], "name": "r"}, Route([Point(1.0, 2.0)], "r")),
                (Union[Point, Person], {"name": "A", "age": 3}, {"name": "A", "age": 3}), (City, "Oslo", "Oslo")):
            got = self.takes(hint, value)
            self.assertEqual((got, type(got)), (meant, type(meant)), hint)

    def test_refusals(self):
        for hint, value, *parts in (
                (str, 7, "x must be a string", "7"), (int, "7", "an integer", '"7"'), (int, 7.5), (int, True), (float, True),
                (float, "1"), (bool, 1), (None, 0), (Optional[int], "x"), (Literal["a", "b"], "c", '"a", "b"'),
                (Literal[1], True), (Colour, "green", "red"), (List[int], [1, "x"], "x[1]"), (List[int], {}),
                (Tuple[int, str], [1], "2"), (Dict[str, int], {"a": "b"}, "x.a"), (Dict[str, int], []),
                (Point, {}, "x.x is missing"), (Point, {"x": 1, "z": 2}, "x.z"), (Point, [1]),
                (Route, {"points": [{"x": "a"}]}, "x.points[0].x"), (Person, {"name": "A"}, "x.age"), (str, 1e300)):
            self.refuses(hint, value, *parts)

    def test_results(self):
        for value, text in (("plain", "plain"), ({"a": 1}, '{"a": 1}'), (None, "null"), (Point(1.0), '{"x": 1.0, "y": 0.0}'),
                            (Colour.RED, '"red"'), ([Level.LOW], "[1]"), ("ü", "ü"), ({"ü": {1}}, '{"ü": [1]}')):
            def give() -> Any:
                return value
            self.assertEqual(carry_out({"give": give}, "give", "{}"), text)

    def test_failures_are_results(self):
        def fail(n: int = 0) -> object:
            if n:
                raise ZeroDivisionError("by zero")
            return 1j
        for name, arguments, part in (("fail", '{"n": 1}', "ZeroDivisionError: by zero"), ("fail", '{"n": "x"}', "an integer"),
                                      ("fail", "{}", "no form in JSON"), ("fail", '{"m": 1}', "m is no parameter"),
                                      ("fall", "{}", "there is no tool fall; there are: fail")):
            result = json.loads(carry_out({"fail": fail}, name, arguments))
            self.assertEqual(list(result), ["error"])
            self.assertIn(part, result["error"])
            self.assertEqual(json.loads(asyncio.run(carry_out_async({"fail": fail}, name, arguments))), result)

        def stop() -> None:
            raise KeyboardInterrupt
        with self.assertRaises(KeyboardInterrupt):
            carry_out({"stop": stop}, "stop", "{}")

    def test_async_functions(self):
        async def double(n: int) -> int:
            await asyncio.sleep(0)
            return 2 // n
        functions = {"double": double}
        self.assertEqual(asyncio.run(carry_out_async(functions, "double", '{"n": 1}')), "2")
        self.assertIn("ZeroDivisionError", asyncio.run(carry_out_async(functions, "double", '{"n": 0}')))
        self.assertIn("an integer", asyncio.run(carry_out_async(functions, "double", '{"n": "x"}')))
        with self.assertRaises(TypeError):
            carry_out(functions, "double", '{"n": 1}')


class Conversations(Nano):
    def test_chat_carries_calls_out(self):
        cities = []

        @tool
        def get_weather(city: str) -> str:
            """Get the weather of a city."""
            cities.append(city)
            return "rain, 7 C"
        session = self.session()
        session.tools(get_weather)
        answer = session.chat(QUESTION, thinking=False, **GREEDY)
        self.assertEqual(cities, ["Oslo"])
        self.assertIn("7 C", answer.text)
        self.assertEqual((answer.end.reason, [c.name for c in answer.calls], answer.pending),
                         ("stop", ["get_weather"], []))

    def test_declarations_without_functions_wait(self):
        session = self.session()
        session.tools(WEATHER)
        answer = session.chat(QUESTION, thinking=False, **GREEDY)
        self.assertEqual((answer.end.reason, answer.pending), ("tools", answer.calls))
        answer.pending[0].reply("rain, 7 C")
        self.assertIn("7 C", session.chat().text)

    def test_exceptions_reach_the_model(self):
        def get_weather(city: str) -> str:
            """Get the weather of a city."""
            raise LookupError("no such city")
        session = self.session()
        session.tools(get_weather)
        answer = session.chat(QUESTION, thinking=False, **GREEDY)
        self.assertEqual(answer.end.reason, "stop")

    def test_interrupts_do_not(self):
        def get_weather(city: str) -> str:
            """Get the weather of a city."""
            raise KeyboardInterrupt
        session = self.session()
        session.tools(get_weather)
        with self.assertRaises(KeyboardInterrupt):
            session.chat(QUESTION, thinking=False, **GREEDY)
        session.tools()
        self.assertEqual(session.chat("Hello!", thinking=False, **GREEDY).end.reason, "stop")

    def test_run_in_a_stream(self):
        def get_weather(city: str) -> Dict[str, str]:
            """Get the weather of a city."""
            return {"result": "rain, 7 C"}
        session, results = self.session(), []
        session.tools(get_weather)
        for event in session.stream(QUESTION, thinking=False, **GREEDY):
            if isinstance(event, ToolCall):
                results.append(event.run())
        self.assertEqual(results, ['{"result": "rain, 7 C"}'])
        self.assertEqual(event.reason, "stop")

    def test_every_form_of_schema_is_declared(self):
        """The library takes what the hints give."""
        def everything(a: int, b: Optional[str], c: Colour, d: Route, e: Person, f: Union[int, List[str]], g: Any,
                       h: Tuple[int, str], i: Dict[str, float], j: Literal["x", 1] = 1) -> None:
            """All."""
        self.session().tools(everything, get_weather)


if __name__ == "__main__":
    unittest.main()
