//! What happens in each drill, step by step.

use std::{fmt::Display, thread, time::Duration};

use nix::sys::signal::Signal;

use super::{Drill, Kind, config, lock};
use crate::{
    LabError, wait,
    weir::{Alias, PoolBackend, WeirConfig},
};

/// For how long flows of the former key are kept: each shows itself several times meanwhile.
pub(super) const KEY_WINDOW_S: u32 = 15;
/// Until that is over on a busy machine.
const KEY_LIMIT: Duration = Duration::from_mins(2);
/// Backends that come and go in the reload drill.
const NEWCOMERS: usize = 1000;
/// A controller is killed at one of these moments of a reload.
const MOMENTS: usize = 12;
const RELOAD_MOMENT: Duration = Duration::from_millis(45);
/// What no configuration holds.
const BAD_CONFIG: &str = "[balancer]\ninterface = \"eth0\"\nsurprise = true\n";

impl Drill<'_> {
    /// All that happens.
    pub(super) fn happen(&mut self) -> Result<(), LabError> {
        for time in 1..=self.options.times {
            match self.options.kind {
                Kind::Restart => self.restart(time)?,
                Kind::Reload => self.reload()?,
                Kind::Upgrade => self.upgrade(time)?,
                Kind::Drain => self.drain()?,
                Kind::KillBackend if time == 1 => self.kill_backend()?,
                Kind::KillBackend => {}
                Kind::Rekey => self.rekey(time)?,
            }
        }
        let joined = self.join_again()?;
        self.tell(format!("{joined} further joins to connections that were open before have arrived"));
        Ok(())
    }

    fn tell(&self, what: impl Display) {
        self.screen.step(&what.to_string());
    }

    /// Ends the controller, opens connections without one, and starts it again. Every third time it is killed while it
    /// has a thousand backends come or go.
    fn restart(&mut self, time: usize) -> Result<(), LabError> {
        let signal = if time.is_multiple_of(3) {
            let aliases = Alias::many(self.lab, NEWCOMERS)?;
            let config = config(self.lab, self.options);
            let config = if time.is_multiple_of(2) { config } else { config.with_aliases(&aliases) };
            self.weir.begin_reload(&config)?;
            // Another moment of it each time.
            thread::sleep(RELOAD_MOMENT * u32::try_from(time / 3 % MOMENTS).unwrap_or(0));
            self.tell("the controller has begun to reload");
            Signal::SIGKILL
        } else {
            end_of(time)
        };
        self.weir.end_by(signal)?;
        self.open_some()?;
        self.weir.start_again()?;
        self.open_some()?;
        self.controller_is_another(signal)
    }

    /// The same with another file as the new controller.
    fn upgrade(&mut self, time: usize) -> Result<(), LabError> {
        let signal = end_of(time);
        self.weir.replace_binary(&format!("weir-{time}"))?;
        self.weir.end_by(signal)?;
        self.weir.start_again()?;
        self.open_some()?;
        self.controller_is_another(signal)
    }

    fn controller_is_another(&mut self, signal: Signal) -> Result<(), LabError> {
        self.report.controllers += 1;
        let program = if self.note_program()? {
            "another program is on the interface"
        } else {
            self.failures.push("the interface has the program of the former controller".to_owned());
            "the program is still the former one"
        };
        self.tell(format!("the controller has ended by {signal}, and another has taken over; {program}"));
        Ok(())
    }

    /// A thousand backends come, a bad file is refused, and they go again.
    fn reload(&mut self) -> Result<(), LabError> {
        let aliases = Alias::many(self.lab, NEWCOMERS)?;
        let crowded = || config(self.lab, self.options).with_aliases(&aliases);
        let (crowded, alone) = (crowded(), config(self.lab, self.options));

        let planned = self.weir.dry_run(&crowded)?;
        let changed = self.weir.reload(&crowded)?;
        if planned != changed {
            self.failures.push(format!("the dry run told of {planned} slots, and {changed} changed"));
        }
        self.tell(format!("{NEWCOMERS} backends have come, {changed} slots changed, as the dry run had said"));
        self.open_some()?;

        let refused = self.weir.reload_text(BAD_CONFIG)?;
        self.tell(format!("a bad file is refused: {refused}"));
        self.open_some()?;

        let changed = self.weir.reload(&alone)?;
        self.tell(format!("they have left, {changed} slots changed"));
        self.open_some()?;
        Ok(())
    }

    /// The first backend takes no more connections, and then does again.
    fn drain(&mut self) -> Result<(), LabError> {
        let changed = self.weir.reload(&self.with_first("drain"))?;
        let opened = self.open_some()?;
        if opened.iter().any(|(backend, _)| *backend == self.lab.backends[0].name) {
            self.failures.push("a draining backend has a new connection".to_owned());
        }
        self.tell(format!("b1 drains, {changed} slots changed; new connections went to {}", spread(&opened)));
        let changed = self.weir.reload(&self.with_first("up"))?;
        let opened = self.open_some()?;
        self.tell(format!("b1 is back, {changed} slots changed; new connections went to {}", spread(&opened)));
        Ok(())
    }

    /// The first backend dies, and is configured as what it is.
    fn kill_backend(&mut self) -> Result<(), LabError> {
        let (name, down) = (self.lab.backends[0].name.clone(), self.with_first("down"));
        let mut held = lock(self.held);
        self.killed = Some(0);
        self.lab.kill_backend(0)?;
        let changed = self.weir.reload(&down)?;
        self.report.broken_of_killed += held.bury(&name)?;
        drop(held);
        self.flows.bury(0);
        let opened = self.open_some()?;
        self.tell(format!("b1 is dead, {changed} slots changed; new connections went to {}", spread(&opened)));
        Ok(())
    }

    /// Flows are named by another key; the controller is killed in the middle of that every other time. A key of which nobody
    /// knows the one before is refused.
    fn rekey(&mut self, time: usize) -> Result<(), LabError> {
        let config = config(self.lab, self.options);
        self.key.replace()?;
        let refused = self.weir.reload_text(&config.to_toml())?;
        if time == 1 {
            self.tell(format!("a key without the former one is refused: {refused}"));
        }
        self.key.change()?;
        self.weir.reload(&config)?;
        self.open_some()?;
        if time.is_multiple_of(2) {
            self.weir.end_by(Signal::SIGKILL)?;
            self.open_some()?;
            self.weir.start_again()?;
            self.controller_is_another(Signal::SIGKILL)?;
        }
        let weir = &self.weir;
        wait::until("the former key is forgotten", KEY_LIMIT, || Ok((!weir.status()?.keeps_former_key).then_some(())))?;
        self.tell("the key is another, and the former one is forgotten");
        self.key.settle()?;
        self.weir.reload(&config)?;
        self.open_some()?;
        Ok(())
    }

    /// All of the lab's backends, the first in this state.
    fn with_first(&self, state: &'static str) -> WeirConfig {
        let backend =
            |(index, backend)| PoolBackend { backend, weight: 100, state: if index == 0 { state } else { "up" } };
        config(self.lab, self.options).with_backends(self.lab.backends.iter().enumerate().map(backend).collect())
    }
}

/// Every other time it is killed.
const fn end_of(time: usize) -> Signal {
    if time % 2 == 1 { Signal::SIGKILL } else { Signal::SIGTERM }
}

fn spread(opened: &[(String, usize)]) -> String {
    let parts: Vec<_> = opened.iter().map(|(backend, count)| format!("{backend} {count}")).collect();
    parts.join(", ")
}
