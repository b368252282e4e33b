//! Device controls of sockets.

use scheme::errno;

use crate::common::libc::Libc;
use crate::system;

/// `_IOW('t', 129, 4)`, which nobody has, as Linux and as BSD write it.
const NOBODYS: [u32; 2] = [0x4004_7481, 0x8004_7481];

#[test]
fn a_call_is_a_socket_call_below_65536_and_else_a_device_control() {
    let system = system();
    let libc = Libc::new(&system);
    for scheme in ["udp", "tcp"] {
        let socket = libc.socket(scheme);
        for request in NOBODYS {
            let by_ioctl = libc.0.ioctl(socket, request, &mut [0; 4]);
            assert_eq!(by_ioctl, Err(errno::ENOTTY));
            let by_call = libc.0.sys_call(socket, &mut [0; 4], &[request.into()]);
            assert_eq!(by_call, Err(errno::ENOTTY));
        }
        for (word, error) in [
            (65_535, errno::EINVAL),
            (65_536, errno::ENOTTY),
            (u64::MAX, errno::ENOTTY),
        ] {
            let called = libc.0.sys_call(socket, &mut [0; 4], &[word]);
            assert_eq!(called, Err(error), "{word:#x}");
        }
    }
}
