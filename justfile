# Every routine of the project. `just` lists them.

default:
    @just --list

# What CI runs.
verify:
    .ci/run

# The main job, end to end, on the local stand-ins.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# All tests.
test *ARGS:
    cargo test --workspace {{ARGS}}

# The simulation: N seeds of the whole pipeline on virtual time, all cores, with a progress bar.
sim N="10000" *ARGS:
    cargo run -p millpond-sim -- run {{N}} {{ARGS}}

# One seed of the simulation again, with its whole trace.
sim-seed SEED *ARGS:
    cargo run -p millpond-sim -- seed {{SEED}} {{ARGS}}

# Tests and types of the Python decoder (needs boto3, zstandard, mypy).
python PYTHON="python3":
    cd python && PYTHONPATH=src {{PYTHON}} -m unittest discover -s tests -t . && {{PYTHON}} -m mypy --cache-dir=../target/mypy

fmt:
    cargo fmt --all

lint:
    cargo clippy --workspace --all-targets -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences, sources and bans of the dependencies.
deny:
    cargo deny check bans licenses sources

# Benchmarks; figures are kept in BENCHMARKS.md.
bench *ARGS:
    cargo bench --workspace {{ARGS}}

# Draws the plots of the sink's pace anew (connector/dynamodb-sink/pace), on virtual time.
pace-plots:
    cargo run -p millpond-dynamodb-sink --example pace

# Kills `millpond run` N times under load (release build), reads everything back, and measures recovery.
kill N="200" *ARGS:
    cargo bench -p millpond-tests --bench kill -- --kills {{N}} {{ARGS}}

# Builds smartmodules/pack/pack.wasm anew (needs clang and the wasm32-unknown-unknown target).
pack:
    smartmodules/pack/build.sh

# Writes the JSON Schema of Connector.yaml anew.
schema:
    cargo run --release -- schema > schema/connector.schema.json

# Fuzzes one decoder (needs cargo-fuzz and a nightly toolchain): envelope, origin, item, frame, records.
fuzz TARGET *ARGS:
    cargo +nightly fuzz run --fuzz-dir fuzz {{TARGET}} {{ARGS}}
