//! The items of one chain in order, gathered from its write shards.
//!
//! A chain lies under one partition key or goes round several. Sort keys say the order over all of them, so the next
//! item is the least of those that come next in each.

use std::sync::Arc;

use millpond_format::keys;
use tokio_util::task::AbortOnDropHandle;

use crate::directory::ChainRow;
use crate::error::ReadError;
use crate::events::ReadStats;
use crate::table::{Attributes, Page, PageRequest, Table, text};

/// Where the next page of a write shard comes from.
#[derive(Debug)]
enum Next {
    /// It is being fetched.
    Fetch(AbortOnDropHandle<Result<Page, ReadError>>),
    /// It starts after the sort key.
    After(Option<String>),
    /// There is none.
    End,
}

#[derive(Debug)]
struct Shard {
    pk: String,
    next: Next,
    page: std::vec::IntoIter<Attributes>,
    /// It has been asked for its first page.
    is_begun: bool,
}

/// Reads the write shards of a chain, a page of each at a time, and one ahead if so told.
#[derive(Debug)]
pub(crate) struct Gather {
    table: Arc<Table>,
    /// What is asked of each; the partition key is its own.
    pub(crate) request: PageRequest,
    /// Items of a first page, where one may be all that is needed.
    pub(crate) first_limit: Option<i32>,
    /// Fetch a page ahead.
    pub(crate) prefetch: bool,
    /// The next pages are read strongly consistent, whatever the request says.
    pub(crate) is_strict: bool,
    shards: Vec<Shard>,
}

impl Gather {
    /// Of a chain; the request's partition key and start do not count.
    pub(crate) fn new(
        table: Arc<Table>,
        (pipeline, group): (&str, &str),
        chain: ChainRow,
        request: PageRequest,
    ) -> Self {
        let mut gather = Self {
            table,
            request,
            first_limit: None,
            prefetch: false,
            is_strict: false,
            shards: Vec::new(),
        };
        gather.widen((pipeline, group), chain);
        gather.restart(None);
        gather
    }

    /// The chain has so many write shards by now. Those that are new are asked when all are asked again.
    pub(crate) fn widen(&mut self, (pipeline, group): (&str, &str), chain: ChainRow) {
        let known = self.shards.len() as u32;
        let new = known..chain.write_shards.max(known);
        self.shards.extend(new.map(|shard| Shard {
            pk: keys::shard_pk(pipeline, group, chain.topic_partition, shard),
            next: Next::End,
            page: Vec::new().into_iter(),
            is_begun: false,
        }));
    }

    /// Goes on after this sort key, with pages asked for anew.
    pub(crate) fn restart(&mut self, after: Option<String>) {
        for shard in &mut self.shards {
            shard.page = Vec::new().into_iter();
            shard.next = Next::After(after.clone());
        }
    }

    /// There is nothing more, until it goes on anew.
    pub(crate) fn end(&mut self) {
        for shard in &mut self.shards {
            shard.page = Vec::new().into_iter();
            shard.next = Next::End;
        }
    }

    /// Asks every write shard that has nothing at hand for its next page.
    pub(crate) fn fetch_ahead(&mut self) {
        for index in 0..self.shards.len() {
            if self.shards[index].page.as_slice().is_empty() {
                self.fetch(index);
            }
        }
    }

    fn fetch(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        let Next::After(after) = &mut shard.next else {
            return;
        };
        let request = PageRequest {
            pk: shard.pk.clone(),
            after: after.take(),
            item_limit: match shard.is_begun {
                false => self.first_limit.or(self.request.item_limit),
                true => self.request.item_limit,
            },
            consistent: self.request.consistent || self.is_strict,
            ..self.request.clone()
        };
        shard.is_begun = true;
        let table = Arc::clone(&self.table);
        let task = tokio::spawn(async move { table.query(&request).await });
        shard.next = Next::Fetch(AbortOnDropHandle::new(task));
    }

    /// The next item; `None` at the end. A dropped future loses nothing.
    pub(crate) async fn next(
        &mut self,
        stats: &mut ReadStats,
    ) -> Result<Option<Attributes>, ReadError> {
        self.fetch_ahead();
        for index in 0..self.shards.len() {
            while self.shards[index].page.as_slice().is_empty() {
                self.fetch(index);
                let shard = &mut self.shards[index];
                let Next::Fetch(task) = &mut shard.next else {
                    break;
                };
                let answer = task.await;
                shard.next = Next::End;
                let page = match answer {
                    Ok(page) => page?,
                    Err(gone) => match gone.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // Only a runtime that shuts down cancels the task.
                        Err(_) => return Ok(None),
                    },
                };
                stats.pages += 1;
                stats.read_units += page.read_units;
                shard.page = page.items.into_iter();
                if let Some(after) = page.next_after {
                    shard.next = Next::After(Some(after));
                }
                if self.prefetch {
                    self.fetch(index);
                }
            }
        }
        let sort_key = |shard: &Shard| {
            let item = shard.page.as_slice().first()?;
            Some(
                text(item, &self.table.sk_name)
                    .unwrap_or_default()
                    .to_owned(),
            )
        };
        let heads = self.shards.iter().enumerate();
        let heads = heads.filter_map(|(index, shard)| Some((sort_key(shard)?, index)));
        let first = match self.request.backward {
            false => heads.min(),
            true => heads.max(),
        };
        Ok(first.and_then(|(_, index)| self.shards[index].page.next()))
    }
}
