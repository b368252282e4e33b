//! Error numbers. Redox took Linux's, so one table serves both.

use std::fmt;

/// An error number as a client sees it, always in `1..4096`.
///
/// There is no `EWOULDBLOCK` here on purpose: it differs from `EAGAIN` on Redox (41 and 11), and
/// a server says that a request has to wait with [`Outcome::Wait`](crate::Outcome::Wait).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(i32);

impl Errno {
    /// The number itself.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The error with this number; `EIO` if it is not a valid error number.
    pub const fn from_raw(number: i32) -> Self {
        match number {
            1..4096 => Self(number),
            _ => EIO,
        }
    }
}

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        $(#[doc = $text] pub const $name: Errno = Errno($number);)*

        impl Errno {
            fn describe(self) -> Option<(&'static str, &'static str)> {
                match self.0 {
                    $($number => Some((stringify!($name), $text)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or directory";
    ESRCH = 3, "no such process";
    EINTR = 4, "interrupted by a signal";
    EIO = 5, "input/output error";
    ENXIO = 6, "no such device or address";
    EBADF = 9, "bad file descriptor";
    EAGAIN = 11, "try again";
    EACCES = 13, "permission denied";
    EBUSY = 16, "device or resource busy";
    EEXIST = 17, "file exists";
    ENODEV = 19, "no such device";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files";
    ENOTTY = 25, "inappropriate ioctl for device";
    ENOSPC = 28, "no space left";
    EPIPE = 32, "broken pipe";
    ENOSYS = 38, "function not implemented";
    EDESTADDRREQ = 89, "destination address required";
    EMSGSIZE = 90, "message too long";
    ENOPROTOOPT = 92, "protocol option not available";
    EOPNOTSUPP = 95, "operation not supported";
    EAFNOSUPPORT = 97, "address family not supported";
    EADDRINUSE = 98, "address already in use";
    EADDRNOTAVAIL = 99, "address not available";
    ENETDOWN = 100, "network is down";
    ENETUNREACH = 101, "network is unreachable";
    ECONNRESET = 104, "connection reset by peer";
    ENOBUFS = 105, "no buffer space available";
    EISCONN = 106, "socket is connected";
    ENOTCONN = 107, "socket is not connected";
    ETIMEDOUT = 110, "connection timed out";
    ECONNREFUSED = 111, "connection refused";
    EHOSTDOWN = 112, "host is down";
    EHOSTUNREACH = 113, "no route to host";
    EALREADY = 114, "operation already in progress";
    EINPROGRESS = 115, "operation in progress";
    ESTALE = 116, "stale file handle";
    ECANCELED = 125, "operation cancelled";
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.describe() {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.describe() {
            Some((name, text)) => write!(f, "{text} ({name})"),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_no_client_could_read_becomes_eio() {
        assert_eq!(Errno::from_raw(22), EINVAL);
        assert_eq!(Errno::from_raw(0), EIO);
        assert_eq!(Errno::from_raw(-22), EIO);
        assert_eq!(Errno::from_raw(4096), EIO);
    }

    #[test]
    fn names_and_texts() {
        assert_eq!(format!("{EBUSY:?}"), "EBUSY");
        assert_eq!(EBUSY.to_string(), "device or resource busy (EBUSY)");
        assert_eq!(Errno::from_raw(77).to_string(), "error 77");
    }
}
