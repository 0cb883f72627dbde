//! The decision, as a pure function: what is wished and what was seen → what can be done now. No I/O, no clock, no memory.
//!
//! Always true: whatever is unknown is neither made nor counted as removed; the answer is never empty; everything that does
//! not wait for something else is answered together, to be done at the same time.

use crate::domain::operation::StepName;
use crate::domain::tenant::Desired;
use crate::orchestrator::{Observed, RunState, TenantObjects};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub desired: Desired,
    /// Whether the backend gives each tenant a network of its own.
    pub networked: bool,
    /// The hash a runner would carry today; `None` until its port and subnet are leased.
    pub spec_hash: Option<String>,
    /// Whether any lease is held.
    pub leased: bool,
}

/// How far this controller got with the present start of the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Link {
    #[default]
    Unchecked,
    /// It has proven who it is and was told its settings.
    Handshaken,
    WorkspaceReady,
    /// A probe through the real route succeeded.
    Ready,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    pub objects: TenantObjects,
    pub link: Link,
    /// Its process runs, but it does not answer.
    pub unresponsive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The backend does not say how things are: look again later.
    Wait,
    Allocate,
    EnsureNetwork,
    EnsureVolume,
    EnsureRunner,
    Start,
    Handshake,
    InitializeWorkspace,
    Probe,
    Stop,
    RemoveRunner,
    RemoveVolume,
    RemoveNetwork,
    Release,
    /// Reality is as wished.
    Settle,
}

impl Action {
    /// The step under which people see it.
    pub const fn step(self, desired: Desired) -> Option<StepName> {
        match self {
            Self::Wait | Self::Settle => None,
            Self::Allocate => Some(StepName::Allocate),
            Self::EnsureNetwork => Some(StepName::Network),
            Self::EnsureVolume => Some(StepName::Volume),
            Self::EnsureRunner => Some(StepName::Container),
            Self::Start => Some(StepName::Start),
            Self::Handshake => Some(StepName::Handshake),
            Self::InitializeWorkspace => Some(StepName::Workspace),
            Self::Probe => Some(StepName::Ready),
            // A runner that is to run is stopped only to be made anew.
            Self::Stop if matches!(desired, Desired::Running) => Some(StepName::Container),
            Self::Stop => Some(StepName::Stop),
            Self::RemoveRunner => Some(StepName::RemoveContainer),
            Self::RemoveVolume => Some(StepName::RemoveVolume),
            Self::RemoveNetwork => Some(StepName::RemoveNetwork),
            Self::Release => Some(StepName::Release),
        }
    }

    /// Whether it changes something, rather than finding out how things are.
    pub const fn repairs(self) -> bool {
        !matches!(self, Self::Wait | Self::Settle | Self::Handshake | Self::InitializeWorkspace | Self::Probe)
    }
}

/// What can be done now, all of it at the same time.
pub fn plan(intent: &Intent, seen: &Seen) -> Vec<Action> {
    match intent.desired {
        Desired::Running => towards_running(intent, seen),
        Desired::Hibernated | Desired::Suspended => towards_stopped(seen),
        Desired::Deleted => towards_nothing(intent, seen),
    }
}

fn towards_running(intent: &Intent, seen: &Seen) -> Vec<Action> {
    let objects = &seen.objects;
    let Some(wanted) = &intent.spec_hash else { return vec![Action::Allocate] };
    let network_unknown = intent.networked && objects.network == Observed::Unknown;
    if network_unknown || objects.volume == Observed::Unknown || objects.runner == Observed::Unknown {
        return vec![Action::Wait];
    }
    let mut ground = Vec::new();
    if intent.networked && objects.network.is_absent() {
        ground.push(Action::EnsureNetwork);
    }
    if objects.volume.is_absent() {
        ground.push(Action::EnsureVolume);
    }
    if !ground.is_empty() {
        return ground;
    }
    let Some(runner) = objects.runner.present() else { return vec![Action::EnsureRunner] };
    let running = runner.state == RunState::Running;
    if runner.spec_hash != *wanted {
        // Asked to end before it is replaced, so that it can finish what it is writing.
        return vec![if running { Action::Stop } else { Action::EnsureRunner }];
    }
    if !running {
        return vec![Action::Start];
    }
    if seen.unresponsive {
        return vec![Action::Stop];
    }
    vec![match seen.link {
        Link::Unchecked => Action::Handshake,
        Link::Handshaken => Action::InitializeWorkspace,
        Link::WorkspaceReady => Action::Probe,
        Link::Ready => Action::Settle,
    }]
}

fn towards_stopped(seen: &Seen) -> Vec<Action> {
    match &seen.objects.runner {
        Observed::Unknown => vec![Action::Wait],
        Observed::Present(runner) if runner.state == RunState::Running => vec![Action::Stop],
        Observed::Present(_) | Observed::Absent => vec![Action::Settle],
    }
}

fn towards_nothing(intent: &Intent, seen: &Seen) -> Vec<Action> {
    let objects = &seen.objects;
    match &objects.runner {
        Observed::Unknown => return vec![Action::Wait],
        Observed::Present(runner) if runner.state == RunState::Running => return vec![Action::Stop],
        Observed::Present(_) => return vec![Action::RemoveRunner],
        Observed::Absent => {}
    }
    // Networks are looked at whatever the backend: one may be left from another time.
    let mut rest = Vec::new();
    if objects.volume.present().is_some() {
        rest.push(Action::RemoveVolume);
    }
    if objects.network.present().is_some() {
        rest.push(Action::RemoveNetwork);
    }
    if !rest.is_empty() {
        return rest;
    }
    let network_unknown = intent.networked && objects.network == Observed::Unknown;
    if objects.volume == Observed::Unknown || network_unknown {
        return vec![Action::Wait];
    }
    vec![if intent.leased { Action::Release } else { Action::Settle }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orchestrator::RunnerSeen;

    const WANTED: &str = "wanted";

    fn every_object() -> Vec<Observed<()>> {
        vec![Observed::Absent, Observed::Present(()), Observed::Unknown]
    }

    fn every_runner() -> Vec<Observed<RunnerSeen>> {
        let mut all = vec![Observed::Absent, Observed::Unknown];
        for state in [RunState::Created, RunState::Running, RunState::Exited { code: 1 }, RunState::OutOfMemory] {
            for hash in [WANTED, "other"] {
                all.push(Observed::Present(RunnerSeen { generation: 1, spec_hash: hash.into(), state }));
            }
        }
        all
    }

    fn every_case() -> Vec<(Intent, Seen)> {
        let mut all = Vec::new();
        for desired in [Desired::Running, Desired::Hibernated, Desired::Suspended, Desired::Deleted] {
            for networked in [true, false] {
                for leased in [true, false] {
                    for network in every_object() {
                        for volume in every_object() {
                            for runner in every_runner() {
                                for link in [Link::Unchecked, Link::Handshaken, Link::WorkspaceReady, Link::Ready] {
                                    for unresponsive in [true, false] {
                                        all.push((
                                            Intent {
                                                desired,
                                                networked,
                                                spec_hash: leased.then(|| WANTED.to_owned()),
                                                leased,
                                            },
                                            Seen {
                                                objects: TenantObjects { network, volume, runner: runner.clone() },
                                                link,
                                                unresponsive,
                                            },
                                        ));
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        all
    }

    /// What an action leaves behind when it succeeds.
    fn apply(intent: &mut Intent, seen: &mut Seen, action: Action) {
        let runner = |state| Observed::Present(RunnerSeen { generation: 1, spec_hash: WANTED.into(), state });
        match action {
            Action::Wait | Action::Settle => {}
            Action::Allocate => (intent.leased, intent.spec_hash) = (true, Some(WANTED.into())),
            Action::EnsureNetwork => seen.objects.network = Observed::Present(()),
            Action::EnsureVolume => seen.objects.volume = Observed::Present(()),
            Action::EnsureRunner => seen.objects.runner = runner(RunState::Created),
            Action::Start => (seen.objects.runner, seen.link) = (runner(RunState::Running), Link::Unchecked),
            Action::Stop => {
                seen.unresponsive = false;
                if let Observed::Present(r) = &mut seen.objects.runner {
                    r.state = RunState::Exited { code: 0 };
                }
            }
            Action::Handshake => seen.link = Link::Handshaken,
            Action::InitializeWorkspace => seen.link = Link::WorkspaceReady,
            Action::Probe => seen.link = Link::Ready,
            Action::RemoveRunner => seen.objects.runner = Observed::Absent,
            Action::RemoveVolume => seen.objects.volume = Observed::Absent,
            Action::RemoveNetwork => seen.objects.network = Observed::Absent,
            Action::Release => intent.leased = false,
        }
    }

    #[test]
    fn every_state_leads_to_the_wish_or_to_waiting_in_few_rounds() {
        for (intent, seen) in every_case() {
            let (mut i, mut s) = (intent.clone(), seen.clone());
            let mut rounds = 0;
            loop {
                let actions = plan(&i, &s);
                assert!(!actions.is_empty(), "{intent:?} {seen:?}");
                if actions == [Action::Settle] || actions == [Action::Wait] {
                    break;
                }
                for action in actions {
                    apply(&mut i, &mut s, action);
                }
                rounds += 1;
                assert!(rounds <= 12, "no end: {intent:?} {seen:?}");
            }
        }
    }

    #[test]
    fn what_is_unknown_is_never_made_and_never_counted_as_gone() {
        for (intent, seen) in every_case() {
            let actions = plan(&intent, &seen);
            let o = &seen.objects;
            if o.runner == Observed::Unknown {
                assert!(
                    !actions.iter().any(|a| matches!(a, Action::EnsureRunner | Action::Start)),
                    "{intent:?} {seen:?}"
                );
                if intent.spec_hash.is_some() || intent.desired != Desired::Running {
                    assert_eq!(actions, [Action::Wait], "{intent:?} {seen:?}");
                }
            }
            if intent.desired == Desired::Deleted && (o.volume == Observed::Unknown || o.runner == Observed::Unknown) {
                assert!(
                    !actions.contains(&Action::Release) && !actions.contains(&Action::Settle),
                    "{intent:?} {seen:?}"
                );
            }
            if o.volume == Observed::Unknown {
                assert!(!actions.contains(&Action::EnsureVolume));
            }
        }
    }

    #[test]
    fn a_volume_is_removed_only_on_the_way_to_deletion() {
        for (intent, seen) in every_case() {
            let removes = plan(&intent, &seen).into_iter().any(|a| {
                matches!(a, Action::RemoveVolume | Action::RemoveNetwork | Action::RemoveRunner | Action::Release)
            });
            assert!(!removes || intent.desired == Desired::Deleted, "{intent:?} {seen:?}");
        }
    }

    #[test]
    fn settled_means_that_reality_is_as_wished() {
        for (intent, seen) in every_case() {
            if plan(&intent, &seen) != [Action::Settle] {
                continue;
            }
            let o = &seen.objects;
            match intent.desired {
                Desired::Running => {
                    let runner = o.runner.present().unwrap();
                    assert_eq!((runner.state, runner.spec_hash.as_str()), (RunState::Running, WANTED));
                    assert_eq!(seen.link, Link::Ready);
                    assert!(o.volume.present().is_some());
                }
                Desired::Suspended | Desired::Hibernated => {
                    assert!(o.runner.present().is_none_or(|r| r.state != RunState::Running));
                    assert_ne!(o.runner, Observed::Unknown);
                }
                Desired::Deleted => {
                    assert!(o.runner.is_absent() && o.volume.is_absent() && !intent.leased);
                    assert!(o.network.is_absent() || !intent.networked);
                }
            }
        }
    }

    #[test]
    fn network_and_volume_are_made_together_and_before_the_runner() {
        let intent =
            Intent { desired: Desired::Running, networked: true, spec_hash: Some(WANTED.into()), leased: true };
        let objects = TenantObjects { network: Observed::Absent, volume: Observed::Absent, runner: Observed::Absent };
        let seen = Seen { objects, ..Seen::default() };
        assert_eq!(plan(&intent, &seen), [Action::EnsureNetwork, Action::EnsureVolume]);
    }

    #[test]
    fn a_runner_of_another_specification_is_asked_to_end_before_it_is_replaced() {
        let intent =
            Intent { desired: Desired::Running, networked: false, spec_hash: Some(WANTED.into()), leased: true };
        let runner = RunnerSeen { generation: 1, spec_hash: "other".into(), state: RunState::Running };
        let mut seen = Seen {
            objects: TenantObjects {
                network: Observed::Absent,
                volume: Observed::Present(()),
                runner: Observed::Present(runner.clone()),
            },
            ..Seen::default()
        };
        assert_eq!(plan(&intent, &seen), [Action::Stop]);
        seen.objects.runner = Observed::Present(RunnerSeen { state: RunState::Exited { code: 0 }, ..runner });
        assert_eq!(plan(&intent, &seen), [Action::EnsureRunner]);
    }
}
