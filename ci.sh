#!/bin/sh
# Everything that must hold before a change lands. `./ci.sh` does all of it and installs what it
# needs; `./ci.sh NAME...` does only the named steps. Two more steps must be named: coverage, and manual,
# which writes what share/ has of manual pages and completions.
set -eu
cd "$(dirname "$0")"

STEPS="tests contract wireguard dispatcher redox benches soak"
# Before them, and beside them: these only build, in directories of their own, and the tests wait for much.
BEFORE="install format lint docs core"
BESIDE="licences msrv fuzz"
CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"
export CARGO_TERM_COLOR
# On the stable toolchain, what needs nightly is asked for by name.
STABLE="--locked"
# How long each fuzz target runs, seconds.
FUZZ_SECONDS="${FUZZ_SECONDS:-10}"

START=$(date +%s)

# With the seconds since the start.
say() {
    printf '\n== %s (%s s)\n' "$*" "$(($(date +%s) - START))"
}

# What could not be done, by name.
skipped() {
    echo "skipped: $*"
}

host() {
    rustc -vV | sed -n 's/^host: //p'
}

# What can be installed is no reason for a test to skip. TUND_TESTS=some is for systems where it cannot be had.
if [ "$(id -u)" = 0 ]; then
    TUND_TESTS="${TUND_TESTS:-all}"
    export TUND_TESTS
fi

# What the tests need beside Rust. Without root, what is missing is named by the tests that skip.
install() {
    say "install"
    rustup target add x86_64-unknown-redox wasm32-unknown-unknown
    rustup component add rustfmt clippy
    missing=""
    for pair in ip:iproute2 ping:iputils-ping python3:python3 cc:gcc c++:g++ tshark:tshark curl:curl \
        iperf3:iperf3 radvd:radvd dnsmasq:dnsmasq-base arping:iputils-arping ndisc6:ndisc6 nmap:nmap \
        wg:wireguard-tools wireguard-go:wireguard-go tmux:tmux; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
    done
    [ -z "$missing" ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        # shellcheck disable=SC2086 # a list of words
        apt-get install -q -y --no-install-recommends $missing
    else
        echo "not installed, tests that need them cannot run:$missing"
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
    # The README's Rust is a doctest of the client crate, and so among the tests.
    say "the README's C"
    if command -v cc >/dev/null 2>&1; then
        sed -n '/^```c$/,/^```$/{//!p}' README.md |
            cc -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Werror -fsyntax-only -Iinclude -xc -
    else
        skipped "no C compiler"
    fi
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

# Unit tests, the tests in tests/ with the client's examples, and doctests.
tests() {
    say "tests"
    cargo test $STABLE --workspace
}

# What the tests run, as the tests have it: with overflow checks, and built but once.
programs() {
    cargo test $STABLE --workspace --no-run --quiet
    TUND="$PWD/target/debug/tund"
    TUNCTL="$PWD/target/debug/tunctl"
    export TUND TUNCTL
}

# The contract once more, by programs that share no code with ours.
contract() {
    say "contract, in Python and C"
    programs
    python3 tests/contract/run.py
}

# The WireGuard program, which is apart from the workspace: its cryptography needs a C compiler. First
# alone, in virtual time, then with wireguard-go at the other end.
wireguard() {
    say "WireGuard"
    if ! command -v cc >/dev/null 2>&1; then
        skipped "no C compiler for the cryptography"
        return
    fi
    # What it has in common with the workspace is built once.
    manifest="--manifest-path wireguard/Cargo.toml --target-dir target"
    cargo fmt --manifest-path wireguard/Cargo.toml --check
    cargo clippy $STABLE $manifest --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc $STABLE $manifest --no-deps --document-private-items
    cargo test $STABLE $manifest
    programs
    TUN_WIREGUARD="$PWD/target/debug/tun-wireguard" python3 wireguard/tests/stranger.py
    # Its C is built by a compiler for Redox, where there is one.
    if command -v "${CC_x86_64_unknown_redox:-x86_64-unknown-redox-gcc}" >/dev/null 2>&1; then
        RUSTC_BOOTSTRAP=1 cargo clippy $STABLE --manifest-path wireguard/Cargo.toml \
            --target x86_64-unknown-redox --target-dir target/nightly -- -D warnings
    else
        skipped "WireGuard for Redox: no C compiler x86_64-unknown-redox-gcc"
    fi
}

# The real dispatcher of redox-scheme, driven with hand-made requests on this system.
dispatcher() {
    say "redox-scheme's dispatcher"
    RUSTC_BOOTSTRAP=1 cargo test $STABLE -p scheme --features redox-dispatch --target-dir target/nightly
}

redox() {
    say "Redox target"
    RUSTC_BOOTSTRAP=1 cargo clippy $STABLE --workspace --exclude no-system --lib --bins --examples \
        --target x86_64-unknown-redox --target-dir target/nightly -- -D warnings
}

# The oldest Rust that Cargo.toml promises.
msrv() {
    oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    say "Rust $oldest"
    if ! rustup run "$oldest" cargo --version >/dev/null 2>&1 &&
        ! rustup toolchain install --profile minimal --no-self-update "$oldest"; then
        skipped "Rust $oldest cannot be had here"
        return
    fi
    rustup run "$oldest" cargo check $STABLE --workspace --all-targets --target-dir target/msrv
}

# That dependencies may be given on with ours, and come from where they should: deny.toml.
licences() {
    say "licences and sources of dependencies"
    if ! cargo deny --version >/dev/null 2>&1 && ! CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug cargo-deny; then
        skipped "cargo-deny cannot be had here"
        return
    fi
    cargo deny $STABLE check --hide-inclusion-graph licenses sources bans
    # With a deny.toml of its own.
    cargo deny $STABLE --manifest-path wireguard/Cargo.toml check --hide-inclusion-graph \
        licenses sources bans
}

# That benches run. What they measure is for people to look at, and from `cargo bench`: here they are
# built as the tests are.
benches() {
    say "benches"
    cargo test $STABLE --workspace --bench per_packet -- --quick
    cargo test $STABLE --workspace --bench flood -- --quick
}

# Everything at once: ten minutes of it in virtual time, which take some seconds, and on a mount for real.
soak() {
    say "soak"
    cargo test $STABLE --workspace --bench soak -- virtual --seconds 600
    cargo test $STABLE --workspace --bench soak -- mount --seconds "${SOAK_SECONDS:-60}"
}

# Each target runs for some seconds, from the inputs in fuzz/corpus on. An input that fails is kept in
# fuzz/artifacts, and named. What `cargo fuzz` adds to the compiler's options is written out here, so
# that neither it nor nightly is needed; there is no address sanitizer, since the core has no unsafe code.
fuzz() {
    say "fuzz targets, $FUZZ_SECONDS s each"
    RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares" \
        cargo build $STABLE --release --manifest-path fuzz/Cargo.toml --target-dir target/fuzz \
        --target "$(host)"
    mkdir -p fuzz/artifacts
    for corpus in fuzz/corpus/*; do
        target=$(basename "$corpus")
        found="target/fuzz/found/$target"
        mkdir -p "$found"
        set -- -max_total_time="$FUZZ_SECONDS" -timeout=20 -artifact_prefix="fuzz/artifacts/$target-"
        [ ! -f "fuzz/$target.dict" ] || set -- "$@" -dict="fuzz/$target.dict"
        log="target/fuzz/$target.log"
        # What is new goes to the first directory.
        if ! "target/fuzz/$(host)/release/$target" "$found" "$corpus" "$@" -print_final_stats=1 >"$log" 2>&1; then
            tail -n 60 "$log"
            echo "fuzz/$target failed; the whole log is $log"
            return 1
        fi
        echo "fuzz/$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
    done
}

# Lines that the tests reach, for docs/coverage.md. LLVM's tools are those of the toolchain.
coverage() {
    say "coverage"
    bin="$(rustc --print sysroot)/lib/rustlib/$(host)/bin"
    if [ ! -x "$bin/llvm-cov" ] && ! rustup component add llvm-tools; then
        skipped "no llvm-tools here"
        return
    fi
    built="$PWD/target/coverage"
    rm -rf "$built"
    # Counted in the file itself, since some programs of the tests are killed at their end.
    RUSTFLAGS="-Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation"
    LLVM_PROFILE_FILE="$built/raw/%p-%m%c.profraw"
    export RUSTFLAGS LLVM_PROFILE_FILE
    # Doctests are built apart, and left out.
    cargo build $STABLE --workspace --bins --examples --target-dir "$built"
    cargo test $STABLE --workspace --lib --bins --tests --target-dir "$built"
    # This only measures: whether the contract holds is for the step of that name to say.
    TUND="$built/debug/tund" python3 tests/contract/run.py || echo "not all of the contract passed"
    unset RUSTFLAGS LLVM_PROFILE_FILE
    "$bin/llvm-profdata" merge --sparse "$built"/raw/*.profraw -o "$built/all.profdata"
    set --
    for object in "$built"/debug/tund "$built"/debug/tunctl "$built"/debug/examples/* "$built"/debug/deps/*; do
        case "$object" in *.*) continue ;; esac
        [ ! -x "$object" ] || set -- "$@" --object "$object"
    done
    "$bin/llvm-cov" report --instr-profile "$built/all.profdata" "$@" \
        --ignore-filename-regex '/\.cargo/|/\.rustup/|/rustc/|/tests/|/examples/|/benches/' \
        --show-region-summary=false --show-branch-summary=false
}

# What is installed beside the programs: manual pages and completions, from the text of `--help`.
manual() {
    say "manual pages and completions"
    rm -rf share
    mkdir -p share/bash-completion/completions share/zsh/site-functions share/fish/vendor_completions.d
    for program in tund tunctl; do
        cargo run $STABLE --quiet --bin "$program" -- man share/man/man1
        for shell in bash:bash-completion/completions/$program zsh:zsh/site-functions/_$program \
            fish:fish/vendor_completions.d/$program.fish; do
            cargo run $STABLE --quiet --bin "$program" -- completions "${shell%%:*}" >"share/${shell#*:}"
        done
    done
}

all() {
    for each in $BEFORE; do
        "$each"
    done
    log=target/beside.log
    (for each in $BESIDE; do "$each"; done) >"$log" 2>&1 &
    beside=$!
    trap 'kill "$beside" 2>/dev/null' EXIT
    for each in $STEPS; do
        "$each"
    done
    if ! wait "$beside"; then
        cat "$log"
        return 1
    fi
    cat "$log"
    trap - EXIT
}

for step in "${@:-all}"; do
    "$step"
done
say "all good"
