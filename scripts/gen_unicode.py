#!/usr/bin/env python3
"""Writes the pre-tokenizer's character classes as a C table.

    python3 scripts/gen_unicode.py tests/data/charclass_oracle.json lib/text/tok_unicode.c

The input has inclusive code point ranges of \\p{L} ("L"), \\p{N} ("N") and \\s ("S") as measured on the reference
regex engine. The output is a two-stage table: 128 code points a block, two bits a code point, equal blocks shared.
"""
import json
import sys
from pathlib import Path

BLOCK = 128
N_CODE_POINT = 0x110000
CLASSES = {"L": 1, "N": 2, "S": 3}

HEAD = """\
/* tok_unicode.c: the classes of all code points (Unicode 16.0), made by scripts/gen_unicode.py; do
 * not edit. A block holds {block} code points, two bits each, the first in the low bits.
 */
#include "tok_int.h"

"""


def classes(ranges: dict) -> bytearray:
    """One class a code point."""
    out = bytearray(N_CODE_POINT)
    for name, value in CLASSES.items():
        for first, last in ranges[name]:
            for code_point in range(first, last + 1):
                if out[code_point]:
                    sys.exit(f"U+{code_point:04X} has two classes")
                out[code_point] = value
    return out


def pack(block: bytes) -> bytes:
    """Four code points a byte."""
    return bytes(block[i] | block[i + 1] << 2 | block[i + 2] << 4 | block[i + 3] << 6 for i in range(0, BLOCK, 4))


def c_array(declaration: str, values: list) -> str:
    lines, line = [], "   "
    for value in values:
        if len(line) + len(f" {value},") > 100:
            lines.append(line)
            line = "   "
        line += f" {value},"
    return "\n".join([f"{declaration} = {{", *lines, line, "};", ""])


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source = json.loads(Path(sys.argv[1]).read_text())
    table = classes(source)
    blocks: dict = {}
    index = [blocks.setdefault(pack(table[i:i + BLOCK]), len(blocks)) for i in range(0, N_CODE_POINT, BLOCK)]
    if len(blocks) > 256:
        sys.exit("more than 256 different blocks: widen the index")
    head = HEAD.format(block=BLOCK)
    text = head + c_array(f"const uint8_t tok_class_index[{len(index)}]", index) + "\n"
    text += c_array(f"const uint8_t tok_class_block[{len(blocks) * BLOCK // 4}]", list(b"".join(blocks)))
    Path(sys.argv[2]).write_text(text)


if __name__ == "__main__":
    main()
