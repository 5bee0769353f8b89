//! The fuzz target of the item decoder on mutations of the golden corpus, seeded, for a second.

#[path = "../../../fuzz/src/item.rs"]
mod item;
#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;
#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use support::{ChainWriter, text_of};

#[test]
fn items() {
    let mut writer = ChainWriter::new("g", 0);
    let mut items = vec![writer.item(&[
        vec![(1_000, b"one".to_vec()), (1_005, b"two".to_vec())],
        vec![(2_000, vec![b'x'; 300])],
    ])];
    items.extend(writer.parts(3_000, &[1; 100], 60));
    let corpus: Vec<Vec<u8>> = items
        .iter()
        .map(|item| {
            let sort_key = text_of(item, "sk");
            let binary = |name: &str| item[name].as_b().expect("binary").as_ref().to_vec();
            let mut bytes = vec![sort_key.len() as u8];
            bytes.extend(sort_key.as_bytes());
            bytes.extend((binary("h").len() as u16).to_le_bytes());
            bytes.extend(binary("h"));
            bytes.extend(binary("d"));
            bytes
        })
        .collect();
    mutate::run("item", &corpus, 8_000, item::item);
}
