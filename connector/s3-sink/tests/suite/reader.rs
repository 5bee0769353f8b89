//! Reads objects as somebody who knows their names and formats, and nothing of the ledger.

use std::collections::BTreeMap;
use std::io::Read as _;

use bytes::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row};

/// Objects with events: folder and file name, in order.
pub fn data(objects: &[(String, Bytes)]) -> Vec<(&str, &Bytes)> {
    let data = objects
        .iter()
        .filter(|(name, _)| !name.contains("/_millpond/"));
    data.map(|(name, bytes)| (name.as_str(), bytes)).collect()
}

/// Events by folder, in the order of file names.
pub fn read_events(objects: &[(String, Bytes)]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut found: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (name, bytes) in data(objects) {
        let (folder, file) = name.rsplit_once('/').expect("a folder");
        assert!(folder.starts_with("lake/p/group="), "{name}");
        let events = found.entry(folder.to_owned()).or_default();
        if file.ends_with(".ndjson.zst") {
            events.extend(lines(bytes));
        } else {
            assert!(file.ends_with(".parquet"), "{name}");
            events.extend(rows(bytes).iter().map(event));
        }
    }
    found
}

/// Lines of an object, by the zstd library's own decoder of whole streams.
pub fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    let mut decoder = zstd::stream::read::Decoder::new(bytes).expect("zstd");
    decoder.read_to_end(&mut text).expect("decompresses");
    assert_eq!(text.last(), Some(&b'\n'), "ends with a whole line");
    text.pop();
    text.split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

/// Rows of a Parquet object.
pub fn rows(bytes: &Bytes) -> Vec<Row> {
    let file = SerializedFileReader::new(bytes.clone()).expect("a Parquet file");
    let rows = file.get_row_iter(None).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

/// A column of a row.
pub fn column<'a>(row: &'a Row, name: &str) -> &'a Field {
    let mut columns = row.get_column_iter();
    let found = columns.find(|(known, _)| *known == name);
    found.expect("a column").1
}

pub fn event(row: &Row) -> Vec<u8> {
    match column(row, "event") {
        Field::Bytes(bytes) => bytes.data().to_vec(),
        other => panic!("{other:?}"),
    }
}
