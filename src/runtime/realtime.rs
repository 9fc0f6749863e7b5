//! Real-time priority for the threads between an edge and an output, and memory that is not swapped out.
//!
//! Must not: stop anything from running: what is not allowed is said, and the thread goes on as it is.

use std::num::NonZeroU8;

/// What the settings ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Realtime {
    /// The priority of SCHED_FIFO, 1 to 99; none for the normal one.
    pub priority: Option<NonZeroU8>,
    pub lock_memory: bool,
}

/// Why there is none of it.
#[derive(Debug, thiserror::Error)]
pub enum RealtimeError {
    #[error(
        "no real-time priority {priority} for the thread `{thread}`: {reason}; give the service `LimitRTPRIO={priority}` and `RestrictRealtime=no`, or \
         take `realtime` out of [control]; it runs at normal priority"
    )]
    Priority {
        thread: String,
        priority: NonZeroU8,
        reason: String,
    },
    #[error(
        "memory cannot be locked: {reason}; give the service `LimitMEMLOCK=infinity`, or take `lock_memory` out of [control]; it \
         runs without"
    )]
    Memory { reason: String },
}

impl Realtime {
    /// Gives the calling thread its priority.
    pub fn raise_this_thread(self) -> Result<(), RealtimeError> {
        let Some(priority) = self.priority else {
            return Ok(());
        };
        raise(priority).map_err(|reason| RealtimeError::Priority {
            thread: std::thread::current().name().unwrap_or("?").to_owned(),
            priority,
            reason,
        })
    }

    /// Locks the memory of the process, also what it comes to use later.
    pub fn lock_memory(self) -> Result<(), RealtimeError> {
        if !self.lock_memory {
            return Ok(());
        }
        lock().map_err(|reason| RealtimeError::Memory { reason })
    }
}

#[cfg(target_os = "linux")]
fn raise(priority: NonZeroU8) -> Result<(), String> {
    use thread_priority::{
        RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    let value = ThreadPriorityValue::try_from(priority.get()).map_err(|error| error.to_string())?;
    set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Crossplatform(value),
        ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
    )
    .map_err(|error| match error {
        thread_priority::Error::OS(code) => std::io::Error::from_raw_os_error(code).to_string(),
        other => other.to_string(),
    })
}

#[cfg(target_os = "linux")]
fn lock() -> Result<(), String> {
    use rustix::mm::{MlockAllFlags, mlockall};
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
fn raise(_: NonZeroU8) -> Result<(), String> {
    Err("this is not Linux".to_owned())
}

#[cfg(not(target_os = "linux"))]
fn lock() -> Result<(), String> {
    Err("this is not Linux".to_owned())
}

/// The policy and the real-time priority of a thread: fields 41 and 40 of /proc/thread-self/stat (proc(5)).
#[cfg(test)]
pub(crate) fn of_this_thread() -> (u32, u32) {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let field = |number: usize| {
        let text = after_name.split_whitespace().nth(number - 3).unwrap();
        text.parse().unwrap()
    };
    (field(41), field(40))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_the_priority_or_the_error_names_the_permission() {
        const SCHED_FIFO: u32 = 1;
        let thread = std::thread::Builder::new().name("control".into());
        let thread = thread.spawn(|| {
            assert_eq!(of_this_thread(), (0, 0));
            Realtime::default().raise_this_thread().unwrap();
            assert_eq!(of_this_thread(), (0, 0), "nothing was asked for");
            let wanted = Realtime {
                priority: NonZeroU8::new(20),
                lock_memory: false,
            };
            match wanted.raise_this_thread() {
                Ok(()) => assert_eq!(of_this_thread(), (SCHED_FIFO, 20)),
                Err(error) => {
                    let said = error.to_string();
                    assert!(said.contains("LimitRTPRIO=20"), "{said}");
                    assert!(said.contains("thread `control`"), "{said}");
                }
            }
        });
        thread.unwrap().join().unwrap();
    }
}
