//! What the tests share: packets, and two systems to make system calls on.

#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod link;
pub mod packet;
pub mod program;
pub mod system;
pub mod wire;
