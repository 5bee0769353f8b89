//! Lets the linker leave `copy_records` to the engine: from Rust 1.96 on it has to be asked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-cdylib-link-arg=--allow-undefined");
    }
}
