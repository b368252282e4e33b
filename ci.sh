#!/bin/sh
# Everything that must hold before a change lands. `./ci.sh` does all of it and installs what it
# needs; `./ci.sh NAME...` does only the named steps.
set -eu
cd "$(dirname "$0")"

STEPS="install format lint docs core tests contract dispatcher redox benches fuzz"
CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"
export CARGO_TERM_COLOR
# On the stable toolchain, what needs nightly is asked for by name.
STABLE="--locked"

say() {
    printf '\n== %s\n' "$*"
}

# What the tests need beside Rust. Without root, what is missing is named by the tests that skip.
install() {
    say "install"
    rustup target add x86_64-unknown-redox wasm32-unknown-unknown
    rustup component add rustfmt clippy
    missing=""
    for pair in ip:iproute2 ping:iputils-ping python3:python3 cc:gcc c++:g++ tshark:tshark curl:curl \
        iperf3:iperf3; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
    done
    [ -z "$missing" ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        # shellcheck disable=SC2086 # a list of words
        apt-get install -q -y --no-install-recommends $missing
    else
        echo "not installed, tests that need them are skipped:$missing"
    fi
}

format() {
    say "format"
    cargo fmt --all --check
}

lint() {
    say "clippy"
    cargo clippy $STABLE --workspace --all-targets -- -D warnings
}

docs() {
    say "documentation"
    RUSTDOCFLAGS="-D warnings" cargo doc $STABLE --workspace --no-deps --document-private-items
}

# The library needs no system: it builds for a target that has none, and nothing that would need one
# is linked. Where node is installed, the module is run, too.
core() {
    say "core without a system"
    cargo build $STABLE --release --package no-system --target wasm32-unknown-unknown
    module=target/wasm32-unknown-unknown/release/no_system.wasm
    python3 net/no-system/check.py "$module"
    if command -v node >/dev/null 2>&1; then
        node net/no-system/run.mjs "$module"
    else
        echo "not run, only built: node is not installed"
    fi
}

tests() {
    say "tests"
    cargo test $STABLE --workspace
}

# The contract once more, by programs that share no code with ours.
contract() {
    [ -f tests/contract/run.py ] || return 0
    say "contract, in Python and C"
    cargo build $STABLE --release
    python3 tests/contract/run.py
}

# The real dispatcher of redox-scheme, driven with hand-made requests on this system.
dispatcher() {
    say "redox-scheme's dispatcher"
    RUSTC_BOOTSTRAP=1 cargo test $STABLE -p scheme --features redox-dispatch --target-dir target/nightly
}

redox() {
    say "Redox target"
    RUSTC_BOOTSTRAP=1 cargo clippy $STABLE --workspace --exclude no-system --target x86_64-unknown-redox \
        --target-dir target/nightly -- -D warnings
}

# That benches run; what they measure is for people to look at.
benches() {
    say "benches"
    cargo bench $STABLE --bench per_packet -- --quick
}

fuzz() {
    [ -f fuzz/Cargo.toml ] || return 0
    say "fuzz targets"
    cargo check --manifest-path fuzz/Cargo.toml --target-dir target/fuzz
}

for step in "${@:-all}"; do
    if [ "$step" = all ]; then
        for each in $STEPS; do
            "$each"
        done
    else
        "$step"
    fi
done
say "all good"
