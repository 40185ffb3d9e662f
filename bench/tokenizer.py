#!/usr/bin/env python3
"""Encoding speed against the `tokenizers` library: the same texts, one thread, run in turn, CPU time.

Usage: python bench/tokenizer.py libglm45.so TOKENIZER.JSON [--rounds N]   (needs `pip install tokenizers`)

Texts: English from the comments and documents of this repository, its source code, Chinese, other scripts and emoji from
sentences below in random order, words that are not repeated, and all of them mixed. Each goes in as one text and as pieces
of 800 characters. Each round times both sides, in an order that changes; the table has the medians and the median of the
rounds' ratios. CPU time, because machines are shared and both sides use one thread. The ids must be equal.
"""
import argparse
import ctypes
import os
import pathlib
import random
import re
import statistics
import sys
import time

os.environ['RAYON_NUM_THREADS'] = '1'
os.environ['TOKENIZERS_PARALLELISM'] = 'false'
import tokenizers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHINESE = ['今天的天气非常好，我们一起去公园散步吧。', '人工智能正在改变世界，也改变着我们的生活方式。', '请问，去火车站怎么走？\n',
           '中华人民共和国成立于1949年10月1日。']
OTHER = ['Съешь же ещё этих мягких французских булок. ', 'いろはにほへと ちりぬるを ', '다람쥐 헌 쳇바퀴에 타고파 ',
         'الحمد لله رب العالمين ', 'Falsches Üben von Xylophonmusik quält jeden größeren Zwerg. ', 'ยินดีต้อนรับ ']
EMOJI = ['😀😂🤣', '👨‍👩‍👧‍👦 ', '🇳🇴🇨🇳 ', '✈️→🏝️ ', '🎉🎉🎉\n']


def texts(size, seed=1):
    """Kind of text to a list of pieces that make about size bytes."""
    rng = random.Random(seed)
    sources = [p.read_text(encoding='utf-8') for pattern in ('lib/*/*.[ch]', 'kernels/*/*.c', 'tools/*.c', 'tests/*/*.py')
               for p in sorted(ROOT.glob(pattern))]
    english = [re.sub(r'\n *\*? *', ' ', m) for s in sources for m in re.findall(r'/\*(.*?)\*/', s, re.S)]
    english += [p.read_text(encoding='utf-8') for pattern in ('*.md', 'docs/*.md', 'models/*/*.md') for p in sorted(ROOT.glob(pattern))]

    def fill(pool):
        out, n = [], 0
        while n < size:
            piece = rng.choice(pool)
            out.append(piece)
            n += len(piece.encode())
        return out
    kinds = {'English': fill(english), 'source code': fill([s[i:i + 2000] for s in sources for i in range(0, len(s), 2000)]),
             'Chinese': fill(CHINESE), 'other scripts': fill(OTHER), 'emoji': fill(EMOJI)}
    # words that no piece repeats: nothing but merging
    kinds['random words'] = [''.join(rng.choice('etaoinshrdlucmfw') for _ in range(rng.randint(2, 14))) + ' '
                             for _ in range(size // 9)]
    mixed = [piece for k in ('English', 'source code', 'Chinese', 'other scripts', 'emoji') for piece in kinds[k]]
    rng.shuffle(mixed)
    return {'mixed': mixed} | kinds


class Ours:
    def __init__(self, library, tokenizer):
        self.lib = ctypes.CDLL(library)
        self.lib.glm_model_open.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        self.lib.glm_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p,
                                          ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
        options = (ctypes.c_uint32 * 26)(104, 2)  # glm_model_options: its size, GLM_WEIGHTS_NONE, defaults
        self.model = ctypes.c_void_p()
        status = self.lib.glm_model_open(str(tokenizer).encode(), options, ctypes.byref(self.model), None)
        if status:
            sys.exit(f'{tokenizer}: status {status}')

    def encode(self, raw, ids):
        n = ctypes.c_size_t()
        status = self.lib.glm_tokenize(self.model, raw, len(raw), 1, ids, len(ids), ctypes.byref(n), None)
        if status:
            sys.exit(f'status {status}')
        return n.value


def seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(ours, theirs, pieces, rounds, batch):
    """Seconds of both and their ratio, medians; one text, or texts of about 1,000 bytes each by its own call."""
    whole = ''.join(pieces)
    some = [whole] if not batch else [whole[i:i + 800] for i in range(0, len(whole), 800)]
    raw = [t.encode() for t in some]
    ids = (ctypes.c_int32 * (max(map(len, raw)) + 8))()
    for text, bytes_ in zip(some[:50], raw[:50]):  # the same answer
        n = ours.encode(bytes_, ids)
        if list(ids[:n]) != theirs.encode(text, add_special_tokens=False).ids:
            sys.exit('the ids differ')

    def run_ours():
        for bytes_ in raw:
            ours.encode(bytes_, ids)

    def run_theirs():
        for text in some:
            theirs.encode(text, add_special_tokens=False)
    a, b = [], []
    for i in range(rounds):
        for side in ((run_ours, a), (run_theirs, b)) if i % 2 else ((run_theirs, b), (run_ours, a)):
            side[1].append(seconds(side[0]))
    size = sum(map(len, raw)) / 1e6
    return size / statistics.median(a), size / statistics.median(b), statistics.median(y / x for x, y in zip(a, b))


def main():
    p = argparse.ArgumentParser()
    p.add_argument('library')
    p.add_argument('tokenizer')
    p.add_argument('--rounds', type=int, default=7)
    p.add_argument('--size', type=int, default=1_000_000, help='bytes of each kind')
    args = p.parse_args()
    ours, theirs = Ours(args.library, args.tokenizer), tokenizers.Tokenizer.from_file(args.tokenizer)
    print(f'tokenizers {tokenizers.__version__}, medians of {args.rounds} rounds\n')
    print('| text | glm45 MB/s | tokenizers MB/s | ratio |\n|---|---|---|---|')
    for kind, pieces in texts(args.size).items():
        for batch in (False, True):
            x, y, ratio = measure(ours, theirs, pieces, args.rounds, batch)
            print(f'| {kind}, {"pieces of 800 characters" if batch else "one text"} | {x:.1f} | {y:.2f} | {ratio:.1f} |', flush=True)


if __name__ == '__main__':
    main()
