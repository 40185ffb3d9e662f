"""Compares libglm45 with llama.cpp and ik_llama.cpp on one GGUF file: same threads, same tokens, same batch sizes. Engines
stay open and take turns, command by command, so that each repeat sees the same machine in the same minute. What is printed
are medians, and ratios of paired repeats. See README.md.
"""
import argparse
import datetime
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
D_MODEL_TOUCH = 128  # experts of the shape, for the expected number that a batch touches


class Engine:
    def __init__(self, name, command, log):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline().split(None, 2)
        if not line or line[0] != "ready":
            raise SystemExit(f"{name}: did not start: {' '.join(line)}; see the log")
        self.load_s, self.info = float(line[1]), line[2].strip() if len(line) > 2 else ""

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer or answer.startswith("error"):
            raise SystemExit(f"{self.name}: {line}: {answer.strip() or 'died'}; see the log")
        return answer

    def seconds(self, line):
        return float(self.ask(line))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def interval(values):
    """Bounds of a 95 % bootstrap interval of the median."""
    rng = random.Random(1)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(1000))
    return medians[25], medians[974]


class Table:
    """Rates of one measurement by engine, repeat by repeat, and the limit of each repeat."""

    def __init__(self, title, limit_name):
        self.title, self.limit_name = title, limit_name
        self.rates, self.limits = {}, []

    def add(self, engine, rate):
        self.rates.setdefault(engine, []).append(rate)

    def rows(self):
        ours = self.rates["ours"]
        rivals = {e: statistics.median(r) for e, r in self.rates.items() if e != "ours"}
        share = statistics.median(o / l for o, l in zip(ours, self.limits)) if self.limits else None
        out = {"measurement": self.title, "ours": statistics.median(ours), "repeats": len(ours)}
        out |= {e: m for e, m in rivals.items()}
        if share is not None:
            out |= {"limit": statistics.median(self.limits), "limit_of": self.limit_name, "share_of_limit": share}
        if rivals:
            best = max(rivals, key=rivals.get)
            ratios = [o / r for o, r in zip(ours, self.rates[best])]
            low, high = interval(ratios)
            out |= {"against": best, "ratio": statistics.median(ratios), "ratio_low": low, "ratio_high": high}
        return out


def measure(args, engines):
    ours = engines[0]
    dense, experts, kv, macs = map(int, ours.ask("bytes").split())
    order = lambda: random.sample(engines, len(engines))
    tables = []

    def token_bytes(ctx):
        return dense + experts + kv * 2 * ctx

    def table(title, limit_name, line, n_tok, limit):
        t = Table(title, limit_name)
        for e in engines:  # brings pages in, opens contexts
            e.seconds(line(0))
        for r in range(args.repeat):
            t.limits.append(limit())
            for e in order():
                t.add(e.name, n_tok / e.seconds(line(r + 1)))
        tables.append(t.rows())
        print(json.dumps(tables[-1]), file=sys.stderr, flush=True)

    for n in args.prefill:
        table(f"prefill {n}", "int8 multiply-adds", lambda s: f"prefill {n} {s + 1}", n,
              lambda: ours.seconds("dots") / macs)
    for ctx in args.context:
        for e in engines:
            e.seconds(f"fill {ctx} 5")
        table(f"decode at {ctx}", "plain read", lambda s: f"decode {args.gen} {s + 77}", args.gen,
              lambda: ours.seconds("read") / token_bytes(ctx + args.gen / 2))
    if args.batch > 1:
        used = 1 - (1 - 8 / D_MODEL_TOUCH) ** args.batch
        bytes_pass = dense + experts / 8 * D_MODEL_TOUCH * used + args.batch * kv * 2 * 128
        table(f"decode, {args.batch} at once", "plain read", lambda s: f"batch {args.batch} 128 {args.gen} {s + 7}",
              args.gen * args.batch, lambda: ours.seconds("read") / bytes_pass * args.batch)
    return tables


def first_token(args):
    """Seconds from a new process to the first token behind 16 of a prompt; the files are in the page cache by now."""
    runs = []
    for _ in range(args.repeat):
        done = subprocess.run([args.ours, args.model, str(args.threads), "first-token-after-16"], check=True,
                              capture_output=True, text=True)
        runs.append(tuple(map(float, done.stdout.split()[:2])))
    return statistics.median(r[0] for r in runs), statistics.median(r[1] for r in runs)


def memory(args):
    """Bytes beside mapped weights and the cache of keys and values, with room for the longest context and passes of 512 rows;
    and 2 % of the weights + 200 MB, which they should stay within."""
    how = f"first-token-after-512-of-{max(args.context, default=512) + args.gen}"
    done = subprocess.run([args.ours, args.model, str(args.threads), how], check=True, capture_output=True, text=True)
    private, kv = map(int, done.stdout.split()[2:])
    return private - kv, 0.02 * os.path.getsize(args.model) + 200e6


def machine():
    names = [l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")]
    family = [l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith(("cpu family", "model\t"))][:2]
    return f"{names[0]} (family {' model '.join(family)}), {len(names)} cores"


def draws(args):
    """Share of a decode step that drawing its token under a JSON schema takes."""
    done = subprocess.run([args.ours, args.model, str(args.threads), "constrained-32"], check=True, capture_output=True, text=True)
    passes, drawn = map(float, done.stdout.split())
    return drawn / (passes + drawn)


def show(args, engines, tables, opened, first, beside, drawn):
    names = [e.name for e in engines[1:]]
    print(f"\n### {pathlib.Path(args.model).name}, {args.threads} threads, {args.cpu}, "
          f"{datetime.date.today()}, load {os.getloadavg()[0]:.1f}\n")
    print(f"{machine()}; medians of {args.repeat}\n")
    print("| tokens/s | ours | " + "".join(f"{n} | " for n in names) + "limit | share of it | against the better |")
    print("|---|---|" + "---|" * len(names) + "---|---|---|")
    for t in tables:
        ratio = f"{t['ratio']:.2f} ({t['ratio_low']:.2f} - {t['ratio_high']:.2f})" if "ratio" in t else "-"
        print(f"| {t['measurement']} | {t['ours']:.1f} | " + "".join(f"{t[n]:.1f} | " for n in names) +
              f"{t['limit']:.1f} ({t['limit_of']}) | {t['share_of_limit']:.2f} | {ratio} |")
    print(f"\nOpen: ours {opened:.3f} s, first token behind 16 after {first:.3f} s from nothing; " +
          ", ".join(f"{e.name} {e.load_s:.1f} s to load" for e in engines[1:]))
    print(f"\nMemory beside weights, keys and values: {beside[0] / 1e6:.0f} MB (2 % of the weights + 200 MB: "
          f"{beside[1] / 1e6:.0f} MB)\nDrawing a token under a JSON schema: {100 * drawn:.2f} % of a decode step")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("model")
    p.add_argument("--ours", required=True, help="the built bench-ours")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--cpu", default="avx512", help="instruction sets that ours may use: avx512, avx2")
    p.add_argument("--rivals", default="llama,ik", help="of llama, ik, ik-rtr; each needs --python")
    p.add_argument("--python", action="append", default=[], metavar="RIVAL=PYTHON",
                   help="an interpreter that has the rival's package")
    p.add_argument("--prefill", type=lambda s: [int(x) for x in s.split(",") if x], default=[512, 4096])
    p.add_argument("--context", type=lambda s: [int(x) for x in s.split(",") if x], default=[128, 8192])
    p.add_argument("--gen", type=int, default=16)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--log", default=os.devnull)
    p.add_argument("--json")
    args = p.parse_args()
    pythons = dict(x.split("=", 1) for x in args.python)
    log = open(args.log, "a")
    engines = [Engine("ours", [args.ours, args.model, str(args.threads), args.cpu], log)]
    for name in filter(None, args.rivals.split(",")):
        python = pythons.get(name, pythons.get(name.split("-")[0], sys.executable))
        engines.append(Engine(name, [python, str(HERE / "rival.py"), name, args.model, str(args.threads)], log))
        print(f"{name}: loaded in {engines[-1].load_s:.1f} s; {engines[-1].info}", file=sys.stderr)
    tables = measure(args, engines)
    for e in engines:
        e.close()
    opened, first = first_token(args)
    beside = memory(args)
    drawn = draws(args)
    show(args, engines, tables, opened, first, beside, drawn)
    if args.json:
        with open(args.json, "a") as f:
            f.write(json.dumps({"model": args.model, "cpu": args.cpu, "machine": machine(), "tables": tables,
                                "open_s": opened, "first_token_s": first, "beside_bytes": beside[0],
                                "draw_share": drawn}) + "\n")


main()
