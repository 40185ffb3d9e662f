"""Streams in an event loop, on the model's worker, and sessions in shared passes. GLM45_LIBRARY names the library."""
from __future__ import annotations

import asyncio
import gc
import os
import time
import unittest

from host import AIR, GREEDY, NANO, QUESTION, SUM, WEATHER, Nano, texts

from glm45 import Error, GlmError, Model, Paused, Prefill, Reasoning, Text, ToolCall, TurnEnd

LONG = {"thinking": False, "max_tokens": 3000, "answer_pattern": "[a-z ]{20000}"}  # cannot end before its limit


class Async(Nano, unittest.IsolatedAsyncioTestCase):
    async def collect(self, stream):
        return [event async for event in stream]

    async def test_same_answer_as_in_a_for(self):
        want = list(self.session().stream(SUM, **GREEDY))
        got = await self.collect(self.session().stream(SUM, **GREEDY))
        self.assertIsInstance(got[0], Prefill)
        self.assertIsInstance(got[-1], TurnEnd)
        for kind in (Text, Reasoning):
            self.assertEqual(texts(got, kind), texts(want, kind))
        self.assertEqual((got[-1].reason, got[-1].n_answer), (want[-1].reason, want[-1].n_answer))

    async def test_await(self):
        session = self.session()
        answer = await session.stream(SUM, **GREEDY)
        self.assertEqual(answer.text, self.session().chat(SUM, **GREEDY).text)
        self.assertTrue((await session.stream("Hello!", thinking=False)).text)
        self.assertEqual(session.chat(SUM, **GREEDY).end.reason, "stop")  # a `for` may follow

    async def test_the_loop_goes_on(self):
        """While a long prompt and a long answer are computed the event loop is never held up."""
        session, longest, n_tick = self.session(), 0.0, 0

        async def tick():
            nonlocal longest, n_tick
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.001)
                longest, n_tick = max(longest, time.monotonic() - began), n_tick + 1
        ticking, began = asyncio.create_task(tick()), time.monotonic()
        await session.stream("word " * 1500, thinking=False, max_tokens=50)
        ticking.cancel()
        self.assertGreater(session.stats.n_prompt, 1500)
        self.assertGreater(n_tick, 10)
        self.assertLess(longest, (time.monotonic() - began) / 2)

    async def test_many_at_once(self):
        questions = [f"What is {i} + {i + 3}?" for i in range(6)]
        want = [self.session().chat(q, **GREEDY).text for q in questions]
        got = await asyncio.gather(*[self.session().stream(q, **GREEDY) for q in questions])
        self.assertEqual([a.text for a in got], want)

    async def test_leaving(self):
        session = self.session()
        async for event in session.stream("Hello!", **LONG):
            if isinstance(event, Text):
                break
        answer = session.chat("Hello!", thinking=False, **GREEDY)  # waits for the end of the other
        self.assertEqual(answer.end.reason, "stop")
        with self.assertRaises(KeyError):
            async for event in session.stream("Hello!", **LONG):
                raise KeyError
        self.assertEqual((await session.stream(SUM, **GREEDY)).end.reason, "stop")

    async def test_close(self):
        session = self.session()
        async with session.stream("Hello!", **LONG) as stream:
            await stream.__anext__()
        session.say("Hello!")
        stream = session.stream(**LONG)
        await stream.__anext__()
        stream.close()
        stream.close()
        self.assertEqual(await self.collect(stream), [])
        self.assertEqual((await session.stream("Hello!", thinking=False, **GREEDY)).end.reason, "stop")

    async def test_task_that_is_cancelled(self):
        session = self.session()
        task = asyncio.create_task(self.collect(session.stream("Hello!", **LONG)))
        await asyncio.sleep(0.05)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(session.stream("Hello!", **LONG), 0.05)
        # what was written so far stays, so that the answer to it may be anything
        self.assertIn((await session.stream("Hello!", thinking=False, **GREEDY)).end.reason, ("stop", "length"))

    async def test_cancel(self):
        session = self.session()
        events = []
        async for event in session.stream("Hello!", **LONG):
            events.append(event)
            if isinstance(event, Text):
                session.cancel()
        self.assertEqual(events[-1].reason, "cancelled")

    async def test_close_of_the_session(self):
        session = self.session()
        task = asyncio.create_task(self.collect(session.stream("Hello!", **LONG)))
        await asyncio.sleep(0.05)
        session.close()
        try:
            self.assertEqual((await task)[-1].reason, "cancelled")
        except GlmError as e:
            self.assertEqual(e.name, "GLM_EINVAL")

    async def test_busy(self):
        session = self.session()
        stream = session.stream("Hello!", **LONG)
        await stream.__anext__()
        self.fails("GLM_EBUSY", session.say, "x")
        self.assertGreater(session.stats.n_prompt, 0)
        with self.assertRaises(RuntimeError):
            next(stream)
        await stream.aclose()
        session.say("x")

    async def test_attempt(self):
        session = self.session()
        mark = session.mark()
        with self.assertRaises(KeyError), session.attempt():
            stream = session.stream("Hello!", **LONG)
            await stream.__anext__()
            raise KeyError
        self.assertEqual(session.mark(), mark)
        with self.assertRaises(asyncio.TimeoutError), session.attempt():
            await asyncio.wait_for(session.stream("Hello!", **LONG), 0.05)
        self.assertEqual(session.mark(), mark)
        self.assertEqual((await session.stream("Hello!", thinking=False, **GREEDY)).end.reason, "stop")

    async def test_infill(self):
        answer = await self.session().infill("def less(i, acroup):\n    return", "\n", max_tokens=60, **GREEDY)
        self.assertEqual(answer.text, " i < acroup")

    async def test_two_models_and_no_descriptor_is_left(self):
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(3):
            with Model(NANO, threads=1) as model, model.session() as session:
                self.assertTrue((await session.stream("Hello!", thinking=False, **GREEDY)).text)
        self.assertEqual(len(os.listdir("/proc/self/fd")) if before else 0, before)

    async def test_errors(self):
        with self.assertRaises(GlmError) as caught:
            await self.session().stream()
        self.assertEqual(caught.exception.name, "GLM_ESTATE")
        small = self.session(n_ctx=64)
        with self.assertRaises(GlmError) as caught:
            await small.stream("word " * 100)
        self.assertEqual(caught.exception.name, "GLM_ECONTEXT")
        self.assertIn("64", caught.exception.message)

    async def test_tools(self):
        def get_weather(city: str) -> str:
            """Get the weather of a city."""
            time.sleep(0.05)  # the model's message is over by then
            return "rain, 7 C"

        async def slow_weather(city: str) -> str:
            """Get the weather of a city."""
            await asyncio.sleep(0.05)
            return "snow, 27 C"
        slow_weather.__name__ = "get_weather"
        for function, part in ((get_weather, "7 C"), (slow_weather, "27 C")):
            session = self.session()
            session.tools(function)
            answer = await session.stream(QUESTION, thinking=False, **GREEDY)
            self.assertIn(part, answer.text)
            self.assertEqual((answer.end.reason, len(answer.calls), answer.pending), ("stop", 1, []))
        with self.assertRaises(TypeError):
            session.chat(QUESTION)  # nobody could await the function

    async def test_tool_answered_late(self):
        """However late a reply comes within the loop, there is one TurnEnd."""
        session, events = self.session(), []
        session.tools(WEATHER)
        async for event in session.stream(QUESTION, thinking=False, **GREEDY):
            events.append(event)
            if isinstance(event, ToolCall):
                await asyncio.sleep(0.1)
                event.reply("rain, 7 C")
        self.assertEqual([e.reason for e in events if isinstance(e, TurnEnd)], ["stop"])
        self.assertIn("7 C", texts(events, Text))

    async def test_end_thought(self):
        session, thought = self.session(), 0
        async for event in session.stream(SUM, thinking=True, max_tokens=500, temperature=0.0):
            if isinstance(event, Reasoning) and not thought:
                thought += 1
                try:
                    session.end_thought()
                except GlmError as e:  # the worker was faster than we
                    self.assertEqual(e.name, "GLM_ESTATE")
        self.assertIsInstance(event, TurnEnd)

    async def test_slow_reader(self):
        session = self.session(event_bytes=1)
        events = []
        async for event in session.stream(SUM, **GREEDY):
            await asyncio.sleep(0.002)
            events.append(event)
        self.assertEqual(texts(events, Text), self.session().chat(SUM, **GREEDY).text)

    async def test_nothing_stays(self):
        session = self.session()
        stream = session.stream("Hello!", **LONG)
        await stream.__anext__()
        del stream, session
        gc.collect()


class Batch(Nano):
    def ask(self, questions, **options):
        sessions = [self.session() for _ in questions]
        for session, question in zip(sessions, questions):
            session.turn(**{**GREEDY, **options})
            session.say(question)
        return sessions

    def test_step(self):
        sessions = self.ask(["Hello!", SUM])
        seen = {s: [] for s in sessions}
        left = list(sessions)
        while left:
            events = self.model.step(left, budget_ms=5)
            self.assertEqual(len(events), len(left))
            for session, event in list(zip(left, events)):
                seen[session].append(event)
                if isinstance(event, TurnEnd):
                    left.remove(session)
        for session, question in zip(sessions, ("Hello!", SUM)):
            self.assertEqual(texts(seen[session], Text), self.session().chat(question, **GREEDY).text)

    def test_stream_all(self):
        questions = ["Hello!"] + [f"What is {i} + 5?" for i in range(5)]
        sessions = self.ask(questions)
        said, ends = {s: "" for s in sessions}, []
        for session, event in self.model.stream_all(sessions):
            self.assertNotIsInstance(event, Paused)
            if isinstance(event, Text):
                said[session] += event.text
            if isinstance(event, TurnEnd):
                ends.append(session)
        self.assertEqual(len(ends), len(sessions))
        for session, question in zip(sessions, questions):
            self.assertEqual(said[session], self.session().chat(question, **GREEDY).text)

    def test_more_than_a_batch(self):
        n = self.model.info.batch_max + 3
        sessions = self.ask(["Hello!"] * n, thinking=False, max_tokens=2)
        ends = [s for s, e in self.model.stream_all(sessions) if isinstance(e, TurnEnd)]
        self.assertEqual(len(ends), n)
        self.fails("GLM_EINVAL", self.model.step, sessions)

    def test_leaving(self):
        sessions = self.ask(["Hello!", SUM])
        for _, event in self.model.stream_all(sessions):
            if isinstance(event, Reasoning):
                break
        for session in sessions:
            self.assertEqual(session.chat("Hello!", thinking=False, **GREEDY).end.reason, "stop")

    def test_one_that_fails(self):
        good, = self.ask(["Hello!"], thinking=False)
        small = self.session(n_ctx=64)
        small.say("word " * 100)
        events = list(self.model.stream_all([good, small]))
        self.assertEqual([e.error.name for s, e in events if isinstance(e, Error) and s is small], ["GLM_ECONTEXT"])
        self.assertTrue(texts([e for s, e in events if s is good], Text))

    def test_tools(self):
        def get_weather(city: str) -> str:
            """Get the weather of a city."""
            return "rain, 7 C"
        sessions = self.ask([QUESTION] * 2, thinking=False)
        said = {s: "" for s in sessions}
        for session in sessions:
            session.tools(get_weather)
        for session, event in self.model.stream_all(sessions):
            if isinstance(event, ToolCall):
                event.run()
            elif isinstance(event, Text):
                said[session] += event.text
        self.assertTrue(all("7 C" in text for text in said.values()), said)

    def test_errors(self):
        session, = self.ask(["Hello!"])
        self.fails("GLM_EINVAL", self.model.step, [])
        self.fails("GLM_EINVAL", self.model.step, [session, session])
        self.fails("GLM_ESTATE", self.model.step, [self.session()])
        with Model(AIR) as other, other.session() as foreign:
            e = self.fails("GLM_EINVAL", self.model.step, [session, foreign])
            self.assertEqual(e.offset, 1)


if __name__ == "__main__":
    unittest.main()
