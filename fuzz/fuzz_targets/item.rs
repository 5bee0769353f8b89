//! See `millpond_fuzz::item::item`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    millpond_fuzz::item::item(bytes);
});
