//! What was acknowledged, in a file beside the store.
//!
//! After a crash the store opens at its last commit that passes its checksums. If the last one is
//! damaged it opens at the one before, and says nothing: a torn commit that nobody was told of
//! looks the same. So the end of every partition is written here before an append is answered,
//! and compared when the store is opened.
//!
//! Two slots, written in turn, each with a checksum. Nothing is synced: a killed process leaves what it
//! wrote, and after a power failure an older slot only proves less. It never claims more than
//! the store holds, because the store's commit is on disk before it is written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use millpond_connector::topic::Offset;

use crate::layout::{decode_offsets, encode_offsets};

/// Slots begin at multiples of this many bytes.
const BLOCK: u64 = 4096;

/// Key that the checksum of a slot covers.
const KEY: &str = "ends";

/// The ends of all partitions, as acknowledged.
#[derive(Debug)]
pub(crate) struct Ends {
    path: PathBuf,
    file: Option<File>,
    partitions: usize,
    /// Number of the last slot written; odd ones lie second.
    turn: u64,
    /// A failed write was said.
    said: bool,
}

impl Ends {
    /// Opens the file, or will create it; answers what was acknowledged, if the file says so.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(crate) fn open(path: PathBuf, partitions: u32) -> io::Result<(Self, Option<Vec<Offset>>)> {
        let mut ends = Self {
            path,
            file: None,
            partitions: partitions as usize,
            turn: 0,
            said: false,
        };
        if !ends.path.exists() {
            return Ok((ends, None));
        }
        let file = open(&ends.path)?;
        let newest = [0, 1]
            .into_iter()
            .filter_map(|slot| ends.read(&file, slot))
            .max_by_key(|(turn, _)| *turn);
        ends.file = Some(file);
        let Some((turn, acknowledged)) = newest else {
            tracing::warn!(
                file = %ends.path.display(),
                "damaged: whether the topic holds all that was acknowledged cannot be told this time"
            );
            return Ok((ends, None));
        };
        ends.turn = turn;
        Ok((ends, Some(acknowledged)))
    }

    fn slot_len(&self) -> usize {
        // Turn, ends, checksum.
        8 + self.partitions * 8 + 4
    }

    fn place(&self, slot: u64) -> u64 {
        slot * (self.slot_len() as u64).next_multiple_of(BLOCK)
    }

    fn read(&self, file: &File, slot: u64) -> Option<(u64, Vec<Offset>)> {
        let mut row = vec![0; self.slot_len()];
        file.read_exact_at(&mut row, self.place(slot)).ok()?;
        let row = decode_offsets(KEY, &row)?;
        let (turn, ends) = row.split_first()?;
        // One found in the other's place is none.
        (turn % 2 == slot).then(|| (*turn, ends.to_vec()))
    }

    /// Writes the ends of all partitions. A failure is said and passed over: the append is durable, and
    /// what is written here before proves less, but nothing wrong.
    pub(crate) fn write(&mut self, ends: &[Offset]) {
        let result = self.try_write(ends);
        if let Err(error) = result
            && !std::mem::replace(&mut self.said, true)
        {
            tracing::warn!(file = %self.path.display(), %error, "cannot note what was acknowledged");
        }
    }

    fn try_write(&mut self, ends: &[Offset]) -> io::Result<()> {
        let turn = self.turn + 1;
        let row: Vec<u64> = std::iter::once(turn).chain(ends.iter().copied()).collect();
        let row = encode_offsets(KEY, &row);
        let place = self.place(turn % 2);
        let file = match &mut self.file {
            Some(file) => file,
            missing => missing.insert(open(&self.path)?),
        };
        file.write_all_at(&row, place)?;
        self.turn = turn;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reopened(path: &Path) -> (Ends, Option<Vec<Offset>>) {
        Ends::open(path.to_owned(), 3).expect("readable")
    }

    #[test]
    fn the_last_ends_come_back_and_a_torn_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ends");
        let (mut ends, none) = reopened(&path);
        assert_eq!(none, None);
        for n in 1..=9 {
            ends.write(&[n, 2 * n, 3 * n]);
            assert_eq!(reopened(&path).1, Some(vec![n, 2 * n, 3 * n]));
        }
        let whole = std::fs::read(&path).expect("written");
        let last = ends.place(ends.turn % 2) as usize;
        for byte in last..last + ends.slot_len() {
            let mut torn = whole.clone();
            torn[byte] ^= 0x40;
            std::fs::write(&path, &torn).expect("written");
            assert_eq!(reopened(&path).1, Some(vec![8, 16, 24]), "byte {byte}");
        }
        // Nothing left of either: nothing is claimed, and writing goes on.
        std::fs::write(&path, vec![0; whole.len()]).expect("written");
        let (mut ends, none) = reopened(&path);
        assert_eq!(none, None);
        ends.write(&[1, 1, 1]);
        assert_eq!(reopened(&path).1, Some(vec![1, 1, 1]));
    }

    #[test]
    fn a_disk_that_refuses_is_passed_over() {
        let (mut ends, _) = Ends::open("/nonexistent/ends".into(), 1).expect("not there");
        ends.write(&[1]);
        assert!(ends.said);
    }
}
