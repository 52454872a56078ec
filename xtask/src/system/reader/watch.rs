//! Reads what a system says of the watch over its driver domain.

use manifest::Watch;

use super::Reader;
use crate::system::form::VmForm;

impl Reader<'_> {
    /// Reads what the driver domain is held to; nobody else is held to anything.
    pub(super) fn watch(&self, form: &VmForm, is_driver_domain: bool) -> Watch {
        let keys = [
            ("heartbeat_ms", &form.heartbeat_ms),
            ("request_deadline_ms", &form.request_deadline_ms),
            ("startup_deadline_ms", &form.startup_deadline_ms),
            ("restart_limit", &form.restart_limit),
            ("restart_window_ms", &form.restart_window_ms),
        ];
        if !is_driver_domain {
            for (key, value) in keys.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
                let sentence = format!(
                    "the key {key:?} is for driver domains, and vm {:?} is none; remove it, or add driver_domain = true",
                    form.name.get_ref()
                );
                self.findings.report(value.span(), sentence);
            }
            return Watch::default();
        }
        let [heartbeat, request, startup, restart_limit, window] =
            keys.map(|(_, value)| value.as_ref().map(|value| *value.get_ref()));
        let defaults = Watch::default();
        Watch {
            heartbeat_ms: heartbeat.unwrap_or(defaults.heartbeat_ms),
            request_ms: request.unwrap_or(defaults.request_ms),
            startup_ms: startup.unwrap_or(defaults.startup_ms),
            restart_limit,
            restart_window_ms: window.unwrap_or(defaults.restart_window_ms),
        }
    }
}
