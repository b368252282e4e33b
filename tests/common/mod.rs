//! The parts that the tests share: packets, two systems to make system calls on, and a C library.

#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod libc;
pub mod link;
pub mod named;
pub mod needs;
pub mod packet;
pub mod ping;
pub mod program;
pub mod system;
pub mod usage;
pub mod wait;
pub mod wire;
