//! Steps, further jobs, and what holds for any action of a job.

use super::*;

fn step(name: &str, action: &str, config: Value) -> Value {
    json!({"name": name, "action_type": action, "action_config": config})
}

#[tokio::test]
async fn steps_run_one_after_the_other_and_see_what_earlier_ones_answered() {
    let bench = Bench::new().await;
    let config = json!({"steps": [
        step("count", "script", json!({"command": "printf '{\"n\": 3}'"})),
        step("tell", "skill", json!({"skill": "digest", "input": "{{steps.count.n}} for {{payload.who}}"})),
    ]});
    let job = bench.job(ActionType::Steps, config, Some(json!({"who": "Ada"}))).await;
    assert_eq!(bench.actions.run(&job).await, ok("digest|3 for Ada|-"));
    let steps = bench.rig.queue.steps(job.id).await.unwrap();
    let stored: Vec<_> = steps.iter().map(|step| (step.name.as_str(), step.result.as_str())).collect();
    assert_eq!(stored, [("count", "{\"n\": 3}"), ("tell", "digest|3 for Ada|-")]);
}

#[tokio::test]
async fn another_attempt_goes_on_after_the_last_finished_step() {
    let bench = Bench::new().await;
    let config = json!({"steps": [
        step("once", "script", json!({"command": "echo done >> once; cat once"})),
        step("picky", "script", json!({"command": "test -e ready"})),
        step("last", "skill", json!({"skill": "s", "input": "{{steps.once}}"})),
    ]});
    let new = crate::queue::NewJob { max_attempts: 2, ..crate::queue::NewJob::new(ActionType::Steps, config) };
    bench.rig.queue.enqueue(new).await.unwrap();
    let job = bench.rig.claim(1).await.remove(0);
    let outcome = bench.actions.run(&job).await;
    assert_eq!(error(outcome.clone()), "step 'picky': exit status 1");
    bench.rig.queue.finish(&job, outcome).await.unwrap();
    std::fs::write(bench._dir.path().join("ready"), "").unwrap();
    bench.rig.advance(3600);
    let again = bench.rig.claim(1).await.remove(0);
    assert_eq!(again.id, job.id);
    assert_eq!(bench.actions.run(&again).await, ok("s|done|-"), "the first step ran once");
}

#[tokio::test]
async fn a_step_that_is_taken_up_again_calls_with_the_same_key() {
    let (bench, server) = (Bench::new().await, answering(500, "").await);
    let config = json!({"steps": [
        step("first", "script", json!({"command": "true"})),
        step("call", "webhook", json!({"url": server.uri()})),
    ]});
    let job = bench.job(ActionType::Steps, config, None).await;
    for _ in 0..2 {
        assert_eq!(error(bench.actions.run(&job).await), "step 'call': HTTP 500");
    }
    let calls = server.received_requests().await.unwrap();
    let keys: Vec<_> = calls.iter().map(|call| call.headers["idempotency-key"].to_str().unwrap()).collect();
    let expected = format!("{}-1", job.attempt_id);
    assert_eq!(keys, [&expected, &expected]);
}

#[tokio::test]
async fn a_cancelled_job_begins_no_further_step() {
    let bench = Bench::new().await;
    let config = json!({"steps": [
        step("first", "script", json!({"command": "touch begun; sleep 1000"})),
        step("second", "skill", json!({"skill": "s"})),
    ]});
    let job = bench.job(ActionType::Steps, config, None).await;
    let begun = bench._dir.path().join("begun");
    let cancel = async {
        while !begun.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        job.cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(bench.actions.run(&job), cancel);
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(bench.rig.queue.steps(job.id).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_job_is_enqueued_once_for_an_attempt_and_one_deeper() {
    let bench = Bench::new().await;
    let spec =
        json!({"action_type": "agent_chat", "action_config": {"agent": "a", "prompt": "{{payload.q}}"}, "priority": 1});
    let job = bench.job(ActionType::JobEnqueue, spec, Some(json!({"q": "why?"}))).await;
    let mut ids = Vec::new();
    for existed in [false, true] {
        let Outcome::Succeeded(answer) = bench.actions.run(&job).await else { panic!("not enqueued") };
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["existed"], existed);
        ids.push(answer["job_id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    let queued = bench.rig.claim(10).await;
    assert_eq!(queued.len(), 1);
    assert_eq!((queued[0].depth, &queued[0].action_config["prompt"]), (job.depth + 1, &json!("why?")));
    // Also when it has ended meanwhile.
    bench.rig.queue.finish(&queued[0], ok("")).await.unwrap();
    assert!(matches!(bench.actions.run(&job).await, Outcome::Succeeded(answer) if answer.contains("true")));
    assert!(bench.rig.claim(10).await.is_empty());
}

#[tokio::test]
async fn a_spec_that_its_templates_spoil_is_refused_with_the_field() {
    let bench = Bench::new().await;
    let spec = json!({"action_type": "script", "action_config": {"command": "true"}, "priority": "{{payload.q}}"});
    let job = bench.job(ActionType::JobEnqueue, spec, Some(json!({"q": "high"}))).await;
    let outcome = bench.actions.run(&job).await;
    assert!(is_permanent(&outcome), "{outcome:?}");
    assert!(error(outcome).starts_with("action_config.priority must"));
}

#[tokio::test]
async fn a_job_that_leads_to_itself_ends_at_a_depth() {
    let bench = Bench::new().await;
    let mut job = bench
        .job(ActionType::JobEnqueue, json!({"action_type": "script", "action_config": {"command": "true"}}), None)
        .await;
    job.depth = 32;
    let outcome = bench.actions.run(&job).await;
    assert!(is_permanent(&outcome), "{outcome:?}");
    assert!(error(outcome).contains("depth"));
}

#[tokio::test]
async fn the_jobs_own_time_ends_any_action() {
    let bench = Bench::new().await;
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", deaf.local_addr().unwrap());
    for (action, config) in [
        (ActionType::Script, json!({"command": "sleep 1000"})),
        (ActionType::Webhook, json!({"url": url})),
        (ActionType::AgentChat, json!({"agent": "a", "prompt": "hang"})),
        (ActionType::Steps, json!({"steps": [step("a", "script", json!({"command": "sleep 1000"}))]})),
    ] {
        let timeout = Some(std::time::Duration::from_secs(1));
        let new = crate::queue::NewJob { timeout, ..crate::queue::NewJob::new(action, config) };
        bench.rig.queue.enqueue(new).await.unwrap();
        let job = bench.rig.claim(1).await.remove(0);
        let said = error(bench.actions.run(&job).await);
        assert!(said.contains("ended by force after"), "{action:?}: {said}");
    }
}
