"""Makes a failing case small: a schema and a value, while a test of them goes on failing."""


def smaller(value):
    """Values that are a step smaller: a part alone, a part left out, a part made smaller, a plainer leaf."""
    if isinstance(value, dict):
        yield from value.values()
        for name in value:
            yield {n: v for n, v in value.items() if n != name}
        for name, part in value.items():
            for less in smaller(part):
                yield {**value, name: less}
    elif isinstance(value, list):
        yield from value
        for i in range(len(value)):
            yield value[:i] + value[i + 1:]
        for i, part in enumerate(value):
            for less in smaller(part):
                yield value[:i] + [less] + value[i + 1:]
    elif isinstance(value, str):
        if len(value) > 1:
            yield value[:len(value) // 2]
            yield value[1:]
            yield value[:-1]
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and value not in (0, 1):
        yield 0
        yield 1
        if value != int(value) or abs(value) > 1 << 62:
            return
        yield int(value) // 2


def shrink(schema, value, fails, steps=3000):
    """The smallest pair found; fails(schema, value) says whether a pair still shows the failure."""
    while steps > 0:
        for is_schema, less in [*((True, s) for s in smaller(schema)), *((False, v) for v in smaller(value))]:
            steps -= 1
            if steps <= 0:
                break
            if is_schema and not isinstance(less, (dict, bool)):
                continue
            pair = (less, value) if is_schema else (schema, less)
            if fails(*pair):
                schema, value = pair
                break
        else:
            break
    return schema, value
