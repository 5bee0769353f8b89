//! A whole listing of the shards, page by page.

use crate::classify::Operation;
use crate::client::{ShardScope, StreamApi};
use crate::error::SourceError;
use crate::limits::MAX_PAGES;
use crate::retry::{Phase, Retry};
use crate::shard::ShardInfo;

/// Every page of a listing.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) shards: Vec<ShardInfo>,
    pub(crate) pages: usize,
}

/// Lists until there is no next page. A page token that expired starts the listing over.
pub(crate) async fn list_all(
    api: &dyn StreamApi,
    scope: ShardScope,
) -> Result<Listing, SourceError> {
    let mut retry = Retry::new(Operation::ListShards, api.target(), Phase::Running);
    let mut listing = Listing {
        shards: Vec::new(),
        pages: 0,
    };
    let mut next = None;
    loop {
        let page = retry.call(|| api.list_shards(scope, next.clone())).await?;
        let Some(page) = page else {
            listing.shards.clear();
            listing.pages = 0;
            next = None;
            continue;
        };
        listing.shards.extend(page.shards);
        listing.pages += 1;
        next = page.next;
        if next.is_none() {
            return Ok(listing);
        }
        if listing.pages >= MAX_PAGES {
            return Err(SourceError::EndlessListing {
                target: Box::new(api.target().clone()),
                pages: listing.pages,
            });
        }
    }
}
