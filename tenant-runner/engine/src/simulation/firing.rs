//! When a schedule is to have a job, and what that means for the jobs it has already: slots, triggers, facts on the bus.

use super::model::{Model, NewRow, Schedule};
use super::oracle::Rule;
use super::picture::Picture;
use super::sim::Sim;
use crate::bus::BusEvent;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// The facts that a schedule waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub kinds: &'static [&'static str],
    /// A member of the fact's data, and what it may be.
    pub member: Option<(&'static str, Vec<Value>)>,
}

impl Wanted {
    pub fn condition(&self) -> Value {
        let mut condition = json!({"on": self.kinds});
        if let Some((name, values)) = &self.member {
            let value = if let [value] = values.as_slice() { value.clone() } else { json!(values) };
            condition["match"] = json!({(*name): value});
        }
        condition
    }

    fn fits(&self, fact: &BusEvent) -> bool {
        let kind = |wanted: &&str| match wanted.strip_suffix(".*") {
            Some(family) => fact.kind.split('.').next() == Some(family),
            None => fact.kind == *wanted,
        };
        self.kinds.iter().any(kind)
            && self.member.as_ref().is_none_or(|(name, values)| values.contains(&fact.data[*name]))
    }

    fn names(&self, id: &str) -> bool {
        self.member.as_ref().is_some_and(|(name, values)| *name == "event_id" && values.contains(&json!(id)))
    }
}

/// What a schedule is to have a job for. Without anything, somebody asked for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Occasion {
    pub slot: Option<DateTime<Utc>>,
    /// By its number on the bus.
    pub fact: Option<u64>,
    /// How many jobs led to it.
    pub depth: u32,
}

impl Schedule {
    /// The facts it waits for now.
    pub fn wanted(&self) -> Option<&Wanted> {
        match &self.plan.rule {
            Rule::Fact(wanted) if self.status == "active" => Some(wanted),
            _ => None,
        }
    }

    /// Whether it is to answer `fact`, which comes of the schedule `origin`, if of any.
    fn answers(&self, fact: &BusEvent, origin: Option<&Schedule>, now: DateTime<Utc>) -> bool {
        let Some(wanted) = self.wanted() else { return false };
        let others = origin.is_none_or(|origin| {
            let waits = matches!(origin.plan.rule, Rule::Fact(_));
            origin.plan.id != self.plan.id && (!waits || wanted.names(origin.plan.id))
        });
        let begun = self.plan.starts.is_none_or(|at| at <= now);
        others && wanted.fits(fact) && self.watch_from < fact.seq && begun && !self.is_past(now)
    }
}

impl Sim {
    /// False, if an earlier job lives and the schedule leaves out what comes meanwhile.
    pub(super) fn fire(
        &self,
        model: &mut Model,
        id: &'static str,
        occasion: Occasion,
        after: &Picture,
        now: DateTime<Utc>,
    ) -> bool {
        let plan = model.schedules[id].plan.clone();
        match plan.overlap {
            "skip" if model.lives(id) => return false,
            "cancel_previous" => model.cancel_all(id),
            _ => {}
        }
        self.come(model, NewRow::of_plan(&plan, occasion, now), after, now);
        true
    }

    /// A look at what is due.
    pub(super) fn tick(&self, model: &mut Model, after: &Picture, now: DateTime<Utc>) {
        for (id, slot) in model.tick(now) {
            let came = self.fire(model, id, Occasion { slot: Some(slot), ..Occasion::default() }, after, now);
            model.schedules.get_mut(id).unwrap().filled.insert(slot, came);
            if !came {
                model.skipped.push((id, Some(slot)));
            }
        }
    }

    /// A look at what was told up to `until`. What was looked at once is not looked at again.
    pub(super) fn follow(&self, model: &mut Model, until: u64, after: &Picture, now: DateTime<Utc>) {
        let from = self.told.partition_point(|fact| fact.seq <= model.looked);
        for fact in self.told[from..].iter().take_while(|fact| fact.seq <= until) {
            let origin = fact.data["event_id"].as_str().or_else(|| fact.source.strip_prefix("event:"));
            let origin = origin.and_then(|id| model.schedules.get(id));
            let ids: Vec<_> =
                model.schedules.values().filter(|s| s.answers(fact, origin, now)).map(|s| s.plan.id).collect();
            let cause = fact.data["job_id"].as_str();
            let cause = cause.and_then(|id| self.before.jobs.values().find(|job| job.id.to_string() == id));
            let occasion = Occasion { slot: None, fact: Some(fact.seq), depth: cause.map_or(0, |job| job.depth + 1) };
            for id in ids {
                let came = self.fire(model, id, occasion, after, now);
                model.answers.insert((fact.seq, id), came);
                if !came {
                    model.skipped.push((id, None));
                }
            }
        }
        model.looked = model.looked.max(until);
    }
}
