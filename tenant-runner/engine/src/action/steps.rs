//! Several actions, one after the other, in one job. What a step answered is on disk before the next begins: another attempt, or
//! one that is taken up again after a crash, goes on after the last finished step.

use super::config::{Action, Step};
use super::redact::Secrets;
use super::template::Values;
use super::{Actions, Failure, Run};
use crate::config::Settings;
use crate::error::{Kind, Result};
use crate::queue::{Claimed, Queue};
use nexaas_common::backoff::Backoff;
use std::time::Duration;

const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

impl Actions {
    /// Answers what the last step answered.
    pub(super) async fn steps(
        &self,
        steps: Vec<Step>,
        run: &Run<'_>,
        settings: &Settings,
        mut values: Values,
    ) -> Result<String, Failure> {
        let queue = self.queue()?;
        let secrets = Secrets::of(settings);
        let done = queue.steps(run.job.id).await?;
        let mut answer = String::new();
        for (step, number) in steps.into_iter().zip(0u32..) {
            // What follows an unfinished step has not been done, whatever is stored.
            let finished = done.get(number as usize).filter(|done| done.number == number && done.name == step.name);
            answer = match finished {
                Some(finished) => finished.result.clone(),
                None => {
                    let result = self.step(step.action, number, run, settings, &values).await;
                    let result = result.map_err(|failure| failure.within(&format!("step '{}'", step.name)))?;
                    let result = secrets.clean(result);
                    save(queue, run.job, number, &step.name, &result).await?;
                    result
                }
            };
            values.with_step(&step.name, &answer);
        }
        Ok(answer)
    }

    async fn step(
        &self,
        action: Action,
        number: u32,
        run: &Run<'_>,
        settings: &Settings,
        values: &Values,
    ) -> Result<String, Failure> {
        // The same for this step in every run of this attempt.
        let run = Run { job: run.job, key: format!("{}-{number}", run.key), deadline: run.deadline };
        self.bounded(action, &run, settings, values).await
    }
}

/// Stores that the step is done, again and again while the database is away: its effect must not happen twice.
async fn save(queue: &Queue, job: &Claimed, number: u32, name: &str, result: &str) -> Result<(), Failure> {
    for failures in 0.. {
        match queue.save_step(job, number, name, result).await {
            Ok(()) => break,
            // Somebody else holds the job now; what we answer is refused as well.
            Err(error) if error.kind == Kind::Conflict => return Err(error.into()),
            Err(error) => {
                tracing::error!(error = error.chain(), "a finished step could not be recorded yet");
                tokio::time::sleep(RETRY.delay(failures)).await;
            }
        }
    }
    Ok(())
}
