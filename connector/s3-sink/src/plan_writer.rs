//! Writes plans: event by event into the object of its hour, objects in parallel.
//!
//! All of that follows from the plan alone, so a replay makes the same names and bytes (I2).

use std::sync::Arc;

use async_trait::async_trait;
use millpond_sink::claim::Claim;
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::store::{PlanInput, PlanWriter, StoreError};
use tokio::task::{JoinSet, yield_now};

use crate::encode::EncodeError;
use crate::error::{CallError, S3Error};
use crate::events::Piece;
use crate::limits::MAX_IN_FLIGHT_PUTS;
use crate::plan::{Plan, PlanConfig, plan};
use crate::router::Router;
use crate::writer::{Object, Objects};

/// Writes the plans of one topic partition.
pub struct ObjectPlans {
    objects: Objects,
    config: PlanConfig,
    plan: Plan,
}

impl ObjectPlans {
    /// A writer for the topic partition of `config`.
    #[must_use]
    pub fn new(objects: Objects, config: PlanConfig) -> Self {
        Self {
            objects,
            config,
            plan: Plan::default(),
        }
    }
}

#[async_trait]
impl PlanWriter for ObjectPlans {
    async fn plan(&mut self, input: PlanInput<'_>) -> Result<(), StoreError> {
        self.plan = plan(input.entries, &self.config);
        Ok(())
    }

    async fn write(&mut self, claim: &Arc<Claim>) -> Result<Vec<DeadLetter>, StoreError> {
        let plan = std::mem::take(&mut self.plan);
        let mut letters = plan.dead_letters;
        let mut uploads = Uploads {
            objects: self.objects.clone(),
            claim: claim.clone(),
            under_way: JoinSet::new(),
        };
        for (group, pieces) in plan.groups {
            letters.extend(self.group(&group, pieces, &mut uploads).await?);
        }
        uploads.finish().await?;
        Ok(letters)
    }
}

impl ObjectPlans {
    /// Writes the objects of one group; answers what cannot be written.
    async fn group(
        &self,
        group: &str,
        pieces: Vec<Piece>,
        uploads: &mut Uploads,
    ) -> Result<Vec<DeadLetter>, S3Error> {
        let failed = |error: EncodeError| S3Error::Encode {
            group: group.to_owned(),
            what: error.to_string(),
        };
        let mut router = Router::new(&self.config, group).map_err(failed)?;
        for piece in pieces {
            let mut next = 0;
            for part in 0..piece.parts() {
                next = router.take(&piece, part, next).map_err(failed)?;
                for object in router.full() {
                    uploads.put(object).await?;
                }
                // A frame is a millisecond's work or more: others get their turn.
                yield_now().await;
            }
        }
        let (rest, letters) = router.finish().map_err(failed)?;
        for object in rest {
            uploads.put(object).await?;
        }
        Ok(letters)
    }
}

/// Objects that are being put; dropped with their plan.
struct Uploads {
    objects: Objects,
    claim: Arc<Claim>,
    under_way: JoinSet<Result<(), CallError>>,
}

impl Uploads {
    /// Begins to put an object; waits while too many are under way.
    async fn put(&mut self, object: Object) -> Result<(), S3Error> {
        while self.under_way.len() >= MAX_IN_FLIGHT_PUTS {
            self.one().await?;
        }
        let (objects, claim) = (self.objects.clone(), self.claim.clone());
        self.under_way
            .spawn(async move { objects.put_object(object, &claim).await });
        Ok(())
    }

    async fn one(&mut self) -> Result<(), S3Error> {
        match self.under_way.join_next().await {
            None => Ok(()),
            Some(Ok(put)) => Ok(put?),
            Some(Err(broken)) => Err(S3Error::Broken(broken.to_string())),
        }
    }

    async fn finish(mut self) -> Result<(), S3Error> {
        while !self.under_way.is_empty() {
            self.one().await?;
        }
        Ok(())
    }
}
