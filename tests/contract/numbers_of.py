"""The request numbers of the contract, in the encodings of BSD and of Linux."""

NONE, READ, WRITE = 0, 1, 2
VOID_BSD, OUT_BSD, IN_BSD = 0x20000000, 0x40000000, 0x80000000
OUT_LINUX, IN_LINUX = 0x80000000, 0x40000000

# name: (type, number, size of the argument, who fills it)
REQUESTS = {
    "TUNGDEBUG": ("t", 89, 4, READ),
    "TUNSDEBUG": ("t", 90, 4, WRITE),
    "TUNSIFINFO": ("t", 91, 8, WRITE),
    "TUNGIFINFO": ("t", 92, 8, READ),
    "TUNSLMODE": ("t", 93, 4, WRITE),
    "TUNGIFNAME_FREEBSD": ("t", 93, 32, READ),
    "TUNSIFMODE": ("t", 94, 4, WRITE),
    "TUNSIFPID": ("t", 95, 0, NONE),
    "TUNSIFHEAD": ("t", 96, 4, WRITE),
    "TUNGIFHEAD": ("t", 97, 4, READ),
    "TUNGIFNAME": ("t", 98, 32, READ),
    "TUNSTRANSIENT": ("t", 98, 4, WRITE),
    "TUNGTRANSIENT": ("t", 99, 4, READ),
    "TUNSBATCH": ("t", 130, 4, WRITE),
    "TUNGBATCH": ("t", 131, 4, READ),
    "TUNSHUT": ("t", 132, 0, NONE),
    "FIOGETOWN": ("f", 123, 4, READ),
    "FIOSETOWN": ("f", 124, 4, WRITE),
    "FIOASYNC": ("f", 125, 4, WRITE),
    "FIONBIO": ("f", 126, 4, WRITE),
    "FIONREAD": ("f", 127, 4, READ),
    "TIOCSPGRP": ("t", 118, 4, WRITE),
    "TIOCGPGRP": ("t", 119, 4, READ),
}


def triple(group, number, size):
    """Type, number and size in their places, without direction bits."""
    return size << 16 | ord(group) << 8 | number


def linux(name):
    """The number of a request as Linux and Redox's C library encode it."""
    group, number, size, way = REQUESTS[name]
    return triple(group, number, size) | (0, OUT_LINUX, IN_LINUX)[way]


def bsd(name):
    """The number of a request as BSD encodes it."""
    group, number, size, way = REQUESTS[name]
    return triple(group, number, size) | (VOID_BSD, OUT_BSD, IN_BSD)[way]


# Of udp and tcp: the name of an interface, with zeros behind it.
TUNSBYPASS = triple("t", 133, 16) | IN_LINUX
