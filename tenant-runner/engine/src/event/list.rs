//! Listing events, the next due first.

use super::{Event, EventStatus, Events};
use crate::error::Result;
use rusqlite::{Connection, ToSql};

/// Most rows of one answer.
const MOST_LISTED: u32 = 1000;

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub status: Option<String>,
    pub kind: Option<String>,
    pub agent: Option<String>,
    /// 100, if none.
    pub limit: Option<u32>,
}

impl Events {
    /// Those that are planned come first, by their time; then the others, by status and id.
    pub async fn list(&self, filter: EventFilter) -> Result<Vec<Event>> {
        let status = filter.status.as_deref().map(str::parse::<EventStatus>).transpose()?;
        let limit = filter.limit.unwrap_or(100).clamp(1, MOST_LISTED) as usize;
        self.store
            .read(move |c| {
                let mut found = Vec::new();
                if status.is_none_or(|status| status == EventStatus::Active) {
                    found = part(c, Part::Planned, &filter, None, limit)?;
                }
                if found.len() < limit {
                    let rest = limit - found.len();
                    found.extend(part(c, Part::Idle, &filter, status, rest)?);
                }
                Ok(found)
            })
            .await
    }
}

/// Each in the order of an index of its own.
#[derive(Debug, Clone, Copy)]
enum Part {
    Planned,
    Idle,
}

fn part(
    connection: &Connection,
    part: Part,
    filter: &EventFilter,
    status: Option<EventStatus>,
    limit: usize,
) -> Result<Vec<Event>> {
    let status = status.map(EventStatus::as_str);
    let mut values: Vec<&dyn ToSql> = vec![&limit];
    let sql = sql(part, status.as_ref(), filter, &mut values);
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(values.as_slice(), Event::from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn sql<'a>(part: Part, status: Option<&'a &str>, filter: &'a EventFilter, values: &mut Vec<&'a dyn ToSql>) -> String {
    let (mut wanted, order) = match part {
        Part::Planned => ("next_eval_at IS NOT NULL".to_owned(), "next_eval_at, id"),
        Part::Idle => ("next_eval_at IS NULL".to_owned(), "status, id"),
    };
    let mut and = |column: &str, value: &'a dyn ToSql| {
        values.push(value);
        wanted.push_str(&format!(" AND {column} = ?{}", values.len()));
    };
    if let Some(status) = status {
        and("status", status);
    }
    if let Some(kind) = &filter.kind {
        and("type", kind);
    }
    if let Some(agent) = &filter.agent {
        and("agent", agent);
    }
    format!("SELECT {} FROM events WHERE {wanted} ORDER BY {order} LIMIT ?1", Event::COLUMNS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rig;

    async fn plan(rig: &Rig, part: Part, status: Option<EventStatus>, filter: EventFilter) -> String {
        rig.store
            .read(move |c| {
                let status = status.map(EventStatus::as_str);
                let mut values: Vec<&dyn ToSql> = vec![&100];
                let sql = sql(part, status.as_ref(), &filter, &mut values);
                let mut statement = c.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let rows = statement.query_map(values.as_slice(), |row| row.get::<_, String>(3))?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.join("; "))
            })
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_list_is_read_in_the_order_of_an_index() {
        let rig = Rig::new().await;
        let all = EventFilter::default;
        for (part, status, index) in [
            (Part::Planned, None, "events_due"),
            (Part::Idle, None, "events_idle"),
            (Part::Idle, Some(EventStatus::Paused), "events_idle"),
        ] {
            let plan = plan(&rig, part, status, all()).await;
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{part:?}: {plan}");
        }
        let of_agent = EventFilter { agent: Some("ada".into()), ..all() };
        let plan = plan(&rig, Part::Planned, None, of_agent).await;
        assert!(plan.contains("events_by_agent"), "{plan}");
    }
}
