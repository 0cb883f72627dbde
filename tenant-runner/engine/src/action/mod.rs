//! What a job does. Each kind of action turns a stored configuration into an effect and an answer.

mod agent;

pub use agent::{AgentActions, NoAgents, RunContext};
