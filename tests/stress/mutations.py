"""Seeded damage to bytes, to text, and to structured values."""

import copy
import json
import math
import random
from typing import Any

Tree = Any

# What programs trip over. Texts lead out of folders, obey a terminal, are no UTF-8 or of another kind than they look.
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7,
        31,
        255,
        2**31,
        -(2**31) - 1,
        2**53 + 1,
        2**63,
        -(2**63) - 1,
        2**64,
        10**30,
        10**400,
    ),
    *(0.0, -0.0, 0.5, -0.5, 1.5, 1e-320, 1e30, 1e308, -1e308, math.nan, math.inf, -math.inf),
    *("", " ", "a", "1", "nan", "true", "null", "~", ".", "..", "/", "../../up.png", "/etc/passwd", "C:\\up", "..\\up"),
    *("~nobody-of-this-name/x", "a\nb", "a\tb", "\x1b[31m", "a\0b", "\ud800", "\U0001f600", "$a$", "%s%n", "x" * 5000),
    *("mish", "2001-01-01", "cuda:9", "no-such-file", "*", "{}", "!!python/object:os.system x", "__proto__"),
    *([], {}, [[]], {"": {}}, [1, 2], [0, 0, 5, 5], [[1, 2, 3, 4, 5, 6]], ["a", 1, None], {"name": "mish"}, {"id": 1}),
)
TOKENS = (
    *(
        "null",
        "true",
        "-1",
        "0",
        "1e999",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "9" * 30,
        "9" * 5000,
        '""',
        "[]",
        "{}",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        "'",
        "\\",
        "\n",
        "\t",
        "#",
        "&a",
        "*a",
        "<<",
        "!!int",
        "!!binary",
        "- ",
        "? ",
        "---",
    ),
    *(
        "\\u0000",
        "\\ud800",
        "\\uDFFF\\ud800",
        "\\UFFFFFFFF",
        "\0",
        "\ufeff",
        "0x",
        "0b_",
        "1_0",
        "1:30",
        "2001-99-99",
        "é",
    ),
    *("[" * 40, "[" * 3000, '{"a":' * 40, '{"a":' * 3000, "!!float x", "!!bool x", "!!timestamp x"),
)


def mutate_bytes(data: bytes, rng: random.Random, *, most: int = 4) -> bytes:
    """One to ``most`` mutations: flipped bits, changed bytes, parts removed, duplicated or moved, or truncation."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, most)):
        if not damaged:
            return rng.randbytes(rng.randint(0, 40))
        place, length = rng.randrange(len(damaged)), min(rng.choice((1, 2, 4, 8, 64, 500)), len(damaged))
        kind = rng.randrange(8)
        if kind == 0:
            damaged[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            damaged[place] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind == 2:
            del damaged[place : place + length]
        elif kind == 3:
            damaged[place:place] = damaged[place : place + length]
        elif kind == 4:
            damaged[place:place] = rng.randbytes(length)
        elif kind == 5:
            damaged[place : place + length] = bytes([rng.choice((0, 255))]) * length
        elif kind == 6 and rng.random() < 0.5:
            del damaged[place:]
        else:
            other = rng.randrange(len(damaged))
            damaged[place : place + length] = damaged[other : other + length]
    return bytes(damaged)


def mutate_text(text: str, rng: random.Random) -> bytes:
    """Damage to text: tokens inserted, replaced or duplicated, lines and parts moved; or to its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(text.encode(), rng)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(text) + 1)
        length = rng.choice((0, 0, 1, 2, 5, 20))
        if rng.random() < 0.8:
            text = text[:place] + rng.choice(TOKENS) + text[place + length :]
        else:
            start = rng.randrange(len(text) + 1)
            text = text[:place] + text[start : start + rng.choice((5, 20, 80))] + text[place:]
    return text.encode("utf-8", "surrogatepass")


def mutate_tree(tree: Tree, rng: random.Random, *, values: tuple[Any, ...] = VALUES) -> Tree:
    """Damage to a structure: values of other types, keys removed, renamed or added, items duplicated or moved."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return copy.deepcopy(rng.choice(values))
        holder, key = rng.choice(places)
        _damage(holder, key, rng, values, places)
    return tree


def _places(tree: Tree) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            found.append((holder, key))
            waiting.append(holder[key])
    return found


def _damage(holder: Any, key: Any, rng: random.Random, values: tuple[Any, ...], places: list) -> None:
    value, kind = holder[key], rng.randrange(12)
    if kind <= 4:
        holder[key] = copy.deepcopy(rng.choice(values))
    elif kind == 5:
        del holder[key]
    elif kind == 6 and isinstance(value, int | float):
        as_float = float(value) if abs(value) < 1e300 else value  # an integer may be larger than any float
        holder[key] = rng.choice((-value, value * 1000, value + 1, str(value), as_float, [value]))
    elif kind == 6:
        holder[key] = [value]
    elif kind == 7:
        other, there = rng.choice(places)
        if there in other if isinstance(other, dict) else there < len(other):
            holder[key] = copy.deepcopy(other[there])
    elif kind == 8 and isinstance(holder, list):
        holder[key:key] = [copy.deepcopy(value)] * rng.choice((1, 2, 50))
    elif kind == 8:
        holder[str(key)[:-1] + rng.choice("xe.")] = holder.pop(key)
    elif kind == 9:
        for _ in range(rng.choice((2, 40, 200))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        holder[key] = value
    elif kind == 10 and isinstance(value, str):
        holder[key] = mutate_bytes(value.encode("utf-8", "surrogatepass"), rng).decode("utf-8", "replace")
    elif isinstance(holder, dict):
        holder[rng.choice(("name", "id", "extra", "", "a" * 300, "\ud800"))] = copy.deepcopy(rng.choice(values))
    else:
        rng.shuffle(holder)


def as_json(tree: Tree) -> str:
    """A structure as JSON with NaN and Infinity; only brackets if it is too deep for the encoder."""
    try:
        return json.dumps(tree)
    except RecursionError:
        return "[" * 5000
    except ValueError:  # an integer with more digits than Python prints
        return "9" * 5000


def as_yaml(tree: Tree) -> str:
    """A structure in YAML flow style: JSON with other words for NaN and infinity."""
    return as_json(tree).replace("NaN", ".nan").replace("-Infinity", "-.inf").replace("Infinity", ".inf")
