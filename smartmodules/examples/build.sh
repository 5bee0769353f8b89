#!/usr/bin/env bash
# Builds the example SmartModules, and writes down what they were built from (<name>.wasm.inputs).
#
# Needs the target (rustup target add wasm32-unknown-unknown), nothing else.
# The result does not depend on where the checkout lies.
#
#   build.sh            builds and replaces all
#   build.sh --to DIR   builds into DIR/<name>.wasm instead, with DIR as target folder
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"
modules=(filter-events key-by-field redact-json)

out=$here
if [[ "${1:-}" == --to ]]; then
    out=$2
    mkdir -p "$out"
    export CARGO_TARGET_DIR=$out
fi

cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustflags=("--remap-path-prefix=$root=/millpond")
for registry in "$cargo_home"/registry/src/*/; do
    rustflags+=("--remap-path-prefix=${registry%/}=/registry")
done
export CARGO_ENCODED_RUSTFLAGS
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${rustflags[*]}")
unset RUSTFLAGS
# It overrides the profile, and makes other bytes.
export CARGO_INCREMENTAL=0

cargo build "${modules[@]/#/--package=}" --lib --target wasm32-unknown-unknown --release \
    --config 'profile.release.opt-level="s"' \
    --config 'profile.release.lto="fat"' \
    --config 'profile.release.codegen-units=1' \
    --config 'profile.release.panic="abort"' \
    --config 'profile.release.strip=true' \
    --config 'profile.release.debug=false' \
    --config 'profile.release.overflow-checks=false' \
    --config 'profile.release.incremental=false'

target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
for module in "${modules[@]}"; do
    cp "$target/wasm32-unknown-unknown/release/${module//-/_}.wasm" "$out/$module.wasm.new"
    chmod 644 "$out/$module.wasm.new"
    mv "$out/$module.wasm.new" "$out/$module.wasm"
done
[[ "$out" == "$here" ]] || exit 0

for module in "${modules[@]}"; do
    {
        echo "# What $module.wasm was built from; written by build.sh, checked by the tests of millpond-embedded-topic."
        echo "rustc $(rustc --version | cut -d' ' -f2)"
        echo "wasm $(sha256sum < "$here/$module.wasm" | cut -d' ' -f1)"
        # Locked versions of everything that is linked in or generates code.
        cargo tree --package "$module" --target wasm32-unknown-unknown \
            --edges normal,build --prefix none --format '{p}' |
            sed -n 's/^\([^ ]*\) v\([^ ]*\).*$/package \1 \2/p' | grep -v "^package $module " | sort -u
        # Text of every source up to its tests.
        folder=smartmodules/examples
        for path in $folder/build.sh "$folder/$module/Cargo.toml" "$folder/$module/build.rs" \
            "$folder/$module"/src/*.rs; do
            echo "source $path $(sed '/^#\[cfg(test)\]$/,$d' "$path" | sha256sum | cut -d' ' -f1)"
        done
    } > "$here/$module.wasm.inputs"
done
