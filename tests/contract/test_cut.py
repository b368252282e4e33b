"""What the kernel makes of one call: questions of its own."""

import array
import errno
import fcntl
import os

from case import Contract

FS_IOC_GETFLAGS = 0x80086601


class Kernel(Contract):
    """What the kernel does to a file without being asked by read or write."""

    def test_attributes(self):
        """lsattr(1) on an open tun: there are no such attributes; and tun/clone makes no unit."""
        file = self.open()
        units = self.tree.interfaces()
        for path in (file, self.tree.path("bpf", self.name)):
            opened = path if path == file else self.keep(os.open(path, os.O_RDONLY))
            self.fails(errno.ENOTTY, fcntl.ioctl, opened, FS_IOC_GETFLAGS, array.array("i", [0]))
        self.assertEqual(self.tree.interfaces(), units)

    def test_links(self):
        """Links cannot be made."""
        new = self.tree.path("netcfg", "new")
        self.fails(errno.EPERM, os.symlink, "there", new)
        self.fails(errno.EPERM, os.link, self.tree.path("netcfg", "route", "list"), new)

    def test_statistics(self):
        """statvfs says what names and blocks are like, and that nothing is stored."""
        found = os.statvfs(self.tree.root)
        self.assertEqual((found.f_bsize, found.f_frsize, found.f_namemax), (4096, 4096, 255))
        self.assertEqual((found.f_blocks, found.f_bfree), (0, 0))
