"""A tool for the chat: reads {"expression": "12 * 34"} and prints the result of one operation on two numbers."""
import json
import re
import sys

expression = str(json.load(sys.stdin)["expression"])
match = re.fullmatch(r"\s*(-?\d+)\s*([-+*/])\s*(-?\d+)\s*", expression)
if not match:
    print("error: not an expression of the form 12 * 34")
else:
    a, op, b = int(match[1]), match[2], int(match[3])
    if op == "/":
        print("error: division by zero" if b == 0 else f"{a / b:.4f}".rstrip("0").rstrip("."))
    else:
        print({"+": a + b, "-": a - b, "*": a * b}[op])
