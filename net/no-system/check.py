"""Nothing that needs a system may be linked into the module given as argument.

A WebAssembly module can reach a system only through an import, so it must have none. What the
standard library has no way to do there it does not import: it panics, or fails with an error, and
says so. None of these texts may be among its data.
"""

import sys

IMPORTS, DATA = 2, 11
TEXTS = [
    "not implemented on this platform",  # Instant::now, SystemTime::now
    "not supported on this platform",  # files, sockets, processes, threads
    "failed to spawn thread",
    "failed to generate random data",
    "can't sleep",
    "cannot recursively acquire mutex",
    "condvar wait not supported",
    "no pids on this platform",
]


def number(module, at):
    """An unsigned LEB128 number, and where it ends."""
    value = shift = 0
    while True:
        byte = module[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def sections(module):
    """Every section by its number. Custom sections, which are for debuggers, share the number 0."""
    assert module[:8] == b"\0asm\1\0\0\0", "not a WebAssembly module"
    found, at = {}, 8
    while at < len(module):
        kind = module[at]
        size, at = number(module, at + 1)
        found[kind] = module[at : at + size]
        at += size
    return found


def main():
    with open(sys.argv[1], "rb") as file:
        found = sections(file.read())
    data = found[DATA]
    wrong = [f"its data says {text!r}" for text in TEXTS if text.encode() in data]
    if IMPORTS in found:
        wrong.append("it imports: " + repr(found[IMPORTS][:200]))
    # The check itself: this text of ours is there, so texts can be found.
    if b"drop." not in data:
        wrong.append("its data is not where this looks for it")
    for line in wrong:
        print(f"{sys.argv[1]}: {line}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


main()
