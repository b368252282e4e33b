//! Numbers of device controls.

/// Type, number and size of a request. The direction, in bits 29 to 31, is left out: BSD encodes it
/// differently from Linux and Redox's C library.
pub(crate) const fn triple(request: u32) -> (u32, u32, u32) {
    let request = request & 0x1fff_ffff;
    ((request >> 8) & 0xff, request & 0xff, request >> 16)
}
