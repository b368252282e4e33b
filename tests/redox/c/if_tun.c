/*
 * The C header through relibc. Returns the line of the first check that failed, 0 for none.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <net/if_tun.h>

#define CHECK(what) do { if (!(what)) { line = __LINE__; goto out; } } while (0)

int
if_tun_test(const char *path, const char *name, int *error)
{
	struct tuninfo info = { .baudrate = 9600, .mtu = 1400, .type = 0x17 };
	struct tuninfo got;
	char ifreq[32];
	int line = 0, value, fd;

	*error = errno = 0;
	fd = open(path, O_RDWR);
	CHECK(fd >= 0);

	CHECK(tun_ioctl(fd, TUNGIFNAME, ifreq) == 0);
	CHECK(strcmp(ifreq, name) == 0);
	CHECK(tun_ioctl(fd, TUNSIFINFO, &info) == 0);
	memset(&got, 0xff, sizeof(got));
	CHECK(tun_ioctl(fd, TUNGIFINFO, &got) == 0);
	CHECK(got.baudrate == 9600 && got.mtu == 1400 && got.type == 0x17);

	info.mtu = 71;
	CHECK(tun_ioctl(fd, TUNSIFINFO, &info) == -1 && errno == EINVAL);
	errno = 0;

	value = 1;
	CHECK(tun_ioctl(fd, TUNSIFHEAD, &value) == 0);
	value = -1;
	CHECK(tun_ioctl(fd, TUNGIFHEAD, &value) == 0 && value == 1);
	value = 1;
	CHECK(tun_ioctl(fd, TUNSLMODE, &value) == 0);
	CHECK(tun_ioctl(fd, TUNGIFHEAD, &value) == 0 && value == 0);
	CHECK(tun_ioctl(fd, TUNSLMODE, &value) == 0);

	value = TUN_IFF_BROADCAST | TUN_IFF_MULTICAST;
	CHECK(tun_ioctl(fd, TUNSIFMODE, &value) == 0);
	value = TUN_IFF_BROADCAST | TUN_IFF_POINTOPOINT;
	CHECK(tun_ioctl(fd, TUNSIFMODE, &value) == -1 && errno == EINVAL);
	errno = 0;

	CHECK(tun_ioctl(fd, TUNSIFPID, NULL) == 0);
	value = getpid();
	CHECK(tun_ioctl(fd, TUN_FIOSETOWN, &value) == 0);
	value = 0;
	CHECK(tun_ioctl(fd, TUN_TIOCGPGRP, &value) == 0 && value == -getpid());
	CHECK(tun_ioctl(fd, TUN_FIONREAD, &value) == 0 && value == 0);
	CHECK(tun_ioctl(fd, TUN_FIONBIO, &value) == 0);
	value = 1;
	CHECK(tun_ioctl(fd, TUNSTRANSIENT, &value) == 0);
	value = 0;
	CHECK(tun_ioctl(fd, TUNGTRANSIENT, &value) == 0 && value == 1);
	CHECK(tun_ioctl(fd, TUNSBATCH, &value) == 0);
	CHECK(tun_ioctl(fd, TUNGBATCH, &value) == 0 && value == 1);
	CHECK(tun_ioctl(fd, _TUN_IOR('t', 200, 4), &value) == -1 && errno == ENOTTY);
	errno = 0;

	CHECK(tun_ioctl(fd, TUNSHUT, NULL) == 0);
	CHECK(tun_ioctl(fd, TUNGIFHEAD, &value) == -1 && errno == EHOSTDOWN);
	errno = 0;
out:
	*error = errno;
	if (fd >= 0)
		close(fd);
	return line;
}
