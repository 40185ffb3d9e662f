"""Turns that a program steers, from Python: thinking budgets, stop rules, forks, marks, snapshots, code.
GLM45_LIBRARY names the library."""
from __future__ import annotations

import io
import tempfile
import unittest
from pathlib import Path

from host import AIR, GREEDY, NANO, QUESTION, SUM, WEATHER, Nano, texts

from glm45 import GlmError, Loop, Model, Reasoning, Text, ThinkCut, ToolCall, TurnEnd


class Thinking(Nano):
    def test_budget(self):
        events = list(self.session().stream(SUM, thinking=5, **GREEDY))
        cut = next(e for e in events if isinstance(e, ThinkCut))
        self.assertEqual(cut.n_think, 5)
        self.assertEqual(events[-1].n_think, 5)
        i = events.index(cut)
        self.assertTrue(texts(events[:i], Reasoning))
        self.assertFalse(texts(events[i:], Reasoning))
        self.assertTrue(texts(events[i:], Text))

    def test_budget_that_is_enough(self):
        plain = self.session().chat(SUM, **GREEDY)
        within = list(self.session().stream(SUM, thinking=1000, **GREEDY))
        self.assertFalse(any(isinstance(e, ThinkCut) for e in within))
        self.assertEqual(texts(within, Text), plain.text)

    def test_close_phrase(self):
        answer = self.session().chat(SUM, thinking=4, think_close=" Enough.", **GREEDY)
        self.assertTrue(answer.reasoning.endswith(" Enough."), answer.reasoning)

    def test_no_thought_at_all(self):
        self.assertEqual(self.session().chat(SUM, thinking=False, **GREEDY).reasoning, "")
        self.assertEqual(self.session().chat(SUM, thinking=0, **GREEDY).reasoning, "")

    def test_end_thought(self):
        session = self.session()
        self.fails("GLM_ESTATE", session.end_thought)
        events = []
        for event in session.stream(SUM, **GREEDY):
            if isinstance(event, Reasoning) and not texts(events, Reasoning):
                session.end_thought()
            events.append(event)
        self.assertTrue(any(isinstance(e, ThinkCut) for e in events))
        self.assertTrue(texts(events, Text))

    def test_keep_thoughts_is_of_the_other_family(self):
        self.fails("GLM_ENOTSUP", self.session().turn, keep_thoughts=True)
        with Model(NANO, template="4.7") as model, model.session() as session:
            session.turn(keep_thoughts=True)


class Limits(Nano):
    def test_stop(self):
        whole = self.session().chat("Hello!", thinking=False, **GREEDY).text
        middle = whole[3:6]
        for stop in (middle, [middle], ("nowhere at all", middle)):
            answer = self.session().chat("Hello!", thinking=False, stop=stop, **GREEDY)
            self.assertEqual((answer.text, answer.end.reason), (whole[:whole.index(middle)], "stop"))

    def test_stop_arguments(self):
        session = self.session()
        self.fails("GLM_EINVAL", session.turn, stop="a\0b")
        self.fails("GLM_EINVAL", session.turn, stop=[""])
        self.fails("GLM_EINVAL", session.turn, stop=["x"] * 65)
        self.fails("GLM_EINVAL", session.turn, thinking=-1)
        self.fails("GLM_EINVAL", session.turn, max_seconds=-1.0)
        self.fails("GLM_EINVAL", session.turn, tool_choice="often")
        session.turn(stop=(), stop_lines=0)

    def test_time(self):
        answer = self.session().chat(SUM, max_seconds=0, **GREEDY)
        self.assertEqual(answer.end.reason, "time")

    def test_loop(self):
        """A penalty below 1 rewards what was said already."""
        session = self.session()
        found = None
        for event in session.stream("word " * 60, thinking=False, max_tokens=1500, repeat_penalty=0.01, temperature=0.0):
            if isinstance(event, Loop):
                found = event
                break
        self.assertIsNotNone(found)
        self.assertGreater(found.n_tokens, found.n_period)
        self.assertTrue(session.chat("Hello!", thinking=False, **GREEDY).text)

    def test_overflow(self):
        session = self.session(n_ctx=160, overflow="drop")
        for i in range(6):
            answer = session.chat(f"What is {i} + 1?", thinking=False, max_tokens=40, **GREEDY)
            self.assertIn(answer.end.reason, ("stop", "length"))
        strict = self.session(n_ctx=160)
        with self.assertRaises(GlmError) as caught:
            for i in range(6):
                strict.chat(f"What is {i} + 1?", thinking=False, max_tokens=40, **GREEDY)
        self.assertEqual(caught.exception.name, "GLM_ECONTEXT")
        self.fails("GLM_EINVAL", self.model.session, overflow="perhaps")


class Branches(Nano):
    def test_fork(self):
        session = self.session()
        session.chat("Hello!", thinking=False, **GREEDY)
        session.say(SUM)
        with session.fork() as other:
            a, b = session.chat(**GREEDY), other.chat(**GREEDY)
            self.assertEqual((a.text, a.reasoning), (b.text, b.reasoning))
            self.assertGreater(b.end.n_reused, 0)
        self.assertTrue(session.chat("Hello!", **GREEDY).text)

    def test_fork_in_a_turn(self):
        session = self.session()
        stream = session.stream(QUESTION, **GREEDY)
        events = []
        for event in stream:
            events.append(event)
            if isinstance(event, Reasoning):
                break
        with session.fork() as other:
            rest, twin = list(stream), list(other.stream())
        self.assertEqual(texts(rest, Text, Reasoning), texts(twin, Text, Reasoning))

    def test_fork_keeps_functions_and_calls(self):
        def get_weather(city: str) -> str:
            """Get the weather of a city."""
            return "rain, 7 C"
        session = self.session()
        session.tools(get_weather)
        call = next(e for e in session.stream(QUESTION, thinking=False, **GREEDY) if isinstance(e, ToolCall))
        self.assertEqual(call.session, session)
        session.chat("Hello!", thinking=False, **GREEDY)
        with session.fork() as other:
            self.assertIn("7 C", other.chat(QUESTION, thinking=False, **GREEDY).text)

    def test_rewind(self):
        session = self.session()
        session.chat("Hello!", thinking=False, **GREEDY)
        mark = session.mark()
        first = session.chat(SUM, **GREEDY)
        session.rewind(mark)
        again = session.chat(SUM, **GREEDY)
        self.assertEqual((first.text, first.reasoning), (again.text, again.reasoning))
        self.assertGreater(again.end.n_reused, 0)
        self.fails("GLM_EINVAL", session.rewind, 10**6)
        self.fails("GLM_EINVAL", session.rewind, -1)

    def test_attempt(self):
        session = self.session()
        session.chat("Hello!", thinking=False, **GREEDY)
        mark = session.mark()
        with self.assertRaises(KeyError):
            with session.attempt() as inside:
                self.assertEqual(inside, mark)
                session.chat(SUM, **GREEDY)
                self.assertGreater(session.mark(), mark)
                raise KeyError
        self.assertEqual(session.mark(), mark)
        with self.assertRaises(KeyError), session.attempt():
            stream = session.stream(SUM, **GREEDY)
            next(stream)
            raise KeyError  # in the middle of a turn
        self.assertEqual(session.mark(), mark)
        with session.attempt():
            session.chat(SUM, **GREEDY)
        self.assertGreater(session.mark(), mark)

    def test_attempt_leaves_the_question(self):
        session = self.session()
        session.say("Hello!")
        with self.assertRaises(KeyError), session.attempt():
            session.chat(thinking=False, **GREEDY)
            raise KeyError
        self.assertEqual(session.chat(thinking=False, **GREEDY).end.reason, "stop")

    def test_stats(self):
        session = self.session()
        session.chat("Hello!", thinking=False, **GREEDY)
        with session.fork() as other:
            self.assertGreater(session.stats.kv_shared_bytes, 0)
            self.assertEqual(other.stats.n_prompt, 0)


class Snapshots(Nano):
    def test_path(self):
        session = self.session()
        session.chat("Hello!", thinking=False, **GREEDY)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "chat.snapshot"
            session.save(path)
            with self.model.load(path) as other:
                a, b = session.chat(SUM, **GREEDY), other.chat(SUM, **GREEDY)
                self.assertEqual((a.text, a.reasoning, a.end.n_reused), (b.text, b.reasoning, b.end.n_reused))
            self.fails("GLM_EIO", self.model.load, Path(folder) / "none")
            self.fails("GLM_EIO", session.save, Path(folder) / "no" / "such" / "folder")
            path.write_bytes(path.read_bytes()[:-1])
            self.fails("GLM_EFORMAT", self.model.load, path)
        self.fails("GLM_EINVAL", session.save, "a\0b")

    def test_file_objects(self):
        session = self.session()
        session.chat("Hello!", thinking=False, **GREEDY)
        file = io.BytesIO()
        session.save(file)
        self.assertGreater(len(file.getvalue()), 1000)
        file.seek(0)
        with self.model.load(file) as other:
            self.assertEqual(other.chat(SUM, **GREEDY).text, session.chat(SUM, **GREEDY).text)

        class Broken(io.RawIOBase):
            def write(self, data):
                raise ZeroDivisionError("full")

            def read(self, size=-1):
                raise ZeroDivisionError("empty")
        with self.assertRaisesRegex(ZeroDivisionError, "full"):
            session.save(Broken())
        with self.assertRaisesRegex(ZeroDivisionError, "empty"):
            self.model.load(Broken())
        with self.assertRaises(TypeError):
            self.model.load(io.StringIO("text"))
        self.assertTrue(session.chat("Hello!", thinking=False, **GREEDY).text)

    def test_waiting_call(self):
        def get_weather(city: str) -> str:
            """Get the weather of a city."""
            return "rain, 7 C"
        session = self.session()
        session.tools(WEATHER)
        call = session.chat(QUESTION, thinking=False, **GREEDY).pending[0]
        file = io.BytesIO()
        session.save(file)
        file.seek(0)
        with self.model.load(file, tools=[get_weather]) as other:
            other.tool_result(call.call_id, "27 C")
            self.assertIn("27 C", other.chat().text)
            self.assertIn("7 C", other.chat(QUESTION, thinking=False, **GREEDY).text)  # carried out by the function

    def test_another_model(self):
        file = io.BytesIO()
        session = self.session()
        session.say("Hello!")
        session.save(file)
        file.seek(0)
        with Model(AIR) as other:
            self.fails("GLM_EMISMATCH", other.load, file)


class Code(Nano):
    LESS = "def less(i, acroup):\n    return"

    def test_text(self):
        session = self.session()
        self.assertEqual(session.infill(self.LESS, "\n", max_tokens=60, **GREEDY).text(), " i < acroup")
        answer = session.infill("def length(count):\n    return ", "\n").answer()
        self.assertEqual((answer.text, answer.reasoning, answer.end.reason), ("len(count)", "", "stop"))

    def test_conversation_stays(self):
        session = self.session()
        session.chat("Hello!", thinking=False, **GREEDY)
        mark = session.mark()
        session.infill(self.LESS, "\n").text()
        self.assertEqual(session.mark(), mark)

    def test_files(self):
        session = self.session()
        plain = session.infill(self.LESS, "\n", **GREEDY).answer().end.n_prompt
        files = {"a/b.py": "def f(x):\n    return x\n"}
        with_file = session.infill(self.LESS, "\n", files=files).answer().end.n_prompt
        self.assertGreater(with_file, plain)
        self.assertEqual(session.infill(self.LESS, "\n").answer().end.n_prompt, with_file)
        self.assertEqual(session.infill(self.LESS, "\n", files={"a/b.py": None}).answer().end.n_prompt, plain)
        self.fails("GLM_EINVAL", session.infill_file, "", "x")
        self.fails("GLM_EUTF8", session.infill, b"\xff")

    def test_stop_lines(self):
        events = list(self.session().infill("def f(a):\n", "", max_tokens=60, stop_lines=1, **GREEDY))
        self.assertIsInstance(events[-1], TurnEnd)
        self.assertLessEqual(texts(events, Text).count("\n"), 1)


if __name__ == "__main__":
    unittest.main()
