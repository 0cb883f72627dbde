//! The backend of a workspace without a key: it answers, says plainly that no model was asked, and shows what would have been sent.

use super::{Call, Completion, Stop, TokenUsage, estimate_tokens};
use tokio::sync::mpsc;

const SHOWN: usize = 280;

fn excerpt(text: &str) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{} …", &flat[..at]),
        None => flat,
    }
}

/// The answer, in the pieces it is streamed in.
fn pieces(call: &Call) -> Vec<String> {
    let who = call.origin.agent.as_deref().map_or_else(|| "This workspace".to_owned(), |a| format!("The agent `{a}`"));
    let last = call.messages.last().map(|m| m.content.as_str()).unwrap_or_default();
    let earlier = call.messages.len().saturating_sub(1);
    vec![
        "**Offline: no model was asked.** ".to_owned(),
        format!(
            "{who} has no model key, so this is not an answer to your message but a look at what would have been sent.\n\n"
        ),
        format!(
            "- model: `{}`\n- size: about {} tokens ({} of instructions, {earlier} earlier messages)\n",
            call.model,
            call.estimate(),
            estimate_tokens(&call.system),
        ),
        format!("- instructions begin: {}\n- your message: {}\n\n", excerpt(&call.system), excerpt(last)),
        format!("As soon as the secret `{}` is set, the same message goes to the model.", super::ANTHROPIC_KEY),
    ]
}

pub(super) async fn run(call: &Call, sink: &mpsc::Sender<String>) -> Completion {
    let pieces = pieces(call);
    for piece in &pieces {
        // Whoever watched has left; the answer is complete all the same.
        let _ = sink.send(piece.clone()).await;
    }
    Completion {
        text: pieces.concat(),
        usage: TokenUsage::default(),
        stop: Stop::EndTurn,
        model: call.model.clone(),
        backend: "offline",
    }
}
