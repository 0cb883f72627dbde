use super::*;
use crate::model::{Message, Origin};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (reqwest::header::HeaderName::from_static(n), v.parse().unwrap())).collect()
}

fn call(system: &str) -> Call {
    Call {
        model: "claude-sonnet-4-5".into(),
        system: system.into(),
        messages: vec![Message::user("Hello")],
        max_tokens: 100,
        origin: Origin::default(),
    }
}

#[test]
fn what_may_pass_by_itself_is_retried_and_what_will_not_is_not() {
    for status in [408, 409, 500, 502, 503, 529] {
        assert!(should_retry(status, &headers(&[])), "{status}");
        assert!(!should_retry(status, &headers(&[("x-should-retry", "false")])), "{status}");
    }
    for status in [400, 401, 403, 404, 413, 422] {
        assert!(!should_retry(status, &headers(&[])), "{status}");
    }
    assert!(should_retry(400, &headers(&[("x-should-retry", "true")])));
}

#[test]
fn a_429_without_a_time_to_come_back_is_a_spend_limit() {
    assert!(!should_retry(429, &headers(&[])));
    assert!(should_retry(429, &headers(&[("retry-after", "3")])));
}

#[test]
fn milliseconds_come_before_seconds_and_nonsense_is_ignored() {
    assert_eq!(
        retry_after(&headers(&[("retry-after-ms", "250"), ("retry-after", "9")])),
        Some(Duration::from_millis(250))
    );
    assert_eq!(retry_after(&headers(&[("retry-after", "1.5")])), Some(Duration::from_millis(1500)));
    for nonsense in ["soon", "-1", "nan", "inf", "1e300"] {
        assert_eq!(retry_after(&headers(&[("retry-after", nonsense)])), None, "{nonsense}");
    }
}

#[test]
fn counts_in_the_stream_replace_each_other() {
    let mut answer = Answer::new(&call(""));
    answer.take(r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":1}}}"#);
    answer.take(r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":7}}"#);
    answer.take(r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"input_tokens":11,"output_tokens":9}}"#);
    let usage = TokenUsage { input_tokens: 11, output_tokens: 9, cache_read_tokens: 5, cache_creation_tokens: 0 };
    assert_eq!((answer.completion.usage, answer.completion.stop), (usage, Stop::MaxTokens));
}

#[test]
fn events_of_unknown_types_and_no_json_are_skipped() {
    let mut answer = Answer::new(&call(""));
    for data in [
        r#"{"type":"ping"}"#,
        r#"{"type":"hologram","delta":{"type":"text_delta","text":"no"}}"#,
        r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"hm"}}"#,
        "not json",
        "[]",
        "",
    ] {
        assert!(matches!(answer.take(data), Step::Nothing), "{data}");
    }
    assert!(answer.completion.text.is_empty());
}

#[test]
fn long_instructions_are_marked_for_the_cache_and_short_ones_are_not() {
    assert!(body(&call("Be brief."))["system"][0].get("cache_control").is_none());
    assert_eq!(body(&call(&"word ".repeat(2_000)))["system"][0]["cache_control"]["type"], "ephemeral");
    assert!(body(&call("")).get("system").is_none());
}

#[test]
fn a_base_url_with_a_path_keeps_it() {
    let url = |text: &str| endpoint(&text.parse().unwrap()).to_string();
    assert_eq!(url("https://api.anthropic.com"), "https://api.anthropic.com/v1/messages");
    assert_eq!(url("http://127.0.0.1:1/gateway/"), "http://127.0.0.1:1/gateway/v1/messages");
}
