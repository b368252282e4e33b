//! The number of a device control.

/// Type, number and size of a request: bits 29 to 31 are the direction, which BSD encodes one way,
/// Linux and Redox's C library another.
pub(crate) const fn triple(request: u32) -> (u32, u32, u32) {
    let request = request & 0x1fff_ffff;
    ((request >> 8) & 0xff, request & 0xff, request >> 16)
}
