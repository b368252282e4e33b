//! Compiles the test of the C header. Without a C compiler for Redox that test is skipped.

fn main() {
    println!("cargo::rerun-if-changed=c/if_tun.c");
    println!("cargo::rerun-if-changed=../../include/net/if_tun.h");
    let compiled = cc::Build::new()
        .file("c/if_tun.c")
        .include("../../include")
        .warnings(true)
        .cargo_warnings(false)
        .try_compile("if_tun_test");
    if let Err(error) = compiled {
        println!("cargo::warning=the C header is not tested: {error}");
        println!("cargo::rustc-cfg=no_c");
    }
}
