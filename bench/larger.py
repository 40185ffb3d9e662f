#!/usr/bin/env python3
"""Decoding with a model larger than the memory: mapped, and with a cache of experts. Usage: larger.py GLM45 FILE [options]

Each repeat runs `glm45 bench` once in each way, in turns, each from a cold page cache, and each in the same memory: either
under a command that limits it (--under "systemd-run --scope -q -p MemoryMax=2600M"), or beside a balloon, a process that
holds locked memory so that only --memory MB are left (needs root, or a memlock limit that large; it gives way when the rest
of the machine runs short). Prints medians, and the ratio of the repeats as pairs.
"""
import argparse
import ctypes
import fcntl
import json
import mmap
import os
import shlex
import subprocess
import sys
import time

MB = 1 << 20
CHUNK = 64 * MB


def available():
    """Memory in bytes that programs could still get, page cache included."""
    with open('/proc/meminfo') as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith('MemAvailable'))


class Balloon:
    """Locked memory in a child process. The first to go if the machine runs out of memory all the same."""

    def __init__(self, leave):
        self.child = subprocess.Popen([sys.executable, __file__, 'balloon', str(leave)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
        if not self.child.stdout.readline():
            sys.exit('larger.py: no memory can be locked here: be root, raise the limit (ulimit -l), or use --under')

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.child.stdin.close()
        self.child.wait()


def be_balloon(leave):
    libc = ctypes.CDLL(None, use_errno=True)
    with open('/proc/self/oom_score_adj', 'w') as f:
        f.write('1000')
    held = []
    while available() > leave + CHUNK:
        piece = mmap.mmap(-1, CHUNK)
        at = ctypes.addressof(ctypes.c_char.from_buffer(piece))
        if libc.mlock(ctypes.c_void_p(at), ctypes.c_size_t(CHUNK)):
            sys.exit(1)
        held.append((piece, at))
    print(len(held) * CHUNK // MB, flush=True)
    os.set_blocking(0, False)
    while sys.stdin.buffer.raw.read(1) is None:
        if available() < 256 * MB and held:
            libc.munmap(ctypes.c_void_p(held.pop()[1]), ctypes.c_size_t(CHUNK))
        time.sleep(0.05)
    os._exit(0)  # what is mapped goes with the process


def forget(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def run(a, cache):
    cache, _, program = cache.partition('@')
    args = shlex.split(a.under or '') + [program or a.glm45, 'bench', a.file, '--prompt', str(a.prompt), '--context', str(a.context),
            '--gen', str(a.gen), '--repeat', str(a.steps), '--no-bandwidth', '--json']
    if a.threads:
        args += ['--threads', str(a.threads)]
    if cache != 'mapped':
        args += ['--expert-cache', cache]
    forget(a.file)
    out = json.loads(subprocess.run(args, check=True, stdout=subprocess.PIPE).stdout)
    forget(a.file)
    d = out['decode'][0]
    x = d['experts']
    n_token = a.gen * a.steps
    return {'rate': d['tokens_per_s'], 'disk': d['disk_bytes_per_token'] / 1e6, 'wait': x['wait_ns'] / 1e6 / n_token,
            'hit': 100 * x['hit'] / max(1, x['hit'] + x['miss']), 'foreseen': x['foreseen'] / n_token,
            'used': 100 * x['foreseen_used'] / max(1, x['foreseen']), 'prefill': out['prefill']['tokens_per_s']}


def median(values):
    v = sorted(values)
    return (v[(len(v) - 1) // 2] + v[len(v) // 2]) / 2


def put(a, results):
    print(f'## {os.path.basename(a.file)}, {os.path.getsize(a.file) / 1e9:.2f} GB in {a.memory} MB, '
          f'medians of {len(results)}\n')
    print('| | decode tokens/s | against mapped | disk MB/token | experts there | waited ms/token | prefill tokens/s |')
    print('|---|---|---|---|---|---|---|')
    for name in results[0]:
        m = {k: median([r[name][k] for r in results]) for k in results[0][name]}
        ratios = sorted(r[name]['rate'] / r['mapped']['rate'] for r in results)
        cached = name != 'mapped'
        print(f"| {name if not cached else 'cache of ' + name} | {m['rate']:.2f} | "
              + (f'{median(ratios):.2f} ({ratios[0]:.2f} - {ratios[-1]:.2f})' if cached else '1')
              + f" | {m['disk']:.1f} | " + (f"{m['hit']:.1f} % | {m['wait']:.1f}" if cached else '- | -')
              + f" | {m['prefill']:.1f} |")
    sys.stdout.flush()


def main():
    if sys.argv[1:2] == ['balloon']:
        be_balloon(int(sys.argv[2]))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('glm45')
    p.add_argument('file')
    p.add_argument('--cache', default='1200M', help='bytes of the cache of experts; several: 1G,2G; of another build: 1G@GLM45')
    p.add_argument('--memory', type=int, default=2600, help='MB left by the balloon')
    p.add_argument('--under', help='a command that limits the memory of another one, in place of the balloon')
    p.add_argument('--lock', help='a file to lock while a repeat runs, for machines with several who measure')
    p.add_argument('--repeat', type=int, default=5)
    p.add_argument('--prompt', type=int, default=8)
    p.add_argument('--context', type=int, default=16)
    p.add_argument('--gen', type=int, default=24)
    p.add_argument('--steps', type=int, default=1, help='decode blocks of --gen tokens in a run, of which the median counts')
    p.add_argument('--threads', type=int)
    a = p.parse_args()
    ways = ['mapped'] + a.cache.split(',')
    results = []
    for i in range(a.repeat):
        order = ways if i % 2 == 0 else ways[::-1]
        lock = open(a.lock, 'w') if a.lock else None
        if lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        forget(a.file)
        if a.under:
            got = {w: run(a, w) for w in order}
        else:
            with Balloon(a.memory * MB):
                got = {w: run(a, w) for w in order}
        if lock:
            lock.close()
            time.sleep(1)  # others wait for it, too
        results.append({w: got[w] for w in ways})
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    put(a, results)


if __name__ == '__main__':
    main()
