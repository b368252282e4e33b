"""The C header: its numbers, and its calls on a mount."""

import os
import subprocess
import tempfile

from case import Contract, needs

HERE = os.path.dirname(os.path.abspath(__file__))
INCLUDE = os.path.join(HERE, "..", "..", "include")


@needs("cc")
class Header(Contract):
    """include/net/if_tun.h, by header.c."""

    def compiled(self, where, *options):
        """Compiles header.c and returns the program; warnings are errors."""
        program = os.path.join(where, "header")
        command = ["cc", "-Wall", "-Wextra", "-Werror", *options, "-I", INCLUDE]
        command += ["-o", program, os.path.join(HERE, "header.c")]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(found.returncode, 0, found.stderr)
        return program

    def test_program(self):
        """The numbers are those of the contract, and tun_ioctl does what the table says."""
        with tempfile.TemporaryDirectory() as where:
            program = self.compiled(where, "-std=gnu11")
            found = subprocess.run([program, self.tree.path("tun")], capture_output=True, text=True, check=False)
            self.assertEqual(found.returncode, 0, found.stdout + found.stderr)

    def test_strict(self):
        """The header is good C of 1989, 1999 and 2011 by the book as well."""
        with tempfile.TemporaryDirectory() as where:
            source = os.path.join(where, "only.c")
            with open(source, "w", encoding="ascii") as file:
                file.write("#include <net/if_tun.h>\nint main(void) { return 0; }\n")
            for standard in ("c89", "c99", "c11"):
                command = ["cc", f"-std={standard}", "-pedantic", "-Wall", "-Werror", "-I", INCLUDE]
                found = subprocess.run(
                    [*command, "-fsyntax-only", source], capture_output=True, text=True, check=False
                )
                self.assertEqual(found.returncode, 0, found.stderr)
