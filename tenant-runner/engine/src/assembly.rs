//! Puts the parts together that know the tenant's files, people and models: workspace, accounts, gateway, agents, chats.

use crate::agent::{Agents, Skills};
use crate::bus::Bus;
use crate::chat::Chat;
use crate::config::{EngineConfig, Settings};
use crate::error::Result;
use crate::event::Events;
use crate::hooks::Hooks;
use crate::model::Gateway;
use crate::store::Store;
use crate::usage::Usage;
use crate::users::Users;
use crate::workspace::Workspace;
use arc_swap::ArcSwapOption;
use nexaas_common::clock::SharedClock;
use nexaas_common::id::BootId;
use nexaas_common::task::Supervisor;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Parts {
    pub workspace: Workspace,
    pub users: Users,
    pub gateway: Gateway,
    pub agents: Agents,
    pub chat: Chat,
    pub usage: Usage,
    pub skills: Skills,
    pub hooks: Hooks,
}

/// What the parts stand on.
pub(crate) struct Base<'a> {
    pub config: &'a EngineConfig,
    pub settings: Arc<ArcSwapOption<Settings>>,
    pub store: Store,
    pub bus: Bus,
    pub events: Events,
    pub clock: SharedClock,
    pub boot: BootId,
    pub supervisor: Supervisor,
}

impl Parts {
    pub async fn open(base: Base<'_>) -> Result<Self> {
        let Base { config, settings, store, bus, events, clock, boot, supervisor } = base;
        let hooks = Hooks::new(store.clone(), events.clone(), clock.clone());
        let workspace =
            Workspace::open(config, settings.clone(), (store.clone(), bus.clone(), events), clock.clone()).await?;
        let users = Users::open(config, settings.clone(), store.clone(), bus.clone(), clock.clone()).await?;
        let url = config.anthropic_base_url.clone();
        let gateway = Gateway::open(settings, workspace.clone(), store.clone(), clock.clone(), boot, url).await?;
        let agents = Agents::new(workspace.clone(), gateway.clone());
        let skills = Skills::new(agents.clone(), supervisor.token().clone());
        let usage = Usage::new(store.clone());
        let chat = Chat::open(store, bus, clock, boot, agents.clone(), supervisor).await?;
        Ok(Self { workspace, users, gateway, agents, chat, usage, skills, hooks })
    }
}

impl crate::Engine {
    pub fn workspace(&self) -> &Workspace {
        &self.parts.workspace
    }

    pub fn users(&self) -> &Users {
        &self.parts.users
    }

    pub fn chat(&self) -> &Chat {
        &self.parts.chat
    }

    pub fn usage(&self) -> &Usage {
        &self.parts.usage
    }

    pub fn skills(&self) -> &Skills {
        &self.parts.skills
    }

    pub fn hooks(&self) -> &Hooks {
        &self.parts.hooks
    }

    /// Every model call goes through here.
    pub fn gateway(&self) -> &Gateway {
        &self.parts.gateway
    }
}
