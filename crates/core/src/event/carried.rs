//! Which fields of [`Terminal`](super::Terminal) each of the types carries that share it.

/// What a type has always, or never, of the fields that may be absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Never absent.
    pub always: &'static [&'static str],
    /// Never there.
    pub never: &'static [&'static str],
}

/// What events of this type carry, beyond what the type of their payload says.
pub fn carried(event_type: &str) -> Carried {
    match event_type {
        "execution_completed" => Carried {
            // A Job may be complete whose pods nobody saw.
            always: &[],
            never: &["error_type", "error_message", "timeout_seconds", "reason", "cancelled_by", "force_terminated"],
        },
        "execution_failed" => Carried {
            always: &["error_type", "error_message", "cause"],
            never: &["timeout_seconds", "reason", "cancelled_by", "force_terminated"],
        },
        "execution_timeout" => Carried {
            always: &["error_type", "cause"],
            never: &["exit_code", "error_message", "reason", "cancelled_by", "force_terminated"],
        },
        "execution_cancelled" => Carried {
            always: &["reason", "force_terminated", "cause"],
            never: &["exit_code", "error_type", "error_message", "timeout_seconds"],
        },
        _ => Carried::default(),
    }
}
