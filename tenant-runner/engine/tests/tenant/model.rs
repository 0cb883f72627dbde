use crate::support::{WRITER, World, collect, text};
use nexaas_engine::Kind;
use nexaas_engine::chat::ChatEventKind;
use nexaas_engine::usage::UsageFilter;
use serde_json::{Value, json};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

pub fn sse(events: &[Value]) -> ResponseTemplate {
    let body: String =
        events.iter().map(|e| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap())).collect();
    ResponseTemplate::new(200).set_body_raw(body, "text/event-stream")
}

fn start() -> Value {
    json!({"type":"message_start","message":{"model":"claude-sonnet-4-5-20250929","usage":{"input_tokens":1000,"output_tokens":1,"cache_read_input_tokens":0,"cache_creation_input_tokens":0}}})
}

fn delta(text: &str) -> Value {
    json!({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":text}})
}

fn end(reason: &str) -> [Value; 2] {
    [
        json!({"type":"message_delta","delta":{"stop_reason":reason},"usage":{"output_tokens":100}}),
        json!({"type":"message_stop"}),
    ]
}

pub fn answer(pieces: &[&str]) -> ResponseTemplate {
    let mut events = vec![
        start(),
        json!({"type":"ping"}),
        json!({"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}),
    ];
    events.extend(pieces.iter().map(|p| delta(p)));
    events.extend(end("end_turn"));
    sse(&events)
}

pub async fn world(server: &MockServer, files: &[(&str, &str)]) -> World {
    let url = server.uri().parse().unwrap();
    let world = World::with(files, |c| c.anthropic_base_url = url).await;
    world.with_key();
    world
}

#[tokio::test]
async fn an_agents_prompt_its_context_and_a_reference_it_was_asked_for_reach_the_model() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/messages"))
        .and(header("x-api-key", "sk-canary-key"))
        .and(header("anthropic-version", "2023-06-01"))
        .respond_with(answer(&["Anvils ", "are heavy."]))
        .expect(2)
        .mount(&server)
        .await;
    let world = world(&server, WRITER).await;
    let events =
        collect(world.engine.chat().send("writer", "Praise our anvils, see style.md", None).await.unwrap()).await;
    assert_eq!(text(&events), "Anvils are heavy.");
    assert_eq!(events.last().unwrap().kind, ChatEventKind::Done);
    let run = world.engine.skills().execute("weekly report", "the first week of May", Some("writer")).await.unwrap();
    assert_eq!((run.skill.as_str(), run.result.as_str()), ("Weekly report", "Anvils are heavy."));

    let requests = server.received_requests().await.unwrap();
    let body = |n: usize| requests[n].body_json::<Value>().unwrap();
    let system = body(0)["system"][0]["text"].as_str().unwrap().to_owned();
    for part in [
        "Rules of the framework.",
        "makers of anvils",
        "Copywriter",
        "Write short sentences.",
        "Never use exclamation marks.",
    ] {
        assert!(system.contains(part), "{part} is missing in {system}");
    }
    assert_eq!(body(0)["stream"], true);
    let message = body(1)["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(
        message.contains("Sum up the week in three lines.") && message.contains("the first week of May"),
        "{message}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_call_is_counted_once_and_costs_what_the_list_says() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer(&["Yes."])).mount(&server).await;
    let world = world(&server, WRITER).await;
    collect(world.engine.chat().send("writer", "Hello", None).await.unwrap()).await;
    let report = world.engine.usage().report(UsageFilter::default()).await.unwrap();
    assert_eq!((report.total_calls, report.total_input_tokens, report.total_output_tokens), (1, 1000, 100));
    assert_eq!(report.total_cost_usd, 0.0045);
    assert_eq!(report.by_agent[0].key, "writer");
    assert_eq!(report.by_source[0].key, "chat");
    assert_eq!(report.by_model[0].key, "claude-sonnet-4-5-20250929");
    let other = UsageFilter { agent: Some("nobody".into()), ..UsageFilter::default() };
    assert_eq!(world.engine.usage().report(other).await.unwrap().total_calls, 0);
    let later = UsageFilter { since: Some("2026-05-05".into()), ..UsageFilter::default() };
    assert_eq!(world.engine.usage().report(later).await.unwrap().total_calls, 0);
    let day =
        UsageFilter { since: Some("2026-05-04".into()), until: Some("2026-05-04".into()), ..UsageFilter::default() };
    assert_eq!(world.engine.usage().report(day).await.unwrap().total_calls, 1);
    world.stop().await;
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again_when_it_says() {
    let server = MockServer::start().await;
    let busy = ResponseTemplate::new(529)
        .insert_header("retry-after-ms", "1")
        .set_body_json(json!({"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}));
    Mock::given(method("POST")).respond_with(busy).up_to_n_times(2).with_priority(1).expect(2).mount(&server).await;
    Mock::given(method("POST")).respond_with(answer(&["Here."])).expect(1).mount(&server).await;
    let world = world(&server, WRITER).await;
    let events = collect(world.engine.chat().send("writer", "Hello", None).await.unwrap()).await;
    assert_eq!(text(&events), "Here.");
    world.stop().await;
}

#[tokio::test]
async fn a_refusal_is_final_and_names_its_reason() {
    let server = MockServer::start().await;
    let refused = ResponseTemplate::new(401)
        .set_body_json(json!({"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}));
    Mock::given(method("POST")).respond_with(refused).expect(1).mount(&server).await;
    let world = world(&server, WRITER).await;
    let events = collect(world.engine.chat().send("writer", "Hello", None).await.unwrap()).await;
    let last = events.last().unwrap();
    assert_eq!(last.kind, ChatEventKind::Error);
    assert!(last.content.contains("refuses the API key") && last.content.contains("invalid x-api-key"), "{last:?}");
    assert!(!last.content.contains("canary"));
    world.stop().await;
}

#[tokio::test]
async fn an_error_after_the_answer_began_is_not_retried_and_its_tokens_are_counted() {
    let server = MockServer::start().await;
    let failing = json!({"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}});
    Mock::given(method("POST"))
        .respond_with(sse(&[start(), delta("Half an "), failing]))
        .expect(1)
        .mount(&server)
        .await;
    let world = world(&server, WRITER).await;
    let events = collect(world.engine.chat().send("writer", "Hello", None).await.unwrap()).await;
    assert_eq!(text(&events), "Half an ");
    assert_eq!(events.last().unwrap().kind, ChatEventKind::Error);
    let session = world.engine.chat().session(&events[0].session_id).await.unwrap();
    assert_eq!(session.messages.last().unwrap().content, "Half an ");
    let report = world.engine.usage().report(UsageFilter::default()).await.unwrap();
    assert_eq!((report.total_calls, report.total_input_tokens), (1, 1000));
    world.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_one_cut_at_its_limit_says_so() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(sse(&[start(), delta("Once upon")]))
        .up_to_n_times(1)
        .with_priority(1)
        .mount(&server)
        .await;
    let mut cut = vec![start(), delta("A very long")];
    cut.extend(end("max_tokens"));
    Mock::given(method("POST")).respond_with(sse(&cut)).mount(&server).await;
    let world = world(&server, WRITER).await;
    let broken = collect(world.engine.chat().send("writer", "Tell a story", None).await.unwrap()).await;
    assert!(broken.last().unwrap().content.contains("ended early"), "{broken:?}");
    let limited = collect(world.engine.chat().send("writer", "Tell a story", None).await.unwrap()).await;
    assert!(text(&limited).contains("token limit"), "{limited:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_budget_refuses_the_call_that_could_exceed_it_before_it_is_made() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer(&["Yes."])).expect(0).mount(&server).await;
    let mut files = WRITER.to_vec();
    files[0] = ("workspace/workspace.yaml", "name: Acme\nbudget: {monthly_usd: 0.01}\n");
    let world = world(&server, &files).await;
    let error = world.engine.skills().execute("report", "", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Forbidden);
    assert!(error.public().contains("budget of 0.01 USD"), "{error}");
    world.stop().await;
}

#[tokio::test]
async fn without_a_key_the_answer_says_so_and_shows_what_would_be_sent() {
    let world = World::new(WRITER).await;
    assert!(world.engine.gateway().is_offline());
    let events = collect(world.engine.chat().send("writer", "Praise our anvils", None).await.unwrap()).await;
    let shown = text(&events);
    for part in ["no model was asked", "claude-sonnet-4-5", "tokens", "Praise our anvils", "Rules of the framework."] {
        assert!(shown.contains(part), "{part} is missing in {shown}");
    }
    let report = world.engine.usage().report(UsageFilter::default()).await.unwrap();
    assert_eq!((report.total_calls, report.total_input_tokens, report.total_cost_usd), (1, 0, 0.0));
    world.stop().await;
}

#[tokio::test]
async fn an_unknown_skill_or_agent_does_not_exist() {
    let world = World::new(WRITER).await;
    assert_eq!(world.engine.skills().execute("ghost", "", None).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(world.engine.skills().execute("report", "", Some("ghost")).await.unwrap_err().kind, Kind::NotFound);
    world.stop().await;
}

#[tokio::test]
async fn a_call_that_a_crash_cut_short_is_counted_as_sent_and_frees_its_reservation() {
    let world = World::new(WRITER).await;
    world
        .engine
        .store()
        .write(|tx| {
            tx.execute(
                "INSERT INTO usage_reservations (id, boot_id, at, agent, source, model, input_tokens, cost_nano_usd)
                 VALUES ('r', 'another', 1777888800000000, 'writer', 'chat', 'claude-sonnet-4-5', 1000, 99000000)",
                [],
            )?;
            Ok(())
        })
        .await
        .unwrap();
    let world = world.restarted(|_| {}).await;
    let report = world.engine.usage().report(UsageFilter::default()).await.unwrap();
    assert_eq!((report.total_calls, report.total_input_tokens, report.total_cost_usd), (1, 1000, 0.003));
    let left = world
        .engine
        .store()
        .read(|c| Ok(c.query_row("SELECT count(*) FROM usage_reservations", [], |r| r.get::<_, i64>(0))?));
    assert_eq!(left.await.unwrap(), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_budget_lets_calls_through_until_it_is_spent() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer(&["Yes."])).expect(2).mount(&server).await;
    let mut files = WRITER.to_vec();
    // A call may cost 0.0619 at worst (4096 tokens of output), and costs 0.0045.
    files[0] = ("workspace/workspace.yaml", "name: Acme\nbudget: {monthly_usd: 0.07}\n");
    let world = world(&server, &files).await;
    for _ in 0..2 {
        world.engine.skills().execute("report", "", None).await.unwrap();
    }
    assert_eq!(world.engine.skills().execute("report", "", None).await.unwrap_err().kind, Kind::Forbidden);
    let report = world.engine.usage().report(UsageFilter::default()).await.unwrap();
    assert_eq!((report.total_calls, report.total_cost_usd), (2, 0.009));
    world.stop().await;
}

#[tokio::test]
async fn old_usage_passes_away() {
    let world = World::new(WRITER).await;
    world.engine.skills().execute("report", "", None).await.unwrap();
    world.clock.advance(chrono::Duration::days(399));
    world.engine.skills().execute("report", "", None).await.unwrap();
    crate::support::keep(&world, nexaas_engine::usage::KEEP).await;
    assert_eq!(world.engine.usage().report(UsageFilter::default()).await.unwrap().total_calls, 2);
    world.clock.advance(chrono::Duration::days(2));
    crate::support::keep(&world, nexaas_engine::usage::KEEP).await;
    assert_eq!(world.engine.usage().report(UsageFilter::default()).await.unwrap().total_calls, 1);
    world.stop().await;
}
