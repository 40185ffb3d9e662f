"""Writes doubles.txt: numbers as spelled, the bits of the nearest double, and how Python prints it.

Every power of two and its neighbours, random bit patterns, and spellings exactly between two doubles and a hair beside.
"""
import decimal
import math
import random
import struct

random.seed(45)
decimal.getcontext().prec = 1200


def from_bits(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def spellings():
    for e in range(-1074, 1024, 3):
        power = math.ldexp(1.0, e)
        yield from map(repr, (power, math.nextafter(power, 0), math.nextafter(power, math.inf)))
    for _ in range(600):
        value = from_bits(random.getrandbits(64))
        if math.isfinite(value):
            yield repr(value)
    for _ in range(200):
        yield repr(from_bits(random.getrandbits(52) >> random.randrange(52)))
        yield str(random.getrandbits(random.randrange(1, 80)))
        yield f"{random.uniform(-1000, 1000):.{random.randrange(8)}f}"
    for e in range(-330, 312, 7):
        yield f"1e{e}"
        yield f"-9.5E{e:+}"
        yield f"{random.getrandbits(60)}e{e}"
    for _ in range(40):
        bits = random.choice((random.getrandbits(62), random.getrandbits(52) >> random.randrange(40)))
        middle = (decimal.Decimal(from_bits(bits)) + decimal.Decimal(from_bits(bits + 1))) / 2
        digits, exponent = f"{middle:e}".split("e")
        yield f"{digits}e{exponent}"
        yield f"{digits}{'' if '.' in digits else '.'}{'0' * random.randrange(300)}1e{exponent}"
        yield f"{middle * (1 - decimal.Decimal(10) ** -random.randrange(20, 60)):e}"
    yield from "0 -0 0.0 -0.0 0e999 -0E-999 1e999 -1e999 1e-999 5e-324 2.47e-324 2.4703282292062328e-324".split()
    yield from "1.7976931348623157e308 1.7976931348623158e308 1.7976931348623159e308 1e16 1e15 1e-4 1e-5".split()
    yield "1" + "0" * 400 + "e-400"
    yield "0." + "0" * 400 + "1e400"
    yield "1e99999999999999999999999999"
    yield "1e-99999999999999999999999999"


with open("doubles.txt", "w", encoding="ascii") as out:
    for text in spellings():
        value = float(text)
        bits = struct.unpack("<Q", struct.pack("<d", value))[0]
        shown = repr(value).replace("inf", "Infinity")
        print(text, f"{bits:016x}", shown, file=out)
