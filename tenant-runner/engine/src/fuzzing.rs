//! What the fuzz targets call: one function per kind of input that comes from outside. They are built for tests and for the
//! fuzzers only (`scripts/fuzz.sh`), and run over the corpus and a few thousand mutations of it in every test run.
//!
//! Always true here: no input panics; what is accepted keeps the promise that is checked after it.

#![expect(clippy::unwrap_used, reason = "a broken promise is to end the fuzzer")]

use crate::bus::BusEvent;
use crate::hooks::{self, Keys, signature as signatures};
use crate::queue::{NewJob, Retry};
use crate::schedule::{CatchUp, Condition, ConditionType, MOST_CAUGHT_UP, Rule, Schedule};
use crate::standard_webhooks;
use crate::workspace::REDACTED;
use crate::workspace::files::Root;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Duration, Utc};
use chrono_tz::Tz;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};

/// The files of a workspace that are read, as the first line of an input names them.
const FILES: &[&str] = &[
    "workspace.yaml",
    "memory/followups.yaml",
    "memory/checks.yaml",
    "agents/some/config.yaml",
    "skills/some.md",
    "registries/some.yaml",
    "mcp-servers/some.yaml",
    ".mcp.json",
];
const ZONES: &[Tz] = &[Tz::UTC, Tz::Europe__Berlin, Tz::America__New_York, Tz::Australia__Lord_Howe, Tz::Pacific__Apia];

/// The first line, and what follows it.
fn head(data: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(data).ok()?.split_once('\n')
}

fn pick<'a, T>(from: &'a [T], name: &str) -> &'a T {
    &from[name.bytes().map(usize::from).sum::<usize>() % from.len()]
}

/// A file of the workspace: whatever it says, the rest of the workspace is served, and each problem names the file.
pub fn yaml(data: &[u8]) {
    let Some((name, text)) = head(data) else { return };
    let path = FILES.iter().find(|file| **file == name).unwrap_or_else(|| pick(FILES, name));
    let sound = ("registries/sound.yaml".to_owned(), "name: sound\nfields: []\n".to_owned());
    let root = Root::remembered(BTreeMap::from([((*path).to_owned(), text.to_owned()), sound]));
    let (snapshot, problems) = crate::workspace::tried(&root, *pick(ZONES, name));
    assert!(snapshot.registries.contains_key("sound"), "a broken file took another with it");
    for problem in problems {
        assert!(!problem.reason.is_empty() && !problem.file.is_empty());
        // A lone carriage return ends a line, too.
        let lines = text.matches(['\n', '\r']).count() + 1;
        assert!(problem.line as usize <= lines + 1, "{problem:?} names a line that is not there");
    }
    // What is shown of a workspace can be sent.
    serde_json::to_string(&snapshot.layout.raw).unwrap();
    // Memory becomes events; what is refused there is refused with its field.
    for event in snapshot.memory {
        assert!(event.json.is_object());
    }
}

/// The condition of a schedule: what is accepted has slots that lie strictly one after the other, and catching up is bounded.
pub fn cron(data: &[u8]) {
    let Some((kind, text)) = head(data) else { return };
    let kinds = [ConditionType::Cron, ConditionType::Interval, ConditionType::Once, ConditionType::Bus];
    let condition = kind.parse().unwrap_or(*pick(&kinds, kind));
    let zone = *pick(ZONES, text);
    let now = moment(1_767_225_600);
    let _ = Condition { kind: condition, expression: text, timezone: None, catch_up: None }.uses_default_zone();
    let Ok(schedule) = Schedule::parse(condition, text, zone, now) else { return };
    let Some(first) = schedule.first(now, None) else { return };
    let mut last = first;
    for _ in 0..3 {
        let Some(next) = schedule.next_after(last) else { break };
        assert!(next > last, "{text:?}: {next} does not follow {last}");
        last = next;
    }
    let most = match schedule.catch_up {
        CatchUp::Skip | CatchUp::Latest => 1,
        CatchUp::All { max } => max.min(MOST_CAUGHT_UP),
    } as usize;
    let later = first.checked_add_signed(Duration::days(3)).unwrap_or(first);
    let due = schedule.due(first, later);
    assert!(due.slots.len() <= most && due.slots.is_sorted() && due.slots.iter().all(|slot| *slot <= later));
    assert!(due.next.is_none_or(|next| next > later));
}

/// A template: a text without placeholders passes unchanged, and a value that is filled in is not read as a template again.
pub fn template(data: &[u8]) {
    let Some((payload, template)) = head(data) else { return };
    let payload: Value = serde_json::from_str(payload).unwrap_or_else(|_| payload.into());
    let template: Value = serde_json::from_str(template).unwrap_or_else(|_| template.into());
    let (valid, filled) = crate::action::template::tried(&template, payload);
    if let Value::String(text) = &template
        && !text.contains("{{")
    {
        assert!(valid && filled == template);
    }
    serde_json::to_string(&filled).unwrap();
}

/// A job spec: what is accepted passes the check that everything stored must pass, and so does what is to follow it.
pub fn job(data: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<Value>(data) else { return };
    match NewJob::from_json(&spec, moment(1_767_225_600)) {
        Ok(job) => {
            job.check().unwrap();
            assert!((1..=101).contains(&job.max_attempts));
            assert!((-1000..=1000).contains(&job.priority));
            for follower in job.chain.then.iter().chain(&job.chain.on_failure) {
                NewJob::from_json(follower, moment(0)).unwrap();
            }
            if let Retry::Listed(waits) = &job.retry {
                assert!(!waits.is_empty());
            }
            for attempt in [1, 2, job.max_attempts, u32::MAX] {
                let _ = job.retry.delay(attempt, 255);
            }
        }
        Err(refused) => assert!(refused.field().is_some_and(|field| !field.is_empty()), "{refused}"),
    }
}

/// A condition on facts, and a fact: the answer does not depend on the order of the fact's members.
pub fn facts(data: &[u8]) {
    let Some((fact, rule)) = head(data) else { return };
    let Ok(schedule) = Schedule::parse(ConditionType::Bus, rule, Tz::UTC, moment(0)) else { return };
    let Rule::OnFact(rule) = schedule.rule else { return };
    let (kind, data) = fact.split_once(' ').unwrap_or((fact, "{}"));
    let data: Value = serde_json::from_str(data).unwrap_or(Value::Null);
    let mut fact = BusEvent { seq: 1, kind: kind.into(), source: "queue".into(), data, created_at: moment(0) };
    let answer = rule.matches(&fact);
    if let Value::Object(map) = fact.data {
        fact.data = Value::Object(map.into_iter().rev().collect());
        assert_eq!(rule.matches(&fact), answer);
    }
}

/// When the calls that are tried arrive.
const NOW: i64 = 1_700_000_000;
/// What an event's keys may refer to as `${KEY}`.
const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A call from outside: the event's metadata, a line for each header, an empty line, the body. In a header, `{v1}` and
/// `{github}` stand for the right signatures. Exactly what is rightly signed is accepted, and no key is shown.
pub fn signature(data: &[u8]) {
    let border = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = border.map_or((data, &[][..]), |at| (&data[..at], &data[at + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let Some(Ok(first)) = lines.next().map(std::str::from_utf8) else { return };
    let metadata: Value = serde_json::from_str(first).unwrap_or_else(|_| json!({"secret": first, "token": first}));
    let keys = keys(&metadata);
    let secret = keys.signing.as_ref().map_or("", |secret| secret.expose_secret());
    let github = keys.github.as_ref().map_or("", |secret| secret.expose_secret());

    let lines: Vec<(&str, &str)> =
        lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':')).map(|(n, v)| (n, v.trim())).collect();
    let named = |wanted: &str| {
        lines.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map_or("", |(_, value)| value).as_bytes()
    };
    let key = standard_webhooks::key(secret);
    let parts = [named("webhook-id"), b".", named("webhook-timestamp"), b".", body];
    let v1 = STANDARD.encode(by_hand(key.as_deref().unwrap_or_default(), &parts));
    let hex = hex::encode(by_hand(github.as_bytes(), &[body]));
    let mut headers = HeaderMap::new();
    for (name, value) in &lines {
        let value = value.replace("{v1}", &v1).replace("{github}", &hex);
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }

    let only = |name: &str| {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        if let [value] = values[..] { value.to_str().ok() } else { None }
    };
    let right = || {
        let (id, stamp) = (only("webhook-id")?, only("webhook-timestamp")?);
        let signed = by_hand(key.as_deref()?, &[id.as_bytes(), b".", stamp.as_bytes(), b".", body]);
        let signed = format!("v1,{}", STANDARD.encode(signed));
        let fits = (1..=256).contains(&id.len()) && !id.contains('.');
        let in_time = (NOW - 300..=NOW + 300).contains(&stamp.parse().ok()?);
        (fits && in_time && only("webhook-signature")?.split(' ').any(|one| one == signed)).then_some(id)
    };
    assert_eq!(signatures::verify(secret, &headers, body, NOW).ok(), right());
    let right = only("x-hub-signature-256")
        .is_some_and(|given| given.strip_prefix("sha256=").is_some_and(|given| given.eq_ignore_ascii_case(&hex)));
    let taken = signatures::verify_github(github, &headers, body);
    assert_eq!(taken.ok(), right.then(|| format!("github:{hex}")));

    let id: String = first.chars().filter(|c| c.is_ascii_alphanumeric()).take(256).collect();
    signed(&format!("a{}", &id[..id.len().min(255)]), body);
}

/// The keys of an event with this metadata. What was accepted is stored and shown as it is promised.
fn keys(metadata: &Value) -> Keys {
    #[derive(serde::Serialize)]
    struct Shown(#[serde(serialize_with = "hooks::shown")] Option<Value>);

    let secrets = HashMap::from([("KEY".to_owned(), SecretString::from(KEY))]);
    let mut stored = metadata.clone();
    if hooks::settle(&mut stored, None, true).is_err() {
        return Keys::of(Some(metadata), &secrets);
    }
    let keys = Keys::of(Some(&stored), &secrets);
    if let Some(given) = metadata.get("token").and_then(Value::as_str)
        && stored["token"] != given
    {
        let token = keys.token.unwrap();
        assert!(token.is(given) && !token.is(&given[1..]) && !stored["token"].to_string().contains(given));
    }
    let shown = serde_json::to_value(Shown(Some(stored.clone()))).unwrap();
    for name in ["secret", "github_secret", "token"] {
        let shown = shown.get(name).and_then(Value::as_str);
        assert!(shown.is_none_or(|text| text == REDACTED || text.starts_with("${")));
    }
    let mut back = shown;
    hooks::settle(&mut back, Some(&stored), true).unwrap();
    assert_eq!(back, stored);
    keys
}

/// A rightly signed call is accepted, and none that differs from it.
fn signed(id: &str, body: &[u8]) {
    let key = standard_webhooks::key(KEY).unwrap();
    let headers = |id: &str, stamp: i64, signature: &str| {
        let texts = [("webhook-id", id), ("webhook-timestamp", &stamp.to_string()), ("webhook-signature", signature)];
        texts.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect::<HeaderMap>()
    };
    let verify = |headers: &HeaderMap, body: &[u8]| signatures::verify(KEY, headers, body, NOW).is_ok();
    let right = standard_webhooks::sign(&key, id, &NOW.to_string(), body).unwrap();
    assert!(verify(&headers(id, NOW, &right), body));
    assert!(!verify(&headers(id, NOW, &right), &[body, b"\0"].concat()));
    assert!(!verify(&headers(id, NOW + 1, &right), body));
    assert!(!verify(&headers(&id[1..], NOW, &right), body));
    let short = right.trim_end_matches('=');
    assert!(!verify(&headers(id, NOW, &short[..short.len() - 1]), body));
}

/// HMAC-SHA256 as its definition says, without the library that is tried.
fn by_hand(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::digest(key))
    } else {
        block[..key.len()].copy_from_slice(key)
    }
    let inner = Sha256::digest([&block.map(|byte| byte ^ 0x36)[..], &parts.concat()].concat());
    Sha256::digest([&block.map(|byte| byte ^ 0x5c)[..], &inner[..]].concat()).into()
}

fn moment(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::simulation::rng::Rng;
    use std::path::PathBuf;

    /// Mutations of the corpus per kind of input.
    const MUTATIONS: usize = 3000;

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.is_file());
        paths.sort();
        assert!(!paths.is_empty(), "{} is empty", folder.display());
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// One to four small changes: a byte, a piece of itself or of another input, a piece less, a token that parsers know.
    fn mutate(rng: &mut Rng, input: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
        const TOKENS: &[&str] = &[
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "'",
            "\n",
            "\t",
            "- ",
            "&a",
            "*a",
            "<<",
            "{{",
            "}}",
            "..",
            "@",
            "*/",
            "-1",
            "99999999999999999999",
            "1e400",
            "null",
            "true",
            "\u{0}",
            "é",
            "\u{2028}",
            "%",
            "#",
            "W",
            "L",
            "|",
            "!!",
            "?",
        ];
        let mut output = input.to_vec();
        for _ in 0..=rng.below(4) {
            let at = rng.below(output.len() + 1);
            let end = (at + rng.below(9)).min(output.len());
            match rng.below(6) {
                0 => drop(output.splice(at..end, rng.pick(TOKENS).bytes())),
                1 => drop(output.splice(at..at, rng.pick(TOKENS).bytes())),
                2 => drop(output.drain(at..end)),
                3 => {
                    let other = rng.pick(corpus);
                    let from = rng.below(other.len() + 1);
                    let piece = other[from..(from + rng.below(30)).min(other.len())].to_vec();
                    drop(output.splice(at..end, piece));
                }
                4 if at < output.len() => output[at] = rng.next() as u8,
                _ => {
                    let piece = output[at..end].repeat(1 + rng.below(20));
                    drop(output.splice(at..end, piece));
                }
            }
        }
        output
    }

    fn hold(name: &str, target: fn(&[u8])) {
        let corpus = corpus(name);
        corpus.iter().for_each(|input| target(input));
        for seed in 0..MUTATIONS {
            let mut rng = Rng::new(seed as u64);
            let base = rng.pick(&corpus).clone();
            let input = mutate(&mut rng, &base, &corpus);
            if let Err(panic) = std::panic::catch_unwind(|| target(&input)) {
                eprintln!("{name}: seed {seed}, input {:?}", String::from_utf8_lossy(&input));
                std::panic::resume_unwind(panic);
            }
        }
        println!("{name}: {} inputs and {MUTATIONS} mutations", corpus.len());
    }

    #[test]
    fn no_file_of_a_workspace_breaks_its_loader() {
        hold("yaml", super::yaml);
    }

    #[test]
    fn no_condition_breaks_the_schedule() {
        hold("cron", super::cron);
    }

    #[test]
    fn no_job_spec_breaks_its_reader() {
        hold("job", super::job);
    }

    #[test]
    fn no_condition_on_facts_breaks_its_reader() {
        hold("facts", super::facts);
    }

    #[test]
    fn no_template_breaks_its_filling_in() {
        hold("template", super::template);
    }

    #[test]
    fn no_call_from_outside_passes_for_a_signed_one() {
        hold("signature", super::signature);
    }
}
