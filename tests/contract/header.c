/*
 * Checks include/net/if_tun.h: its numbers when this is compiled, its calls when it is run.
 *
 * usage: header DIR, where DIR is the directory tun of a mount.
 * Prints the check that fails and exits with 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <net/if_tun.h>

_Static_assert(TUNMRU == 16384, "TUNMRU");
_Static_assert(TUNMTU == 1500, "TUNMTU");

_Static_assert(sizeof(struct tuninfo) == 8, "struct tuninfo");
_Static_assert(offsetof(struct tuninfo, baudrate) == 0, "baudrate");
_Static_assert(offsetof(struct tuninfo, mtu) == 4, "mtu");
_Static_assert(offsetof(struct tuninfo, type) == 6, "type");
_Static_assert(offsetof(struct tuninfo, dummy) == 7, "dummy");
_Static_assert((unsigned char)-1 == 255 && (__typeof__(((struct tuninfo *)0)->mtu))-1 == 65535, "unsigned");

/* The numbers of the contract, with the two upper direction bits swapped. */
_Static_assert(TUNGDEBUG == 0x80047459, "TUNGDEBUG");
_Static_assert(TUNSDEBUG == 0x4004745a, "TUNSDEBUG");
_Static_assert(TUNSIFINFO == 0x4008745b, "TUNSIFINFO");
_Static_assert(TUNGIFINFO == 0x8008745c, "TUNGIFINFO");
_Static_assert(TUNSLMODE == 0x4004745d, "TUNSLMODE");
_Static_assert(TUNSIFMODE == 0x4004745e, "TUNSIFMODE");
_Static_assert(TUNSIFPID == 0x0000745f, "TUNSIFPID");
_Static_assert(TUNSIFHEAD == 0x40047460, "TUNSIFHEAD");
_Static_assert(TUNGIFHEAD == 0x80047461, "TUNGIFHEAD");
_Static_assert(TUNGIFNAME == 0x80207462, "TUNGIFNAME");
_Static_assert(TUNSTRANSIENT == 0x40047462, "TUNSTRANSIENT");
_Static_assert(TUNGTRANSIENT == 0x80047463, "TUNGTRANSIENT");
_Static_assert(TUNSBATCH == 0x40047482, "TUNSBATCH");
_Static_assert(TUNGBATCH == 0x80047483, "TUNGBATCH");
_Static_assert(TUNSHUT == 0x00007484, "TUNSHUT");
_Static_assert(TUNSBYPASS == 0x40107485, "TUNSBYPASS");
_Static_assert(TUN_FIOGETOWN == 0x8004667b, "TUN_FIOGETOWN");
_Static_assert(TUN_FIOSETOWN == 0x4004667c, "TUN_FIOSETOWN");
_Static_assert(TUN_FIOASYNC == 0x4004667d, "TUN_FIOASYNC");
_Static_assert(TUN_FIONBIO == 0x4004667e, "TUN_FIONBIO");
_Static_assert(TUN_FIONREAD == 0x8004667f, "TUN_FIONREAD");
_Static_assert(TUN_TIOCSPGRP == 0x40047476, "TUN_TIOCSPGRP");
_Static_assert(TUN_TIOCGPGRP == 0x80047477, "TUN_TIOCGPGRP");

_Static_assert(TUN_IFF_BROADCAST == 0x2, "TUN_IFF_BROADCAST");
_Static_assert(TUN_IFF_POINTOPOINT == 0x10, "TUN_IFF_POINTOPOINT");
_Static_assert(TUN_IFF_MULTICAST == 0x8000, "TUN_IFF_MULTICAST");
_Static_assert(TUN_AF_INET == 2, "TUN_AF_INET");
_Static_assert(TUN_AF_INET6 == 10, "TUN_AF_INET6");
_Static_assert(sizeof(struct tun_sockaddr_in) == 16, "struct tun_sockaddr_in");
_Static_assert(offsetof(struct tun_sockaddr_in, sin_family) == 1, "sin_family");
_Static_assert(offsetof(struct tun_sockaddr_in, sin_addr) == 4, "sin_addr");

#define CHECK(condition)                                                        \
	do {                                                                    \
		if (!(condition)) {                                             \
			printf("line %d: %s (%s)\n", __LINE__, #condition,      \
			    strerror(errno));                                   \
			return 1;                                               \
		}                                                               \
	} while (0)

int
main(int argc, char **argv)
{
	char path[4096], name[32];
	struct tuninfo info;
	int fd, value;

	CHECK(argc == 2);
	snprintf(path, sizeof(path), "%s/clone", argv[1]);
	fd = open(path, O_RDWR | O_NONBLOCK);
	CHECK(fd >= 0);

	memset(name, 'x', sizeof(name));
	CHECK(tun_ioctl(fd, TUNGIFNAME, name) == 0);
	CHECK(memchr(name, '\0', 16) != NULL && strncmp(name, "tun", 3) == 0);

	CHECK(tun_ioctl(fd, TUNGIFINFO, &info) == 0);
	CHECK(info.mtu == TUNMTU && info.type == 0x17 && info.baudrate == 0);
	info.mtu = 1400;
	CHECK(tun_ioctl(fd, TUNSIFINFO, &info) == 0);
	info.mtu = 71;
	CHECK(tun_ioctl(fd, TUNSIFINFO, &info) == -1 && errno == EINVAL);
	CHECK(tun_ioctl(fd, TUNGIFINFO, &info) == 0 && info.mtu == 1400);

	value = TUN_IFF_BROADCAST | TUN_IFF_MULTICAST;
	CHECK(tun_ioctl(fd, TUNSIFMODE, &value) == 0);
	value = 0;
	CHECK(tun_ioctl(fd, TUNSIFMODE, &value) == -1 && errno == EINVAL);

	value = 1;
	CHECK(tun_ioctl(fd, TUNSIFHEAD, &value) == 0);
	value = 77;
	CHECK(tun_ioctl(fd, TUNGIFHEAD, &value) == 0 && value == 1);

	value = 1;
	CHECK(tun_ioctl(fd, TUNSBATCH, &value) == 0);
	value = 77;
	CHECK(tun_ioctl(fd, TUNGBATCH, &value) == 0 && value == 1);

	value = getpid();
	CHECK(tun_ioctl(fd, TUN_FIOSETOWN, &value) == 0);
	value = 0;
	CHECK(tun_ioctl(fd, TUN_FIOGETOWN, &value) == 0 && value == getpid());
	CHECK(tun_ioctl(fd, TUN_TIOCGPGRP, &value) == 0 && value == -getpid());

	value = 77;
	CHECK(tun_ioctl(fd, TUN_FIONREAD, &value) == 0 && value == 0);
	value = 1;
	CHECK(tun_ioctl(fd, TUN_FIONBIO, &value) == 0);
	CHECK(tun_ioctl(fd, TUNSTRANSIENT, &value) == 0);
	value = 77;
	CHECK(tun_ioctl(fd, TUNGTRANSIENT, &value) == 0 && value == 1);
	CHECK(tun_ioctl(fd, TUNSIFPID, NULL) == 0);

	CHECK(read(fd, name, sizeof(name)) == -1 && errno == EAGAIN);
	CHECK(tun_ioctl(fd, _TUN_IOW('t', 200, 4), &value) == -1 && errno == ENOTTY);
	CHECK(tun_ioctl(fd, TUNSHUT, NULL) == 0);
	CHECK(read(fd, name, sizeof(name)) == -1 && errno == EHOSTDOWN);
	CHECK(close(fd) == 0);
	return 0;
}
