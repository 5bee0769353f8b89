//! The module under Fluvio's own engine: the same bytes as natively, clear errors, flat memory.

mod support;

use millpond_format::limits;
use millpond_format::record::BatchBuilder;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use support::unpack::unpack;
use support::{
    BASE_OFFSET, Module, START_MS, VERSIONS, json_batch, json_event, origin_key, packer,
};

/// A batch with a bit of everything: JSON, noise, empty, no JSON, no key, now and then large.
fn mixed_batch(seed: u64) -> (Vec<u8>, u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut batch = BatchBuilder::new();
    let count = rng.random_range(1..400);
    for number in 0..count {
        let bytes = match rng.random_range(0..200) {
            0 => rng.random_range(0..600_000),
            1..10 => rng.random_range(0..70_000),
            _ => rng.random_range(0..1_500),
        };
        let job = rng.random_range(0..12);
        let value = match rng.random_range(0..10) {
            0 => Vec::new(),
            1 => b"{\"job_id\": [".to_vec(),
            2 => {
                let mut noise = vec![0; bytes];
                rng.fill_bytes(&mut noise);
                noise
            }
            _ => json_event(&mut rng, job, number, bytes),
        };
        let key = origin_key(rng.random_range(0..3), number, &format!("job-{job}"));
        let key = (rng.random_range(0..50) > 0).then_some(key.as_bytes());
        batch.push(key, &value, START_MS + number as i64);
    }
    (batch.finish(), count)
}

#[test]
fn the_module_gives_the_same_bytes_as_the_native_packer() {
    let settings: [&[(&str, &str)]; 5] = [
        &[],
        &[
            ("group-by", "/job_id"),
            ("event-time", "/time"),
            ("level", "3"),
        ],
        &[
            ("group-by", "/entity_1/label"),
            ("on-missing-group", "group:rest"),
        ],
        &[("max-item-bytes", "8192"), ("group-by", "constant:all")],
        &[("level", "9"), ("max-item-bytes", "100000")],
    ];
    for (number, pairs) in settings.into_iter().enumerate() {
        let version = VERSIONS[number % VERSIONS.len()];
        let mut module = Module::load(pairs, version, None).expect("loads");
        let mut native = packer(pairs);
        for seed in 0..6 {
            let seed = seed + 100 * number as u64;
            let (raw, count) = mixed_batch(seed);
            let expected = native.pack(&raw, BASE_OFFSET, START_MS).expect("packs");
            let packed = module.pack(&raw);
            assert!(
                packed == expected,
                "seed {seed}, parameters {pairs:?}, version {version}"
            );
            assert_eq!(unpack(&packed, count).wrong_sources, 0);
        }
    }
}

#[test]
fn both_call_formats_give_the_same() {
    let raw = json_batch(1, 300_000, 550, 20);
    let [old, new] =
        VERSIONS.map(|version| Module::load(&[], version, None).expect("loads").pack(&raw));
    assert!(old == new);
    assert_eq!(
        old,
        packer(&[])
            .pack(&raw, BASE_OFFSET, START_MS)
            .expect("packs")
    );
}

#[test]
fn bad_parameters_fail_at_load_with_the_modules_own_words() {
    for version in VERSIONS {
        let error = Module::load(&[("level", "20"), ("groupby", "/x")], version, None).map(drop);
        let message = error.expect_err("bad parameters");
        assert!(
            message.starts_with("parameter `groupby`: unknown, did you mean `group-by`?; parameter `level`: `20` is no whole number from 1 to 19"),
            "{message}"
        );
    }
}

#[test]
fn an_unreadable_batch_is_an_error_and_the_next_one_is_packed() {
    let raw = json_batch(2, 20_000, 400, 3);
    for version in VERSIONS {
        let mut module = Module::load(&[], version, None).expect("loads");
        let output = module.call(&raw[..10_000]);
        assert!(output.successes.is_empty());
        let error = output.error.expect("an error");
        assert!(
            error
                .hint
                .starts_with("the batch at topic offset 4711 cannot be read: truncated in record"),
            "{}",
            error.hint
        );
        assert_eq!(error.offset, BASE_OFFSET as i64);
        assert!(!module.pack(&raw).is_empty());
    }
}

#[test]
fn the_largest_event_passes_whole() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut value = vec![0; limits::MAX_EVENT_BYTES];
    rng.fill_bytes(&mut value);
    let mut batch = BatchBuilder::new();
    batch.push(Some(origin_key(0, 0, "g").as_bytes()), &value, START_MS);
    let raw = batch.finish();
    let packed = Module::load(&[], VERSIONS[0], None)
        .expect("loads")
        .pack(&raw);
    assert!(unpack(&packed, 1).groups["g"][0].value == value);
    assert!(
        packed
            == packer(&[])
                .pack(&raw, BASE_OFFSET, START_MS)
                .expect("packs")
    );
}

/// Ten thousand batches through a store that may hold 4 MiB in all: leaking the input of a call
/// (8 to 13 KB) or its output (2 KB) would need ten times that, and end in an engine's error.
#[test]
fn memory_is_flat_over_ten_thousand_batches() {
    const LIMIT: usize = 4 << 20;
    let batches: Vec<Vec<u8>> = (0..10)
        .map(|seed| json_batch(seed, 8_000 + 500 * seed as usize, 550, 5))
        .collect();
    let mut module = Module::load(&[], VERSIONS[0], Some(LIMIT)).expect("loads");
    for round in 0..10_000 {
        let packed = module.pack(&batches[round % batches.len()]);
        assert!(!packed.is_empty(), "round {round}");
    }
    // The limit is in force: what needs more is refused.
    let large = json_batch(1, LIMIT, 550, 5);
    assert!(
        !module.try_pack(&large),
        "4 MiB of events in a store of 4 MiB"
    );
}

#[test]
fn the_module_asks_for_nothing_but_the_engines_own_import() {
    // Names of imports stand in the module as they are; anything of a clock, of randomness
    // or of files would come from WASI or a JavaScript shim.
    let contains = |text: &[u8]| {
        millpond_pack::WASM
            .windows(text.len())
            .any(|window| window == text)
    };
    assert!(contains(b"\x03env\x0ccopy_records\x00"));
    assert!(!contains(b"wasi") && !contains(b"__wbindgen"));
    let checkout = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    for machine in [checkout, "/.cargo/", "/home/", "/root/", "/Users/"] {
        assert!(!contains(machine.as_bytes()), "`{machine}` in the module");
    }
}
