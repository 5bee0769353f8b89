#!/usr/bin/env bash
# Builds pack.wasm, and writes down what it was built from (pack.wasm.inputs).
#
# Needs the target (rustup target add wasm32-unknown-unknown) and clang, for zstd's C code.
# The result does not depend on where the checkout lies.
#
#   build.sh            builds and replaces both files
#   build.sh --to DIR   builds into DIR/pack.wasm instead, with DIR as target folder
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"

out=$here
if [[ "${1:-}" == --to ]]; then
    out=$2
    mkdir -p "$out"
    export CARGO_TARGET_DIR=$out
fi

cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustflags=(
    # Every engine that runs SmartModules has these: wasmtime's defaults.
    -C target-feature=+simd128,+bulk-memory
    "--remap-path-prefix=$root=/millpond"
)
for registry in "$cargo_home"/registry/src/*/; do
    rustflags+=("--remap-path-prefix=${registry%/}=/registry")
done
export CARGO_ENCODED_RUSTFLAGS
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${rustflags[*]}")
unset RUSTFLAGS
# It overrides the profile, and makes other bytes.
export CARGO_INCREMENTAL=0
export CC_wasm32_unknown_unknown=clang
export AR_wasm32_unknown_unknown=${AR_wasm32_unknown_unknown:-$(command -v llvm-ar || command -v ar)}
# The linker's compiler is newer than most clangs and does better by zstd: hand it bitcode.
export CFLAGS_wasm32_unknown_unknown="-O2 -msimd128 -mbulk-memory -flto"

# `cdylib` alone: cargo optimises nothing at link time for a library that is an `rlib`, too.
cargo rustc --package millpond-pack --lib --crate-type cdylib \
    --target wasm32-unknown-unknown --release \
    --config 'profile.release.opt-level=3' \
    --config 'profile.release.lto="fat"' \
    --config 'profile.release.codegen-units=1' \
    --config 'profile.release.panic="abort"' \
    --config 'profile.release.strip=true' \
    --config 'profile.release.debug=false' \
    --config 'profile.release.overflow-checks=false' \
    --config 'profile.release.incremental=false'

target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
cp "$target/wasm32-unknown-unknown/release/millpond_pack.wasm" "$out/pack.wasm.new"
mv "$out/pack.wasm.new" "$out/pack.wasm"
[[ "$out" == "$here" ]] || exit 0

inputs() {
    echo "# What pack.wasm was built from; written by build.sh, checked by tests/fresh.rs."
    echo "rustc $(rustc --version | cut -d' ' -f2)"
    echo "clang $(clang -dumpversion)"
    echo "wasm $(sha256sum < "$here/pack.wasm" | cut -d' ' -f1)"
    # Locked versions of everything that is linked in or generates code.
    cargo tree --package millpond-pack --target wasm32-unknown-unknown \
        --edges normal,build --prefix none --format '{p}' |
        sed -n 's/^\([^ ]*\) v\([^ ]*\).*$/package \1 \2/p' | grep -v '^package millpond-' | sort -u
    # Text of every source up to its tests, and the workspace's word on the dependencies.
    for file in smartmodules/pack/src/*.rs crates/format/src/*.rs \
        smartmodules/pack/build.sh smartmodules/pack/Cargo.toml crates/format/Cargo.toml; do
        echo "source $file $(sed '/^#\[cfg(test)\]$/,$d; /^\[dev-dependencies\]$/,$d' "$file" | sha256sum | cut -d' ' -f1)"
    done
    for name in $(sed -n '/^\[dependencies\]$/,/^\[dev-dependencies\]$/s/^\([a-z0-9_-]*\).workspace = true$/\1/p' \
        smartmodules/pack/Cargo.toml crates/format/Cargo.toml | sort -u); do
        echo "dependency $(grep "^$name = " Cargo.toml)"
    done
}
inputs > "$here/pack.wasm.inputs"
