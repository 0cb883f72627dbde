//! Properties of the queue's pure parts, and of what a job keeps on its way through the database.

use crate::error::Kind;
use crate::queue::{NewJob, Retry, retry_delay};
use crate::testing::Rig;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// JSON as somebody might send it along.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,6}", inner), 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Fields of a job spec, each there or not.
fn specs() -> impl Strategy<Value = Map<String, Value>> {
    let field = |name: &'static str, value: BoxedStrategy<Value>| {
        prop::option::of(value).prop_map(move |value| value.map(|value| (name.to_owned(), value)))
    };
    let fields = vec![
        field("payload", json_value().prop_filter("null is nothing", |value| !value.is_null()).boxed()),
        field("description", "[a-zäß ]{0,20}x".prop_map(Value::from).boxed()),
        field("agent", "[a-z]{1,20}".prop_map(Value::from).boxed()),
        field("priority", (-1000i64..=1000).prop_map(Value::from).boxed()),
        field("max_retries", (0u64..=100).prop_map(Value::from).boxed()),
        field("retry_delays_s", prop::collection::vec(0u64..100_000, 1..5).prop_map(Value::from).boxed()),
        field("timeout_s", (1u64..80_000).prop_map(Value::from).boxed()),
        field("concurrency_key", "[a-z]{1,8}".prop_map(Value::from).boxed()),
        field("unique_key", "[a-z]{1,8}".prop_map(Value::from).boxed()),
    ];
    fields.prop_map(|fields| {
        let mut spec: Map<String, Value> = fields.into_iter().flatten().collect();
        spec.insert("action_type".into(), json!("script"));
        spec.insert("action_config".into(), json!({"command": "true"}));
        spec
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn waits_grow_to_a_day_and_are_lengthened_by_at_most_a_fifth(base_ms in 0u64..200_000_000, attempt in 1u32..40, spread: u8) {
        let base = Duration::from_millis(base_ms);
        let plain = retry_delay(base, attempt);
        prop_assert!(plain <= DAY && plain >= base.min(DAY));
        prop_assert!(retry_delay(base, attempt + 1) >= plain);
        let wait = Retry::Exponential { base }.delay(attempt, spread);
        let most = plain.mul_f64(1.2).min(DAY) + Duration::from_nanos(1);
        prop_assert!(wait >= plain && wait <= most, "{wait:?} for {plain:?}");
    }

    #[test]
    fn listed_waits_are_kept_and_the_last_serves_for_the_rest(
        waits in prop::collection::vec(0u64..1_000_000, 1..6), attempt in 1u32..300, spread: u8,
    ) {
        let listed = Retry::Listed(waits.iter().map(|s| Duration::from_secs(*s)).collect());
        let wanted = waits.get(attempt as usize - 1).or(waits.last()).copied().unwrap();
        prop_assert_eq!(listed.delay(attempt, spread), Duration::from_secs(wanted));
    }

    #[test]
    fn a_spec_is_read_as_it_was_meant(spec in specs()) {
        let now = crate::testing::utc("2026-01-01T00:00:00Z");
        let job = NewJob::from_json(&Value::Object(spec.clone()), now).unwrap();
        prop_assert_eq!(job.payload.as_ref(), spec.get("payload"));
        prop_assert_eq!(job.agent.as_deref(), spec.get("agent").and_then(Value::as_str));
        prop_assert_eq!(i64::from(job.priority), spec.get("priority").map_or(5, |v| v.as_i64().unwrap()));
        prop_assert_eq!(u64::from(job.max_attempts), 1 + spec.get("max_retries").map_or(0, |v| v.as_u64().unwrap()));
        prop_assert_eq!(job.timeout.map(|t| t.as_secs()), spec.get("timeout_s").and_then(Value::as_u64));
    }

    #[test]
    fn a_field_that_nobody_knows_is_named(spec in specs(), name in "[a-z]{1,10}_x") {
        let mut spec = spec;
        spec.insert(name.clone(), json!(1));
        let refused = NewJob::from_json(&Value::Object(spec), crate::testing::utc("2026-01-01T00:00:00Z")).unwrap_err();
        prop_assert_eq!(refused.kind, Kind::Invalid { field: name });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_job_comes_out_of_the_database_as_it_went_in(specs in prop::collection::vec(specs(), 1..4)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let rig = Rig::new().await;
            let mut accepted = std::collections::BTreeMap::new();
            for mut spec in specs {
                // One at a time may run of a key, and one may stand for a unique key.
                spec.remove("concurrency_key");
                spec.remove("unique_key");
                let job = NewJob::from_json(&Value::Object(spec), rig.now()).unwrap();
                accepted.insert(rig.queue.enqueue(job.clone()).await.unwrap(), job);
            }
            for claimed in rig.claim(10).await {
                let job = accepted.remove(&claimed.id).unwrap();
                assert_eq!((claimed.payload, claimed.action_config), (job.payload, job.action_config));
                assert_eq!((claimed.agent, claimed.timeout, claimed.max_attempts), (job.agent, job.timeout, job.max_attempts));
            }
            assert!(accepted.is_empty());
        });
    }
}
