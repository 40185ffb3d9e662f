#!/usr/bin/env python3
"""Cuts a GLM-4.5 tokenizer down to its first ranks.

    python3 make_tokenizer.py REAL_TOKENIZER.json OUT.json [N_RANKS]

The pipeline stays as it is. Kept are the vocabulary entries below N_RANKS, the merges whose two parts and result are
among them, and all added tokens, renumbered to follow. 2,012 ranks and 36 added tokens make 2,048; no rank below
3,000 holds two digits, so that every digit is a token of its own.
"""
import json
import sys
from pathlib import Path


def cut(real: dict, n_ranks: int) -> dict:
    """The cut tokenizer of the real one, both as parsed JSON."""
    model = real["model"]
    vocab = {t: i for t, i in model["vocab"].items() if i < n_ranks}
    merges = [m for m in model["merges"] if m[0] in vocab and m[1] in vocab and m[0] + m[1] in vocab]
    added = [{**t, "id": n_ranks + i} for i, t in enumerate(real["added_tokens"])]
    return {**real, "added_tokens": added, "model": {**model, "vocab": vocab, "merges": merges}}


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    n_ranks = int(sys.argv[3]) if len(sys.argv) > 3 else 2012
    out = cut(json.loads(Path(sys.argv[1]).read_text()), n_ranks)
    Path(sys.argv[2]).write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
    print(f"{len(out['model']['vocab'])} ranks, {len(out['model']['merges'])} merges, "
          f"{len(out['added_tokens'])} added tokens")


if __name__ == "__main__":
    main()
