"""YAML that does not mean well; `path` in a name is where the config lies."""

from __future__ import annotations

import random


def hostile(good: str) -> dict[str, bytes]:
    """Name to text."""
    aliases = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40))
    merges = "m0: &m0 {a: 1}\n" + "".join(
        f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 40)
    )
    mapping = "MODEL: &m\n  FCOS:\n    <<: *m\n"
    bodies = {
        "aliases": aliases + good,
        "aliases as the value": aliases + "MODEL:\n  FCOS:\n    NUM_CLASSES: *a39\n    FPN_STRIDES: *a39\n",
        "merge keys": merges + good,
        "merges itself": mapping,
        "an alias of itself": "MODEL: &m\n  FCOS: *m\n",
        "flow brackets": "a: " + "[" * 100_000,
        "flow braces": "a: " + "{a: " * 50_000,
        "indentation": "".join(" " * i + "a:\n" for i in range(1400)),
        "sequence of sequences": "- " * 20_000 + "a\n",
        "huge integer": good + "\nX: " + "9" * 900_000,
        "huge sexagesimal": good + "\nX: " + "1:" + "59:" * 200_000 + "59",
        "huge exponent": good + "\nX: 1.0e+999999999",
        "huge octal": good + "\nX: 0o" + "7" * 900_000 + "\nY: 0" + "7" * 90_000,
        "binary": good + "\nX: !!binary " + "A" * 900_000,
        "spelled tuple": "MODEL: {FCOS: {FPN_STRIDES: '" + "(" * 9000 + "'}}",
        "spelled power": "MODEL: {FCOS: {FPN_STRIDES: '[9**9**9]', NUM_CLASSES: '(1,' }}",
        "long spelled": "MODEL: {FCOS: {FPN_STRIDES: '[" + "-" * 9000 + "1]'}}",
        "python tag": good + "\nX: !!python/object/apply:os.system ['touch outside.txt']",
        "python name": "!!python/name:os.system",
        "odd tags": "!!map [1]",
        "omap": good + "\nX: !!omap [a, b]\nY: !!set {a}\nZ: !!pairs [1]",
        "timestamps": good + "\nX: 9999-99-99\nY: 2001-02-30T25:61:61Z",
        "other tag": good + "\nX: !foo bar",
        "unhashable key": good + "\n? [a, b]\n: c\n? {a: b}\n: c",
        "keys of all kinds": "1: 2\nnull: 3\n2001-01-01: 4\n1.5: 5\ntrue: 6\n" + good,
        "no mapping": "[1, 2]",
        "two documents": good + "\n---\n" + good,
        "utf-16": good.encode("utf-16").decode("latin-1"),
        "nul": good + "\0",
        "control characters": "a\x1b[31m: \x07\n",
        "directives": "%YAML 9.9\n%TAG ! tag:x,2000:\n--- !a b\n",
        "a thousand anchors": "".join(f"a{i}: &x {i}\n" for i in range(20_000)) + good,
        "base of itself": "_BASE_: config.yaml\n" + good,
        "base of nothing": "_BASE_: missing.yaml\n",
        "base outside": "_BASE_: ../outside.bin\n",
        "base of a device": "_BASE_: /dev/zero\n",
        "base of a folder": "_BASE_: /\n",
        "base of a list": "_BASE_: [a]\n",
        "base of an address": "_BASE_: https://example.org/a.yaml\n",
        "base of a user": "_BASE_: ~nobody-of-that-name/a.yaml\n",
        "base with a nul": '_BASE_: "a\\0b"\n',
        "base of a long name": f"_BASE_: {'a' * 5000}\n",
    }
    return {f"yaml: {name}": body.encode("latin-1", "replace") for name, body in bodies.items()}


VALUES = (
    "0", "-1", "1", "2", "3", "1e999", ".nan", ".inf", "9223372036854775808", "1000000000", "[]", "{}", "null", "true",
    "''", "abc", "[0, 0, 0]", "[1000000]", "[8, 16]", "'(8, 16, 32, 64, 128)'", "[8, 16, 32, 64, 128, 256, 512, 1024]",
    "65536", "4096", "0.5", "[a, b]", "[[8]]", "'none'", "'GN'", "*x", "&x [*x]", "!!python/tuple [1]", "99999",
)  # fmt: skip


def altered(good: str, rng: random.Random) -> bytes:
    """One to three values of a good config replaced, or lines dropped or moved."""
    lines = good.splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        key, colon, _ = lines[at].partition(":")
        kind = rng.random()
        if colon and kind < 0.75:
            lines[at] = f"{key}: {rng.choice(VALUES)}"
        elif kind < 0.85:
            del lines[at]
        elif kind < 0.95:
            lines.insert(rng.randrange(len(lines)), lines[at])
        else:
            lines[at] = " " * rng.randrange(6) + lines[at].strip()
    return "\n".join(lines).encode()
