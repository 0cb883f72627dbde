//! Schedules that were read lately, so that firing does not read its expression again each time.

use super::parse::Condition;
use super::{ConditionType, Schedule};
use crate::error::Result;
use chrono_tz::Tz;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Beyond it everything is forgotten: reading anew is cheap, and most tenants have far fewer.
const MOST: usize = 4096;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: ConditionType,
    expression: String,
    timezone: Option<String>,
    catch_up: Option<String>,
    zone: Tz,
}

#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<Key, Arc<Schedule>>>);

impl Cache {
    /// The schedule of a condition that was checked when it was stored.
    pub(crate) fn get(&self, condition: &Condition<'_>, zone: Tz) -> Result<Arc<Schedule>> {
        let key = Key {
            kind: condition.kind,
            expression: condition.expression.to_owned(),
            timezone: condition.timezone.map(ToOwned::to_owned),
            catch_up: condition.catch_up.map(ToString::to_string),
            zone,
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(schedule) = known.get(&key) {
            return Ok(schedule.clone());
        }
        let schedule = Arc::new(Schedule::of(condition, zone)?);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, schedule.clone());
        Ok(schedule)
    }
}
