//! See `millpond_fuzz::checks::records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    millpond_fuzz::checks::records(bytes);
});
