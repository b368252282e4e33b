//! Segments into a TCP connection in every state, between what a program does; what must always hold
//! is checked after each.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| net::fuzzing::segments(bytes));
