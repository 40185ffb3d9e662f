"""The Python package against the built library: layout of structs, errors, tokens against goldens, conversations with
the small model. GLM45_LIBRARY names the library, GLM_TEST_DATA the folder of test data.

    GLM45_LIBRARY=build/libglm45.so.1 python3 tests/python/test_glm45.py
"""
from __future__ import annotations

import ctypes
import gc
import json
import logging
import math
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import weakref
from array import array
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GLM_TEST_DATA", ROOT / "tests" / "data"))
GOLDEN = DATA / "golden" / "air-bf16"
NANO = ROOT / "models" / "nano"
HEADER = ROOT / "include" / "glm45" / "glm45.h"
sys.path.insert(0, str(ROOT / "bindings" / "python"))
sys.dont_write_bytecode = True

import glm45  # noqa: E402
from glm45 import (GlmError, Model, Paused, Prefill, Ready, Reasoning, Text, ToolCall, ToolCallBegin,  # noqa: E402
                   ToolCallDelta, TurnEnd, _ffi)

LOOKUP = [{"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
QUESTION = "What is the weather in Oslo?"


def safetensors(path):
    """Name to a flat array of a file's float32 and int32 tensors."""
    data = path.read_bytes()
    size, = struct.unpack_from("<Q", data)
    out = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            out[name] = array({"F32": "f", "I32": "i"}[entry["dtype"]], data[8 + size + begin:8 + size + end])
    return out


def argmax(row):
    return max(range(len(row)), key=row.__getitem__)


def texts(events, kind):
    return "".join(e.text for e in events if isinstance(e, kind))


class Failing(unittest.TestCase):
    def fails(self, name, call, *arguments, **options):
        """Asserts the status of a refused call, and returns its error."""
        with self.assertRaises(GlmError) as caught:
            call(*arguments, **options)
        self.assertEqual(caught.exception.name, name, str(caught.exception))
        self.assertEqual(caught.exception.code, _ffi.STATUS[name])
        return caught.exception


# ---- the header ------------------------------------------------------------------------------------------------------

def bare_header():
    """The header without comments and preprocessor lines' continuations."""
    text = re.sub(r"/\*.*?\*/", " ", HEADER.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\\\n", " ", text)


def struct_fields(text):
    """Every struct of the header: name to its fields' names in order."""
    out = {}
    for body, name in re.findall(r"typedef struct glm_\w+ \{(.*?)\n\} (glm_\w+);", text, re.S):
        fields = []
        for declaration in filter(str.strip, body.split(";")):
            pointer = re.search(r"\(\s*GLM_CALL\s*\*\s*(\w+)\s*\)", declaration)
            if pointer:
                fields.append(pointer[1])
            else:
                fields += [re.search(r"(\w+)\s*(\[\w+\])?\s*$", part)[1] for part in declaration.split(",")]
        out[name] = fields
    return out


class Layout(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = bare_header()
        cls.structs = struct_fields(cls.text)
        cls.inits = set(re.findall(r"#define (GLM_\w+_INIT)\b", cls.text))
        enums = [n for body in re.findall(r"\benum \{(.*?)\}", cls.text, re.S) for n in re.findall(r"(GLM_\w+)\s*=", body)]
        cls.constants = enums + re.findall(r"#define (GLM_[A-Z0-9_]+) +\(?-?\w+\)?", cls.text)
        cls.constants = [c for c in cls.constants if not c.endswith("_INIT") and c not in ("GLM_API", "GLM_CALL",
                         "GLM_NTS", "GLM_LAST_ROW", "GLM_DEFAULT_FLOAT")]
        cls.printed = cls.run_c()

    @classmethod
    def run_c(cls):
        """What the C compiler says: a line of JSON a fact."""
        compiler = os.environ.get("CC", "cc").split()
        if not shutil.which(compiler[0]):
            raise unittest.SkipTest("no C compiler")
        lines = []
        for name, fields in cls.structs.items():
            lines.append(f'printf("size {name} %zu\\n", sizeof({name}));')
            for field in fields:
                lines.append(f'printf("field {name}.{field} %zu %zu\\n", offsetof({name}, {field}), '
                             f"sizeof((({name} *)0)->{field}));")
            init = name.upper() + "_INIT"
            if init in cls.inits:
                lines.append(f'{{ {name} s = {init}; printf("init {name} "); hex(&s, sizeof s); }}')
        lines += [f'printf("constant {c} %lld\\n", (long long){c});' for c in cls.constants]
        source = ("#include <glm45/glm45.h>\n#include <stdio.h>\n"
                  "static void hex(const void *p, size_t n)\n{\n    for (size_t i = 0; i < n; i++)\n"
                  '        printf("%02x", ((const unsigned char *)p)[i]);\n    printf("\\n");\n}\n'
                  "int main(void)\n{\n" + "\n".join("    " + line for line in lines) + "\n    return 0;\n}\n")
        with tempfile.TemporaryDirectory() as folder:
            c, program = Path(folder) / "layout.c", Path(folder) / "layout"
            c.write_text(source)
            subprocess.run([*compiler, "-I", str(HEADER.parents[1]), str(c), "-o", str(program)], check=True)
            return subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.splitlines()

    def facts(self, kind):
        found = [line.split()[1:] for line in self.printed if line.startswith(kind + " ")]
        self.assertTrue(found)
        return found

    def test_every_struct_is_there(self):
        self.assertGreaterEqual(len(self.structs), 14)
        self.assertEqual(set(self.structs), set(_ffi.STRUCTS))

    def test_sizes(self):
        for name, size in self.facts("size"):
            self.assertEqual(ctypes.sizeof(_ffi.STRUCTS[name]), int(size), name)

    def test_fields(self):
        for name, fields in self.structs.items():
            self.assertEqual([f[0] for f in _ffi.STRUCTS[name]._fields_], fields, name)
        for path, offset, size in self.facts("field"):
            name, field = path.split(".")
            descriptor = getattr(_ffi.STRUCTS[name], field)
            self.assertEqual((descriptor.offset, descriptor.size), (int(offset), int(size)), path)

    def test_defaults(self):
        self.assertEqual(len(self.facts("init")), len(self.inits))
        for name, wanted in self.facts("init"):
            self.assertEqual(bytes(_ffi.STRUCTS[name]()).hex(), wanted, name)

    def test_constants(self):
        tables = {"GLM_WEIGHTS_": _ffi.WEIGHTS, "GLM_KV_": _ffi.KV_TYPES, "GLM_DEVICE_": _ffi.DEVICES,
                  "GLM_ACTIVATIONS_": _ffi.ACTIVATIONS, "GLM_ROLE_": _ffi.ROLES, "GLM_SPECULATION_": _ffi.SPECULATIONS,
                  "GLM_THINK_": _ffi.THINKING, "GLM_TOOLS_": _ffi.TOOL_CHOICES, "GLM_END_": _ffi.END_REASONS,
                  "GLM_EVENT_": _ffi.EVENTS, "GLM_SPECULATION_": _ffi.SPECULATIONS}
        ours = {prefix + name.upper(): value for prefix, table in tables.items() for name, value in table.items()}
        ours.update(_ffi.STATUS)
        ours.update({"GLM_OVERFLOW_ERROR": _ffi.OVERFLOWS["error"],
                     "GLM_OVERFLOW_DROP_OLDEST": _ffi.OVERFLOWS["drop"]})
        ours.update({"GLM_TEMPLATE_AUTO": _ffi.TEMPLATES["auto"], "GLM_TEMPLATE_45": _ffi.TEMPLATES["4.5"],
                     "GLM_TEMPLATE_47": _ffi.TEMPLATES["4.7"], "GLM_MESSAGE_SPECIALS": _ffi.MESSAGE_SPECIALS,
                     "GLM_TOKENIZE_SPECIALS": _ffi.TOKENIZE_SPECIALS, "GLM_ROWS_LAST": _ffi.ROWS_LAST,
                     "GLM_ROWS_ALL": _ffi.ROWS_ALL, "GLM_VERSION_MAJOR": _ffi.VERSION[0],
                     "GLM_VERSION_MINOR": _ffi.VERSION[1]})
        header = {name: int(value) for name, value in self.facts("constant")}
        header.pop("GLM_VERSION_PATCH")
        self.assertEqual(ours, header)

    def test_functions(self):
        declared = re.findall(r"GLM_API [^;]*?GLM_CALL (glm_\w+)\(([^;]*)\);", self.text)
        counts = {name: 0 if args.strip() == "void" else args.count(",") + 1 for name, args in declared}
        self.assertEqual({name: len(types) for name, (_, types) in _ffi.FUNCTIONS.items()}, counts)


# ---- models ----------------------------------------------------------------------------------------------------------

class Models(Failing):
    def test_version(self):
        self.assertEqual(glm45.load_library().version[:2], _ffi.VERSION)

    def test_status_names(self):
        cdll = glm45.load_library().cdll
        for name, code in _ffi.STATUS.items():
            self.assertEqual(cdll.glm_status_name(code).decode(), name)

    def test_no_library(self):
        with self.assertRaises(OSError) as caught:
            glm45.load_library("/nowhere/libglm45.so.1")
        self.assertIn("/nowhere/libglm45.so.1", str(caught.exception))

    def test_opening_errors(self):
        with tempfile.TemporaryDirectory() as folder:
            e = self.fails("GLM_EIO", Model, folder + "/none")
            self.assertIn("none", e.where)
            bad = Path(folder) / "bad.gguf"
            bad.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + b"\xff" * 60)
            self.fails("GLM_EFORMAT", Model, bad)
            shutil.copytree(GOLDEN, folder + "/cut")
            weights = Path(folder) / "cut" / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1])
            self.fails("GLM_EFORMAT", Model, folder + "/cut")
        self.fails("GLM_EINVAL", Model, "a\0b")
        self.fails("GLM_EINVAL", Model, NANO, weights="some")
        self.fails("GLM_EINVAL", Model, NANO, threads=-1)
        self.fails("GLM_EDEVICE", Model, NANO, device="cuda")

    def test_error_survives_pickling(self):
        e = self.fails("GLM_EIO", Model, "/nowhere")
        again = pickle.loads(pickle.dumps(e))
        self.assertEqual((again.code, again.name, again.where, str(again)), (e.code, e.name, e.where, str(e)))

    def test_info(self):
        config = json.loads((NANO / "config.json").read_text())
        with Model(NANO) as model:
            info = model.info
        self.assertEqual((info.n_layer, info.n_vocab, info.d_model),
                         (config["num_hidden_layers"], config["vocab_size"], config["hidden_size"]))
        self.assertEqual((info.template, info.n_expert, len(info.fingerprint)), ("4.5", config["n_routed_experts"], 32))

    def test_estimate(self):
        one, two = Model.estimate(NANO, n_ctx=1024), Model.estimate(NANO, n_ctx=1024, sessions=2)
        self.assertGreater(one.mapped_bytes, 1 << 20)
        self.assertEqual(two.kv_bytes, 2 * one.kv_bytes)
        self.fails("GLM_EIO", Model.estimate, "/nowhere")
        cached = Model.estimate(NANO, n_ctx=1024, expert_cache_bytes=500000)
        self.assertEqual(cached.private_bytes, one.private_bytes + 500000)

    def test_expert_cache(self):
        self.fails("GLM_EINVAL", Model, NANO, expert_cache_bytes=1)
        with Model(NANO) as model, model.session() as session:
            plain, stats = session.chat("Hello!", seed=1, max_tokens=16), session.stats
        self.assertEqual((stats.n_expert_hit, stats.n_expert_miss), (0, 0))
        with Model(NANO, expert_cache_bytes=500000) as model, model.session() as session:
            self.assertEqual(session.chat("Hello!", seed=1, max_tokens=16).text, plain.text)
            self.assertGreater(session.stats.n_expert_miss, 0)
            self.assertGreater(session.stats.expert_bytes_read, 0)

    def test_closing(self):
        model = Model(NANO)
        session = model.session()
        model.close()
        model.close()
        self.assertTrue(model.closed)
        self.fails("GLM_EINVAL", lambda: model.info)
        session.say("Hello!")  # a session keeps what it needs
        session.step()
        session.close()
        session.close()
        session.cancel()
        self.fails("GLM_EINVAL", session.say, "x")

    def test_nothing_stays_alive(self):
        gc.collect()
        gc.disable()
        try:
            model = Model(NANO, logger=lambda level, text: None, progress=lambda done, total: None, weights="read")
            session = model.session()
            answer = session.chat("Hello!", max_tokens=4)
            refs = [weakref.ref(model), weakref.ref(session)]
            del model, session, answer
            self.assertEqual([r() for r in refs], [None, None])
        finally:
            gc.enable()

    def test_interpreter_exit(self):
        program = ("import sys; sys.path.insert(0, sys.argv[1]); import glm45\n"
                   "m = glm45.Model(sys.argv[2], logger=print); s = m.session(); g = s.stream('Hello!'); next(g)\n"
                   "m.cycle = m; s.cycle = (s, g)\n")
        done = subprocess.run([sys.executable, "-B", "-c", program, str(ROOT / "bindings" / "python"), str(NANO)],
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_progress(self):
        seen = []
        with Model(NANO, weights="read", progress=lambda done, total: seen.append((done, total))):
            pass
        self.assertTrue(seen)
        self.assertEqual(seen[-1][0], seen[-1][1])
        self.assertEqual(seen, sorted(seen))

        def stop(done, total):
            raise KeyError("enough")
        with self.assertRaises(KeyError):
            Model(NANO, weights="read", progress=stop)

    def test_logger(self):
        lines = []
        with Model(NANO, logger=lambda level, text: lines.append((level, text)), log_level=4) as model, \
                model.session() as session:
            session.chat("Hello!", max_tokens=2)
        for level, text in lines:
            self.assertIn(level, (1, 2, 3, 4))
            self.assertTrue(text)
        with Model(NANO, logger=logging.getLogger("test.glm45")):
            pass

    def test_tokens(self):
        with Model(NANO, weights="none") as model:
            for text in ("", "Hello!", "a\0b", "Grüße, 世界 \U0001f30d\n", "<|user|>"):
                self.assertEqual(model.detokenize(model.tokenize(text)), text)
            self.assertEqual(len(model.tokenize("<|user|>", specials=True)), 1)
            self.assertGreater(len(model.tokenize("<|user|>")), 1)
            long = "wörter " * 5000
            self.assertEqual(model.detokenize(model.tokenize(long)), long)
            self.assertEqual(self.fails("GLM_EUTF8", model.tokenize, "ab\udc80").offset, 2)
            self.assertEqual(self.fails("GLM_EUTF8", model.tokenize, b"abc\xff").offset, 3)
            self.fails("GLM_EINVAL", model.detokenize, [10**6])
            self.fails("GLM_EINVAL", model.detokenize, [2**40])
            self.fails("GLM_ESTATE", model.session)

    def test_golden_greedy(self):
        expect = safetensors(GOLDEN / "expect.safetensors")
        n_vocab = len(expect["logits"]) // len(expect["ids"])
        with Model(GOLDEN, activations="f32") as model, model.session() as session:
            session.turn(temperature=0.0)
            session.compute(expect["ids"], all_rows=True)
            for i in range(len(expect["ids"])):
                want = expect["logits"][i * n_vocab:(i + 1) * n_vocab]
                got = session.logits(i)
                self.assertLess(max(abs(a - b) for a, b in zip(got, want)), 0.01)
            self.assertEqual(session.logits(), session.logits(len(expect["ids"]) - 1))
            out = []
            while len(out) < len(expect["greedy"]):
                self.assertEqual(session.sample(), argmax(session.logits()))
                out.append(session.sample())
                session.compute(out[-1:])
            self.assertEqual(out, list(expect["greedy"]))
            self.assertEqual(len(session.hidden()), model.info.d_model)
            self.fails("GLM_EINVAL", session.logits, 5)
            self.fails("GLM_ENOTSUP", session.say, "no tokenizer")
            self.fails("GLM_EINVAL", session.feed, [n_vocab])

    def test_buffers(self):
        """Ids from any buffer, logits to any."""
        with Model(GOLDEN) as model, model.session() as session:
            session.compute((i for i in (1, 2, 3)))
            first = session.logits()
            self.assertEqual(memoryview(first).format, "f")
        with Model(GOLDEN) as model, model.session() as session:
            session.compute(memoryview(array("q", [1, 2, 3])))
            self.assertEqual(session.logits(), first)
            self.assertTrue(all(map(math.isfinite, first)))


# ---- conversations ---------------------------------------------------------------------------------------------------

class Conversations(Failing):
    @classmethod
    def setUpClass(cls):
        cls.model = Model(NANO, threads=1)

    @classmethod
    def tearDownClass(cls):
        cls.model.close()

    def setUp(self):
        self.session = self.model.session()
        self.addCleanup(self.session.close)

    def test_answer(self):
        events = list(self.session.stream("Hello!", thinking=False, temperature=0.0))
        self.assertIsInstance(events[0], Prefill)
        self.assertIsInstance(events[-1], TurnEnd)
        end = events[-1]
        self.assertEqual((end.reason, end.n_reused, end.n_think), ("stop", 0, 0))
        self.assertEqual(sum(isinstance(e, TurnEnd) for e in events), 1)
        self.assertGreater(end.decode_ns, 0)
        self.assertTrue(texts(events, Text))
        self.assertEqual(texts(events, Reasoning), "")
        with self.model.session() as other:
            self.assertEqual(str(other.chat("Hello!", thinking=False, temperature=0.0)), texts(events, Text))

    def test_thinking(self):
        answer = self.session.chat("What is 12 + 30?", temperature=0.0)
        self.assertTrue(answer.reasoning)
        self.assertIn("42", answer.text)
        self.assertEqual(answer.end.reason, "stop")
        self.assertGreater(answer.end.n_think, 0)

    def test_budgets_change_nothing(self):
        plain = list(self.session.stream(QUESTION, temperature=0.0))
        with self.model.session() as other:
            events = list(other.stream(QUESTION, temperature=0.0, budget_ms=0))
        self.assertTrue(any(isinstance(e, Paused) for e in events))
        keep = (Text, Reasoning)
        self.assertEqual([e for e in events if isinstance(e, keep)], [e for e in plain if isinstance(e, keep)])
        self.assertFalse(any(isinstance(e, Paused) for e in plain))

    def test_length(self):
        end = list(self.session.stream("What is 12 + 30?", max_tokens=3))[-1]
        self.assertEqual((end.reason, end.n_think + end.n_answer), ("length", 3))

    def test_seeds(self):
        def said(seed):
            with self.model.session() as session:
                return session.chat("Hello!", seed=seed, temperature=3.0, top_p=1.0, top_k=0, max_tokens=20)
        first, second, other = said(1), said(1), said(2)
        self.assertEqual((first.text, first.reasoning), (second.text, second.reasoning))
        self.assertNotEqual((first.text, first.reasoning), (other.text, other.reasoning))

    def test_reuse(self):
        first = self.session.chat("Hello!", thinking=False, temperature=0.0)
        self.assertEqual(first.end.n_reused, 0)
        second = self.session.chat("What is 1 + 1?", thinking=False, temperature=0.0)
        self.assertGreaterEqual(second.end.n_reused, first.end.n_prompt)
        self.assertLess(second.end.n_reused, second.end.n_prompt)
        past = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": first.text},
                {"role": "user", "content": "Who are you?"}]
        n_common = self.session.messages(past)
        third = self.session.chat()
        self.assertEqual(n_common, third.end.n_reused)
        self.assertGreater(n_common, 0)
        stats = self.session.stats
        self.assertEqual(stats.n_reused, second.end.n_reused + third.end.n_reused)
        self.assertEqual(stats.n_prompt, sum(a.end.n_prompt for a in (first, second, third)))
        self.assertGreater(stats.kv_bytes, 0)

    def test_unicode(self):
        for text in ("Grüße \U0001f30d", "a\0b", "<|user|></think>", "", b"bytes \xc3\xbc"):
            with self.model.session() as session:
                answer = session.chat(text, thinking=False, max_tokens=8)
                self.assertIsInstance(answer.text, str)
        e = self.fails("GLM_EUTF8", self.session.say, "ab\ud800")
        self.assertEqual((e.offset, e.where), (2, "text"))
        self.fails("GLM_EUTF8", self.session.messages, [{"role": "user", "content": "\ud800"}])

    def test_add(self):
        self.session.add("system", "Be brief.")
        self.session.add("user", QUESTION)
        self.session.tools(LOOKUP)
        self.session.add("assistant", reasoning="A look-up.", calls=[{"name": "get_weather",
                                                                      "arguments": {"city": "Oslo"}}])
        self.session.add("tool", "12 C")
        answer = self.session.chat(temperature=0.0, thinking=False, max_tokens=50)
        self.assertIn("12 C", answer.text)
        self.fails("GLM_EINVAL", self.session.add, "nobody", "x")
        self.fails("GLM_EINVAL", self.session.add, "user", "x", reasoning="a user has none")

    def test_tool_call(self):
        self.session.tools(json.dumps(LOOKUP))
        events = list(self.session.stream(QUESTION, temperature=0.0, thinking=False))
        call = next(e for e in events if isinstance(e, ToolCall))
        begin = next(e for e in events if isinstance(e, ToolCallBegin))
        deltas = [e for e in events if isinstance(e, ToolCallDelta)]
        self.assertEqual((call.name, call.arguments), ("get_weather", {"city": "Oslo"}))
        self.assertEqual((begin.call_id, begin.name), (call.call_id, call.name))
        self.assertEqual(json.loads("".join(e.text for e in deltas)), call.arguments)
        self.assertEqual({e.call_id for e in deltas}, {call.call_id})
        self.assertEqual(events[-1].reason, "tools")
        self.fails("GLM_ESTATE", self.session.chat)
        self.fails("GLM_EINVAL", self.session.tool_result, 10**6, "x")
        call.reply({"result": "12 C"})
        self.fails("GLM_EINVAL", call.reply, "again")
        answer = self.session.chat()
        self.assertIn("12 C", answer.text)
        self.assertEqual((answer.end.reason, answer.calls), ("stop", []))

    def test_tool_call_answered_at_once(self):
        self.session.tools(LOOKUP)
        said, ends = [], 0
        for event in self.session.stream(QUESTION, temperature=0.0, thinking=False):
            if isinstance(event, ToolCall):
                event.reply("27 C")
            elif isinstance(event, Text):
                said.append(event.text)
            ends += isinstance(event, TurnEnd)
        self.assertIn("27 C", "".join(said))
        self.assertEqual(ends, 1)

    def test_tool_errors(self):
        self.fails("GLM_EFORMAT", self.session.tools, "[{")
        e = self.fails("GLM_ESCHEMA", self.session.tools, [{"type": "function", "function": {"name": 3}}])
        self.assertIn("/0", e.where)
        self.session.tools([])

    def test_options(self):
        self.fails("GLM_EINVAL", self.session.turn, top_p=2.0)
        self.fails("GLM_EINVAL", self.session.turn, temperature=float("nan"))
        self.fails("GLM_EINVAL", self.session.turn, top_k=-1)
        self.fails("GLM_EINVAL", self.session.turn, max_tokens=2**32)
        self.fails("GLM_EINVAL", self.session.step, -1.0)
        self.fails("GLM_EINVAL", self.session.step, float("nan"))
        self.fails("GLM_ESTATE", self.session.step)
        self.session.turn()

    def test_context(self):
        with self.model.session(n_ctx=64) as small:
            small.say("word " * 100)
            self.fails("GLM_ECONTEXT", small.step)
        self.fails("GLM_EINVAL", self.model.session, kv_type="int3")

    def test_leaving_a_stream(self):
        for event in self.session.stream("What is 12 + 30?", temperature=0.0):
            if isinstance(event, Reasoning):
                break
        self.session.say("Hello!")  # no turn is under way
        for event in self.session.stream(temperature=0.0, thinking=False):
            if isinstance(event, Text):
                break
        self.fails("GLM_ESTATE", self.session.step)  # what was said of the answer stays
        with self.assertRaises(KeyboardInterrupt):
            for event in self.session.stream("And 1 + 1?"):
                raise KeyboardInterrupt
        again = self.session.chat("What is 12 + 30?", thinking=False, temperature=0.0)
        self.assertEqual(again.end.reason, "stop")

    def test_leaving_an_old_stream(self):
        old = self.session.stream("Hello!", temperature=0.0)
        next(old)
        new = self.session.stream(temperature=0.0)
        first = next(new)
        old.close()
        events = [first, *new]
        self.assertEqual(events[-1].reason, "stop")

    def test_cancel_from_another_thread(self):
        self.session.turn(max_tokens=2000, temperature=5.0, top_p=1.0, top_k=0)
        started = threading.Event()

        def cancel():
            started.wait(60)
            self.session.cancel()
        thread = threading.Thread(target=cancel)
        thread.start()
        events = []
        for event in self.session.stream("Hello!"):
            events.append(event)
            started.set()
        thread.join()
        self.assertEqual(events[-1].reason, "cancelled")
        self.assertLess(events[-1].n_think + events[-1].n_answer, 2000)
        self.assertTrue(self.session.chat("Hello!", temperature=0.0, thinking=False, top_k=1).text)

    def test_cancel_before_feed_is_computed(self):
        self.session.feed([1, 2, 3])
        self.session.cancel()
        self.assertIsInstance(self.session.step(), TurnEnd)
        self.session.compute([1, 2, 3])
        self.session.feed([4])
        self.assertIsInstance(self.session.step(), Ready)

    def busy_session(self):
        """A session that another thread steps for a long while, and that thread."""
        session = self.model.session()
        session.feed([i % 1000 for i in range(4000)])
        thread = threading.Thread(target=self.step_to_the_end, args=(session,))
        thread.start()
        return session, thread

    def step_to_the_end(self, session):
        try:
            while not isinstance(session.step(), (Ready, TurnEnd)):
                pass
        except GlmError as e:
            self.assertEqual(e.code, _ffi.EINVAL)  # closed meanwhile

    def test_busy(self):
        session, thread = self.busy_session()
        codes = set()
        end = time.monotonic() + 20
        while "GLM_EBUSY" not in codes and thread.is_alive() and time.monotonic() < end:
            try:
                session.stats
            except GlmError as e:
                codes.add(e.name)
        session.cancel()
        thread.join()
        session.close()
        self.assertEqual(codes, {"GLM_EBUSY"})

    def test_close_while_another_thread_steps(self):
        session, thread = self.busy_session()
        time.sleep(0.05)
        session.close()
        thread.join(60)
        self.assertFalse(thread.is_alive())
        self.fails("GLM_EINVAL", session.step)

    def test_many_threads(self):
        want = self.session.chat("What is 12 + 30?", temperature=0.0)
        got = []

        def talk():
            with self.model.session() as session:
                got.append(session.chat("What is 12 + 30?", temperature=0.0))
        threads = [threading.Thread(target=talk) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([(a.text, a.reasoning) for a in got], [(want.text, want.reasoning)] * 3)

    @unittest.skipUnless(hasattr(os, "fork"), "no fork")
    def test_fork(self):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                self.session.say("Hello!")
            except GlmError as e:
                code = 0 if e.name == "GLM_EFORK" else 2
            self.session.close()
            os._exit(code)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertTrue(self.session.chat("Hello!", max_tokens=5, thinking=False).text)


if __name__ == "__main__":
    unittest.main()
