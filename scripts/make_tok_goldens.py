#!/usr/bin/env python3
"""Makes tokenizer goldens with the reference library (pip install tokenizers): long pieces, and a vocabulary unlike
the family's own.

    python3 scripts/make_tok_goldens.py tokenizer.json OUT_FOLDER

tok_long.jsonl       texts with pieces up to 20,000 characters, as the whole tokenizer encodes them
tok_small.json       the first 3,000 ranks with their merges in random order, as "left right" strings that come before
                     the vocabulary, and without ignore_merges
tok_small_ids.jsonl  texts as that one encodes them

The test data are these files, compressed with zstd -19.
"""
import json
import random
import sys
from pathlib import Path

from tokenizers import Tokenizer

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz", "aeiotnsr", "a", "ab", "ABCabc", "的一是不了在人有我他这个们中来上大为和国地到以说",
    "".join(map(chr, range(0x4E00, 0x9FA5))), "0123456789", " \n\t\r", "   \n", "!?.,;:-=_", "=", "-", "/*#",
    "\U0001F468\u200D\U0001F469\u200D\U0001F467", "\u0301e", "абвгд", "ابتثج", "가나다라", "ー", "\u3000 ", "\u0301",
    "अआइक्", "\u200d", "\u017f'sS", "é", "\U0001D49C\U0001D4B7", "\x00\x01", "'re've'LL'\u017f ", "+-*/=<>(){}[];",
]
SIZES = [5, 60, 70, 300, 2047, 2048, 2049, 2500, 5000]


def text(rng: random.Random, kind: int) -> str:
    if kind == 0:
        return "".join(rng.choices(rng.choice(ALPHABETS), k=rng.choice(SIZES)))
    if kind == 1:
        runs = ("".join(rng.choices(rng.choice(ALPHABETS), k=rng.randint(1, 12))) for _ in range(rng.randint(1, 100)))
        return "".join(runs)
    if kind == 2:
        return "".join(rng.choices("abcdefghij", k=rng.randint(1, 7))) * rng.randint(100, 2800)
    planes = [(0x20, 0x3000), (0x20, 0xD800), (0xE000, 0x110000)]
    return "".join(chr(rng.randrange(*rng.choice(planes))) for _ in range(rng.randint(1, 300)))


def goldens(tokenizer: Tokenizer, seed: int, n: int) -> str:
    rng = random.Random(seed)
    texts = [text(rng, i % 4) for i in range(n)]
    rows = ({"text": t, "ids": tokenizer.encode(t, add_special_tokens=False).ids} for t in texts)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def small(real: dict) -> dict:
    model = real["model"]
    vocab = {t: i for t, i in model["vocab"].items() if i < 3000}
    merges = [" ".join(m) for m in model["merges"] if m[0] in vocab and m[1] in vocab and m[0] + m[1] in vocab]
    random.Random(7).shuffle(merges)
    added = [{**t, "id": 3000 + i} for i, t in enumerate(real["added_tokens"])]
    settings = {key: value for key, value in model.items() if key not in ("merges", "vocab")}
    model = {**settings, "ignore_merges": False, "merges": merges, "vocab": vocab}
    return {"model": model, **{**real, "added_tokens": added, "model": model}}


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    out = Path(sys.argv[2])
    (out / "tok_long.jsonl").write_text(goldens(Tokenizer.from_file(sys.argv[1]), 1, 160))
    cut = json.dumps(small(json.loads(Path(sys.argv[1]).read_text())), ensure_ascii=False)
    (out / "tok_small.json").write_text(cut)
    (out / "tok_small_ids.jsonl").write_text(goldens(Tokenizer.from_str(cut), 2, 160))


if __name__ == "__main__":
    main()
