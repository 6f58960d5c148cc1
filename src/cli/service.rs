//! What a service manager is told of the agent (sd_notify(3)). Without one all of this is silent.

use crate::agent::{Handle, View, Which};
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How often the one line of status changes at most.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Tells that the agent is ready when it has looked at the whole host once, how it stands after every
/// change, and as long as its rounds answer that it lives. Ends with the agent.
pub async fn accompany(handle: Handle) {
    let mut changes = handle.changes.clone();
    let mut watchdog = watchdog();
    let mut ready = false;
    let mut said = String::new();
    loop {
        // Answered between rounds: the first one has been, whatever came of it.
        if ready || handle.answers().await {
            let view = handle.view(Which::None, false).await;
            let status = status(&view);
            if !ready || status != said {
                let mut states = vec![NotifyState::Status(&status)];
                states.extend((!ready).then_some(NotifyState::Ready));
                tell(&states);
                ready = true;
                said = status;
            }
        }
        let next = Instant::now() + if ready { STATUS_EVERY } else { Duration::ZERO };
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                () = tick(&mut watchdog) => {
                    // A round that hangs answers nobody: then the manager has to act.
                    if handle.answers().await {
                        tell(&[NotifyState::Watchdog]);
                    }
                }
            }
        }
        tokio::time::sleep_until(next).await;
    }
}

/// The agent is on its way out.
pub fn leaving() {
    tell(&[NotifyState::Stopping]);
}

/// Twice in the time after which the manager takes us for dead, and once to spare.
fn watchdog() -> Option<tokio::time::Interval> {
    let mut interval = tokio::time::interval(sd_notify::watchdog_enabled()? / 3);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(interval)
}

async fn tick(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(error = %error, "telling the service manager failed");
    }
}

/// `3 containers: 2 Running, 1 Invalid`.
fn status(view: &View) -> String {
    let objects = &view.summary.objects;
    let count: usize = objects.values().sum();
    let by_phase: Vec<String> = objects.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    match count {
        0 => "no containers".to_owned(),
        1 => format!("1 container: {}", by_phase.join(", ")),
        _ => format!("{count} containers: {}", by_phase.join(", ")),
    }
}
