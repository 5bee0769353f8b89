//! `millpond export`: groups into one file.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use millpond_reader::{GroupsRequest, ReadRequest, Reader};

use crate::cli::ExportArgs;
use crate::commands::{Damaged, say};
use crate::exit::Exit;
use crate::export::{Cursor, Of, Output, Row, State, Work};
use crate::progress::Progress;
use crate::report::grouped;

/// Without a terminal a line of progress comes so often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Runs `millpond export`.
///
/// # Errors
/// What the reader meets, a damaged item unless `--skip-damaged`, or a file that cannot be written.
/// The same command goes on.
pub async fn run(args: ExportArgs) -> Result<Exit> {
    let damaged = Damaged::default();
    let reader = args.table.open(damaged.policy(args.skip_damaged)).await?;
    let of = Of {
        table: args.table.table.clone(),
        pipeline: reader.pipeline().to_owned(),
        group: args.group.clone(),
        from_ms: args.from,
        to_ms: args.to,
        format: args.format,
    };
    let (work, mut state) = Work::open(&args.output, of)?;
    if !state.is_whole {
        if state.events > 0 {
            let events = grouped(state.events);
            say(&format!("going on behind {events} events of before"));
        }
        let (groups, total) = plan(&reader, &args, &state.cursor).await?;
        let mut writing = Writing {
            reader: &reader,
            args: &args,
            output: Output::open(args.format, &work, &state)?,
            work: &work,
            state: &mut state,
            unsaved: 0,
            progress: Progress::start("export", total, LINE_EVERY),
            began: Instant::now(),
        };
        for group in groups {
            writing.group(group).await?;
        }
        writing.finish()?;
    }
    work.publish(Output::name(args.format))?;
    let spent = reader.spent();
    say(&format!(
        "{}: {} events, {} bytes of them, {} read units",
        args.output.display(),
        grouped(state.events),
        grouped(state.event_bytes),
        grouped(spent.read_units as u64),
    ));
    Ok(damaged.exit())
}

/// The groups that are left, by name, and how many events there are in all, where that is known.
async fn plan(
    reader: &Reader,
    args: &ExportArgs,
    cursor: &Cursor,
) -> Result<(Vec<String>, Option<u64>)> {
    let is_slice = args.from.is_some() || args.to.is_some();
    let mut found = Vec::new();
    match &args.group {
        // What it costs to know the total of a slice would be more than the slice.
        Some(group) if is_slice => found.push((group.clone(), 0)),
        Some(group) => found.push((group.clone(), reader.group(group).await?.events)),
        None => {
            let mut groups = reader.groups(GroupsRequest::default());
            while let Some(group) = groups.next().await? {
                found.push((group.group, group.events));
            }
        }
    }
    let total = (!is_slice).then(|| found.iter().map(|(_, events)| events).sum());
    let mut left: Vec<String> = found.into_iter().map(|(group, _)| group).collect();
    left.retain(|group| cursor.done.as_ref().is_none_or(|done| group > done));
    left.sort_unstable();
    Ok((left, total))
}

struct Writing<'a> {
    reader: &'a Reader,
    args: &'a ExportArgs,
    work: &'a Work,
    output: Output,
    state: &'a mut State,
    /// Bytes of events that are not durable.
    unsaved: u64,
    progress: Progress,
    began: Instant,
}

impl Writing<'_> {
    async fn group(&mut self, group: String) -> Result<()> {
        let within = self.state.cursor.within.take();
        let token = within.filter(|(name, _)| *name == group);
        let mut events = self
            .reader
            .read(ReadRequest {
                from_ms: self.args.from,
                to_ms: self.args.to,
                page_token: token.map(|(_, token)| token),
                committed_only: true,
                ..ReadRequest::group(group.as_str())
            })
            .await?;
        while let Some(event) = events
            .next()
            .await
            .with_context(|| format!("group `{}`", group.escape_debug()))?
        {
            let row = Row {
                group: &group,
                event: &event,
            };
            self.output.push(self.work, row)?;
            let bytes = event.value.len() as u64;
            self.unsaved += bytes;
            self.state.events += 1;
            self.state.event_bytes += bytes;
            if self.unsaved >= self.args.sync_bytes {
                self.state.cursor.within = Some((group.clone(), events.page_token()));
                self.save()?;
            }
            if self.state.events.is_multiple_of(256) {
                self.show();
            }
        }
        self.state.cursor = Cursor {
            done: Some(group),
            within: None,
        };
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        self.unsaved = 0;
        self.output.sync(self.state)?;
        self.work.save(self.state)
    }

    fn show(&mut self) {
        let Self { state, began, .. } = &*self;
        let (events, bytes) = (state.events, state.event_bytes);
        let seconds = began.elapsed().as_secs();
        self.progress.update(events, || {
            let megabytes = grouped(bytes / 1_000_000);
            format!("{} events, {megabytes} MB, {seconds} s", grouped(events))
        });
    }

    fn finish(mut self) -> Result<()> {
        self.save()?;
        self.progress.update(self.state.events, String::new);
        Output::assemble(self.args.format, self.work, self.state)?;
        self.state.is_whole = true;
        self.work.save(self.state)?;
        let events = grouped(self.state.events);
        self.progress.finish(&format!("{events} events written"));
        Ok(())
    }
}
