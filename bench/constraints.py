#!/usr/bin/env python3
"""Runs MaskBench through `glm45 constrain` and the package llguidance, schema by schema in turns, and prints both side
by side. MaskBench is a file of lines {"id", "schema", "tests": [{"valid", "data"}]}.

Per schema: compile; per test, json.dumps(data, ensure_ascii=False) is tokenized and walked: the mask of the vocabulary
is computed, the token must be in it, the next one follows; after the last token the end must be allowed. A valid
instance must be walked to the end, an invalid one must be refused somewhere. A schema that is refused when it is
compiled does not pass, but is no error; an instance that comes out wrong is. Each schema is compiled and walked
--repeat times, and each step's shortest time counts: a busy machine stretches some at random. Status 1: an invalid
instance was accepted, or the program died or hung.
"""
import argparse
import ctypes
import json
import math
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "constrain"))
from command import CommandFailed, Constrain, spelled  # noqa: E402

N_VOCAB = 151552
EOS = 151329  # <|endoftext|>


class Result:
    """What an engine made of one schema. Times in microseconds; masks and accepted have an entry a text."""

    def __init__(self, error=None, compile_us=0.0, accepted=(), masks=()):
        self.error, self.compile_us, self.accepted, self.masks = error, compile_us, list(accepted), list(masks)

    def verdict(self, tests):
        """(what came out, the numbers of the tests that came out wrong)."""
        if self.error is not None:
            return "refused", []
        wrong = [i for i, (test, got) in enumerate(zip(tests, self.accepted)) if test["valid"] != got]
        if not wrong:
            return "pass", []
        return ("invalid accepted" if any(not tests[i]["valid"] for i in wrong) else "valid refused"), wrong


class Ours:
    name = "glm45"

    def __init__(self, glm45, model, limit_s):
        self.command = Constrain(glm45, model, limit_s)
        self.command.ask({"type": "null"}, ["null"])  # the vocabulary's trie is built by the first schema

    def run(self, schema, texts):
        try:
            answer = self.command.ask(schema, texts)
        except CommandFailed as e:
            return Result(f"FAILED: {e}")
        if answer["error"] is not None:
            error = answer["error"]
            return Result(f"{error['pointer'] or '(root)'}: {error['message']}", answer["compile_us"])
        return Result(None, answer["compile_us"], answer["accepted"], answer["mask_us"])

    def close(self):
        self.command.close()


class Rival:
    """llguidance in this process, on one thread; its own buffers are ready before a clock starts."""
    name = "llguidance"

    def __init__(self, tokenizer):
        import llguidance
        self.matcher = llguidance.LLMatcher
        self.tokenizer = llguidance.LLTokenizer(str(tokenizer), n_vocab=N_VOCAB, eos_token=EOS)
        n_word = (N_VOCAB + 31) // 32
        self.mask = (ctypes.c_uint32 * n_word)()
        self.where, self.size = ctypes.addressof(self.mask), n_word * 4
        self.version = llguidance.get_version()
        self.run({"type": "null"}, ["null"])

    def walk(self, first, text):
        ids = self.tokenizer.tokenize_str(text)
        matcher, times = first.deep_copy(), []
        for token in ids + [EOS]:
            begin = time.perf_counter_ns()
            matcher.unsafe_compute_mask_ptr(self.where, self.size)
            times.append((time.perf_counter_ns() - begin) / 1e3)
            if matcher.is_error() or not self.mask[token >> 5] >> (token & 31) & 1:
                return False, times
            if token != EOS and not matcher.consume_token(token):
                return False, times
        return True, times

    def run(self, schema, texts):
        text = json.dumps(schema)
        begin = time.perf_counter_ns()
        try:
            first = self.matcher(self.tokenizer, self.matcher.grammar_from_json_schema(text), log_level=0)
            error = first.get_error() if first.is_error() else None
        except ValueError as e:
            error = str(e)
        compile_us = (time.perf_counter_ns() - begin) / 1e3
        if error:
            return Result(error.strip().splitlines()[0][:200], compile_us)
        walks = [self.walk(first, text) for text in texts]
        return Result(None, compile_us, [w[0] for w in walks], [w[1] for w in walks])

    def close(self):
        pass


class Tally:
    """An engine's results over all schemas."""
    KINDS = ["pass", "refused", "invalid accepted", "valid refused"]

    def __init__(self, name):
        self.name, self.counts = name, dict.fromkeys(self.KINDS, 0)
        self.n_failed = 0
        self.masks, self.compiles, self.firsts, self.slowest = [], [], [], (0.0, "")
        self.wrong, self.refused = [], []

    def add(self, entry, result):
        kind, wrong = result.verdict(entry["tests"])
        self.counts[kind] += 1
        if kind == "refused":
            self.refused.append((entry["id"], result.error))
            if result.error.startswith("FAILED"):
                self.n_failed += 1
            return kind
        if wrong:
            self.wrong.append((entry["id"], kind, wrong, [entry["tests"][i]["data"] for i in wrong]))
        for times in result.masks:
            self.masks.extend(times)
            if times and max(times) > self.slowest[0]:
                self.slowest = (max(times), entry["id"])
        self.compiles.append(result.compile_us)
        if result.masks and result.masks[0]:
            self.firsts.append((result.compile_us + result.masks[0][0], entry["id"]))
        return kind


def quantile(values, share):
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else float("nan")


def mean(values):
    return sum(values) / len(values) if values else float("nan")


def table(tallies, n_schema):
    """The rows of the comparison: label and a cell an engine."""
    rows = [("schemas", [str(n_schema)] * len(tallies))]
    for label, kind in [("schemas that pass", "pass"), ("refused at compile", "refused"),
                        ("accepts an invalid instance", "invalid accepted"),
                        ("refuses a valid instance", "valid refused")]:
        rows.append((label, [str(t.counts[kind]) for t in tallies]))
    rows.append(("died or hung (of the refused)", [str(t.n_failed) for t in tallies]))
    rows.append(("masks computed", [str(len(t.masks)) for t in tallies]))
    for what, pick, shares in [
            ("mask", lambda t: t.masks, [("median", .5), ("p90", .9), ("p99", .99), ("p99.9", .999), ("worst", 1)]),
            ("compile", lambda t: t.compiles, [("median", .5), ("p90", .9), ("p99", .99), ("worst", 1)]),
            ("compile + first mask", lambda t: [us for us, _ in t.firsts],
             [("median", .5), ("p90", .9), ("p99", .99), ("worst", 1)])]:
        rows.append((f"{what}, us: mean", [f"{mean(pick(t)):.1f}" for t in tallies]))
        for label, share in shares:
            rows.append((f"{what}, us: {label}", [f"{quantile(pick(t), share):.1f}" for t in tallies]))
    rows.append(("masks, sum of seconds", [f"{sum(t.masks) / 1e6:.2f}" for t in tallies]))
    return rows


def common(tallies):
    """Compile + first mask and mean mask over the schemas that both engines compile: the same work on both sides."""
    shared = set.intersection(*({name for _, name in t.firsts} for t in tallies))
    return len(shared), [[us for us, name in t.firsts if name in shared] for t in tallies]


def show(tallies, n_schema, details):
    width = max(len(label) for label, _ in table(tallies, n_schema)) + 2
    print(f"\n{'':{width}}" + "".join(f"{t.name:>14}" for t in tallies))
    for label, cells in table(tallies, n_schema):
        print(f"{label:{width}}" + "".join(f"{cell:>14}" for cell in cells))
    if len(tallies) > 1:
        n, firsts = common(tallies)
        print(f"\nover the {n} schemas that both compile:")
        for label, of in [("compile + first mask, us: mean", mean),
                          ("compile + first mask, us: median", lambda v: quantile(v, .5)),
                          ("compile + first mask, us: p90", lambda v: quantile(v, .9)),
                          ("compile + first mask, us: p99", lambda v: quantile(v, .99))]:
            print(f"{label:{width}}" + "".join(f"{of(us):>14.1f}" for us in firsts))
    for t in tallies:
        print(f"\nslowest mask of {t.name}: {t.slowest[0]:.0f} us in {t.slowest[1] or 'none'}; slowest to begin: "
              + ", ".join(f"{name} {us:.0f}" for us, name in sorted(t.firsts, reverse=True)[:5]))
        print(f"wrong with {t.name}: {len(t.wrong)}")
        for name, kind, numbers, data in t.wrong:
            print(f"  {name}: {kind}, tests {numbers}")
            if details:
                for number, value in zip(numbers, data):
                    print(f"    {number}: {spelled(value)[:400]}")
        if details:
            print(f"refused by {t.name}: {len(t.refused)}")
            for name, error in t.refused:
                print(f"  {name}: {error}")


def chosen(arguments):
    """The entries of the file that the command line asks for."""
    entries = [json.loads(line) for line in open(arguments.maskbench, encoding="utf-8") if line.strip()]
    if arguments.id:
        entries = [e for e in entries if e["id"] in arguments.id]
    if arguments.range:
        first, _, last = arguments.range.partition(":")
        entries = entries[int(first or 0):int(last) if last else None]
    if arguments.sample and arguments.sample < len(entries):
        entries = random.Random(arguments.seed).sample(entries, arguments.sample)
    if not entries:
        sys.exit("no schema of the file is chosen: see --id, --range and --sample")
    return entries


def progress(done, of, tallies, last):
    """A line on the terminal, or one every ten seconds in a log."""
    now = time.monotonic()
    if now - last < (0.5 if sys.stderr.isatty() else 10) and done < of:
        return last
    text = f"{done}/{of}  " + "  ".join(
        f"{t.name}: {t.counts['pass']} pass, {t.counts['refused']} refused, {len(t.wrong)} wrong" for t in tallies)
    end = "\n" if done == of or not sys.stderr.isatty() else ""
    print(("\r" if sys.stderr.isatty() else "") + text, end=end, file=sys.stderr, flush=True)
    return now


def least(results):
    """The repeats of one schema as one: each step's shortest time, which is what it takes when nothing else runs."""
    first = results[0]
    if any(r.error != first.error or r.accepted != first.accepted for r in results):
        return Result("FAILED: another answer when asked again")
    masks = [[min(times) for times in zip(*walks)] for walks in zip(*(r.masks for r in results))]
    return Result(first.error, min(r.compile_us for r in results), first.accepted, masks)


def run(entries, engines, repeat):
    """Every entry through every engine, in turns, each repeat compiled anew; which engine begins changes."""
    tallies = [Tally(engine.name) for engine in engines]
    last = 0.0
    for i, entry in enumerate(entries):
        texts = [spelled(test["data"]) for test in entry["tests"]]
        results = [[] for _ in engines]
        for turn in range(repeat * len(engines)):
            which = (turn + i) % len(engines)
            results[which].append(engines[which].run(entry["schema"], texts))
        for tally, made in zip(tallies, results):
            tally.add(entry, least(made))
        last = progress(i + 1, len(entries), tallies, last)
    return tallies


def one(entry, engines):
    """Everything about one schema, for looking into it."""
    print(json.dumps(entry["schema"], indent=1, ensure_ascii=False)[:20000])
    texts = [spelled(test["data"]) for test in entry["tests"]]
    for engine in engines:
        result = engine.run(entry["schema"], texts)
        print(f"\n{engine.name}: {result.error or 'compiled'} in {result.compile_us:.0f} us")
        for test, text, accepted, times in zip(entry["tests"], texts, result.accepted, result.masks):
            print(f"  {'ok   ' if accepted == test['valid'] else 'WRONG'} valid {test['valid']}, accepted {accepted}, "
                  f"{len(times)} masks, mean {mean(times):.1f} us, worst {max(times, default=0):.0f} us: {text[:400]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maskbench", help="the file of schemas and tests")
    parser.add_argument("--glm45", required=True, help="the program")
    parser.add_argument("--model", required=True, help="a tokenizer.json of the family's vocabulary")
    parser.add_argument("--only", choices=["glm45", "llguidance"], help="run one engine alone")
    parser.add_argument("--id", action="append", help="only this schema (may be said again)")
    parser.add_argument("--range", metavar="FIRST:END", help="only lines FIRST up to END, from 0")
    parser.add_argument("--sample", type=int, metavar="N", help="only N schemas, drawn by --seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="how often each is timed (3)")
    parser.add_argument("--details", action="store_true", help="show wrong instances and every refusal's reason")
    parser.add_argument("--show", action="store_true", help="print each chosen schema with all its tests instead")
    parser.add_argument("--limit", type=float, default=60, metavar="SECONDS", help="most time for a schema (60)")
    parser.add_argument("--json", metavar="FILE", help="write counts, wrong and refused schemas there too")
    arguments = parser.parse_args()
    entries = chosen(arguments)
    engines = []
    try:
        if arguments.only != "llguidance":
            engines.append(Ours(arguments.glm45, arguments.model, arguments.limit))
        if arguments.only != "glm45":
            engines.append(Rival(arguments.model))
            print(f"rival: {engines[-1].version}")
        if arguments.show:
            for entry in entries:
                one(entry, engines)
            return 0
        tallies = run(entries, engines, arguments.repeat)
    except CommandFailed as e:
        sys.exit(f"{arguments.glm45} constrain: {e}")
    finally:
        for engine in engines:
            engine.close()
    show(tallies, len(entries), arguments.details)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as out:
            json.dump({t.name: {"counts": t.counts, "wrong": [w[:3] for w in t.wrong], "refused": t.refused}
                       for t in tallies}, out, indent=1)
    ours = tallies[0]
    return 1 if ours.name == "glm45" and (ours.counts["invalid accepted"] or ours.n_failed) else 0


if __name__ == "__main__":
    sys.exit(main())
