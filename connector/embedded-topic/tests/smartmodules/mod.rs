//! Hand-made SmartModules that do one thing each.

use std::fmt::Write as _;

use fluvio_smartmodule::dataplane::core::Encoder;
use fluvio_smartmodule::dataplane::smartmodule::{
    SmartModuleInitOutput, SmartModuleInitRuntimeError,
};
use millpond_connector::topic::Transform;

pub const SPU_VERSION: i16 = 25;

/// A module around the body of `array_map`, with extra items.
pub fn module(items: &str, array_map: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "env" "copy_records" (func $copy (param i32 i32)))
          (memory (export "memory") 2)
          (func (export "alloc") (param $len i32) (result i32)
            (local $pages i32)
            (local.set $pages
              (i32.shr_u (i32.add (local.get $len) (i32.const 131071)) (i32.const 16)))
            (if (i32.gt_u (local.get $pages) (memory.size))
              (then (drop (memory.grow (i32.sub (local.get $pages) (memory.size))))))
            (i32.const 65536))
          {items}
          (func (export "array_map") (param $ptr i32) (param $len i32) (param $version i32)
            (result i32)
            (if (i32.ne (local.get $version) (i32.const {SPU_VERSION})) (then unreachable))
            {array_map}))"#
    );
    wat::parse_str(text).expect("assembles")
}

/// Input: base offset, length, raw, base timestamp. The raw batch is also a valid list of
/// output records; the first byte of the timestamp becomes "no error".
pub const IDENTITY: &str = "
    (i32.store8 (i32.add (local.get $ptr) (i32.sub (local.get $len) (i32.const 8))) (i32.const 0))
    (call $copy (i32.add (local.get $ptr) (i32.const 12)) (i32.sub (local.get $len) (i32.const 19)))
    (i32.const 0)";

pub fn identity() -> Vec<u8> {
    module("", IDENTITY)
}

/// One record for each batch: its base offset and base timestamp.
pub fn position() -> Vec<u8> {
    let head = r#"(data (i32.const 1024) "\00\00\00\01\2c\00\00\00\00\20")"#;
    module(
        head,
        "(i64.store (i32.const 1034) (i64.load (local.get $ptr)))
         (i64.store (i32.const 1042)
           (i64.load (i32.add (local.get $ptr) (i32.sub (local.get $len) (i32.const 8)))))
         (call $copy (i32.const 1024) (i32.const 28))
         (i32.const 1)",
    )
}

pub fn data_at_1024(bytes: &[u8]) -> String {
    let mut text = String::from("(data (i32.const 1024) \"");
    for byte in bytes {
        let _ = write!(text, "\\{byte:02x}");
    }
    text + "\")"
}

/// Never comes back from being initialised: its thread ends with the test program.
pub fn endless_init() -> Vec<u8> {
    let init = r#"(func (export "init") (param i32 i32 i32) (result i32)
        (loop $again (br $again)) (i32.const 0))"#;
    module(init, IDENTITY)
}

/// Refuses to be initialised, in its own words.
pub fn refusing_init() -> Vec<u8> {
    let output = SmartModuleInitOutput {
        error: SmartModuleInitRuntimeError {
            hint: "parameter `level` must be 1 to 22, not `99`".into(),
        },
    };
    let mut bytes = Vec::new();
    output.encode(&mut bytes, SPU_VERSION).expect("encodes");
    let init = format!(
        r#"{} (func (export "init") (param i32 i32 i32) (result i32)
             (call $copy (i32.const 1024) (i32.const {})) (i32.const -2))"#,
        data_at_1024(&bytes),
        bytes.len()
    );
    module(&init, IDENTITY)
}

pub fn chain(names: &[&str]) -> Vec<Transform> {
    names
        .iter()
        .map(|name| Transform {
            uses: (*name).into(),
            with: std::collections::BTreeMap::new(),
        })
        .collect()
}
