//! What can be made to go wrong.

use std::time::Duration;

use fluvio_protocol::link::ErrorCode;

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The one that administers.
    Sc,
    /// The one that stores.
    Spu,
}

/// Something that goes wrong once, at the next occasion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A produce is stored; its connection is cut before the answer.
    AnswerLost,
    /// A produce is refused with this code and nothing is stored.
    ProduceError(ErrorCode),
    /// A produce is answered as by an SPU that does not lead the partition.
    ProduceNotLeader,
    /// A stream is answered as by an SPU that does not lead the partition.
    StreamNotLeader,
    /// A stream answers this code in place of data.
    StreamError(ErrorCode),
    /// A stream without SmartModules cuts one answer at this many bytes, whatever was asked for.
    Cut(usize),
    /// A stream with SmartModules treats one output as above `max_bytes`: nothing is sent, and the
    /// stream is at the end of the log.
    Jump,
    /// A stream is accepted and never answers.
    SilentStream,
    /// A stream with SmartModules is at work for so long before it does anything else, as when a busy SPU
    /// compiles them.
    SlowModules(Duration),
    /// A new connection is accepted and never answers.
    Silent(Server),
    /// A new connection hears of another version, and of no request that this one knows.
    OtherVersion(Server),
}

/// The faults that have not happened yet, in order.
#[derive(Debug, Default)]
pub(super) struct Script(Vec<Fault>);

impl Script {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn pending(&self) -> Vec<Fault> {
        self.0.clone()
    }

    /// Takes the first fault that `choose` makes something of.
    pub(super) fn take<T>(&mut self, choose: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let (index, chosen) = self
            .0
            .iter()
            .enumerate()
            .find_map(|(index, fault)| Some((index, choose(fault)?)))?;
        self.0.remove(index);
        Some(chosen)
    }

    /// True, once, when exactly this fault is due.
    pub(super) fn is_due(&mut self, fault: &Fault) -> bool {
        self.take(|found| (found == fault).then_some(())).is_some()
    }
}
