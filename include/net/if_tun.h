/*
 * The tun device of tund, for C programs on Redox and on Linux.
 *
 * Open SCHEME/tun/N or SCHEME/tun/clone, where SCHEME is /scheme on Redox and the mount point of
 * tund on Linux. tun_ioctl() does what ioctl(2) does on Linux; on Redox, whose ioctl(2) knows only
 * terminals, it carries the request to the driver itself.
 *
 * The FIO* and TIOC* numbers of the C library differ from BSD's and never reach the driver whole,
 * so the ones to use begin with TUN_.
 */
#ifndef _NET_IF_TUN_H_
#define _NET_IF_TUN_H_

#include <stddef.h>
#include <stdint.h>
#ifdef __redox__
#include <errno.h>
#else
#include <sys/ioctl.h>
#endif

/* C89 has no inline, but its compilers have. */
#if defined(__cplusplus) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 199901L)
#define _TUN_INLINE static inline
#elif defined(__GNUC__)
#define _TUN_INLINE static __inline__
#else
#define _TUN_INLINE static
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Largest packet that can be written, without its header. */
#define TUNMRU 16384
/* The mtu of a new interface. */
#define TUNMTU 1500

struct tuninfo {
	int32_t baudrate;	/* line speed, bits a second */
	uint16_t mtu;		/* largest packet, at least 72 */
	uint8_t type;		/* interface type */
	uint8_t dummy;		/* not used */
};

/* Before every packet when TUNSLMODE is on: the next hop. */
struct tun_sockaddr_in {
	uint8_t sin_len;	/* 16 */
	uint8_t sin_family;	/* 2 */
	uint16_t sin_port;	/* 0 */
	uint8_t sin_addr[4];	/* in network order */
	uint8_t sin_zero[8];
};

/* The encoding of Linux and of Redox's C library. */
#define _TUN_IO(g, n)		((uint32_t)(((uint32_t)(g) << 8) | (n)))
#define _TUN_IOR(g, n, size)	(0x80000000u | ((uint32_t)(size) << 16) | _TUN_IO(g, n))
#define _TUN_IOW(g, n, size)	(0x40000000u | ((uint32_t)(size) << 16) | _TUN_IO(g, n))

#define TUNGDEBUG	_TUN_IOR('t', 89, 4)	/* driver-wide debug switch */
#define TUNSDEBUG	_TUN_IOW('t', 90, 4)
#define TUNSIFINFO	_TUN_IOW('t', 91, 8)	/* struct tuninfo */
#define TUNGIFINFO	_TUN_IOR('t', 92, 8)
#define TUNSLMODE	_TUN_IOW('t', 93, 4)	/* next hop before packets read */
#define TUNSIFMODE	_TUN_IOW('t', 94, 4)	/* TUN_IFF_POINTOPOINT or TUN_IFF_BROADCAST */
#define TUNSIFPID	_TUN_IO('t', 95)	/* the caller becomes the owner */
#define TUNSIFHEAD	_TUN_IOW('t', 96, 4)	/* family before packets, network order */
#define TUNGIFHEAD	_TUN_IOR('t', 97, 4)
#define TUNGIFNAME	_TUN_IOR('t', 98, 32)	/* name in the first 16 bytes */
#define TUNSTRANSIENT	_TUN_IOW('t', 98, 4)	/* destroy the interface at the last close */
#define TUNGTRANSIENT	_TUN_IOR('t', 99, 4)
#define TUNSBATCH	_TUN_IOW('t', 130, 4)	/* many packets in one read or write */
#define TUNGBATCH	_TUN_IOR('t', 131, 4)
#define TUNSHUT		_TUN_IO('t', 132)	/* end all waits, give the unit back */
#define TUNSBYPASS	_TUN_IOW('t', 133, 16)	/* of udp and tcp: nothing leaves by this interface */
#define TUN_FIOGETOWN	_TUN_IOR('f', 123, 4)	/* who gets SIGIO: process > 0, group < 0 */
#define TUN_FIOSETOWN	_TUN_IOW('f', 124, 4)
#define TUN_FIOASYNC	_TUN_IOW('f', 125, 4)	/* SIGIO for every packet */
#define TUN_FIONBIO	_TUN_IOW('f', 126, 4)	/* accepted; use F_SETFL */
#define TUN_FIONREAD	_TUN_IOR('f', 127, 4)	/* bytes of the first packet, 0 for none */
#define TUN_TIOCSPGRP	_TUN_IOW('t', 118, 4)	/* the owners, negated */
#define TUN_TIOCGPGRP	_TUN_IOR('t', 119, 4)

#define TUN_IFF_BROADCAST	0x2
#define TUN_IFF_POINTOPOINT	0x10
#define TUN_IFF_MULTICAST	0x8000

/* Families in the header of TUNSIFHEAD, as they are read. */
#define TUN_AF_INET	2
#define TUN_AF_INET6	10

#ifdef __redox__

/* relibc: a system call of the scheme protocol. Negative errors. */
extern size_t redox_sys_call_v0(size_t fd, void *payload, size_t payload_len, size_t flags,
    const uint64_t *metadata, size_t metadata_len);

_TUN_INLINE int
tun_ioctl(int fd, uint32_t request, void *arg)
{
	uint64_t metadata = request;
	size_t size = (request >> 16) & 0x1fff;
	/* CallFlags::WRITE | CallFlags::READ */
	size_t result = redox_sys_call_v0((size_t)fd, arg, size, 0x600, &metadata, 1);

	if (result > (size_t)-4096) {
		errno = (int)-result;
		return -1;
	}
	return 0;
}

#else

_TUN_INLINE int
tun_ioctl(int fd, uint32_t request, void *arg)
{
	return ioctl(fd, (unsigned long)request, arg);
}

#endif

#ifdef __cplusplus
}
#endif

#endif
