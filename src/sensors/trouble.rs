//! Why a part gives no reading.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::kernel::KernelError;

/// What went wrong with a part or the bus that it is on; who and where is said before it.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("{} does not exist; {remedy}", path.display())]
    NoBus { path: PathBuf, remedy: String },
    #[error(
        "no permission to use {}: add the user to the group `{group}` (`sudo usermod -aG {group} USER`) and log in again, or \
         give the service `SupplementaryGroups={group}`", path.display()
    )]
    Permission { path: PathBuf, group: &'static str },
    #[error(
        "the driver `{driver}` of the kernel has it: read it with `type = \"iio\"`, or take its overlay out of /boot/firmware/config.txt"
    )]
    Claimed { driver: String },
    #[error(
        "nothing answers there: look at supply, ground, wiring and address; `i2cdetect -y BUS` of i2c-tools lists what answers"
    )]
    NoAnswer,
    #[error("no answer within {after:?}: a line may be held low, or a wire be loose")]
    TimedOut { after: Duration },
    #[error(
        "{line} is in use by `{by}`: take it out of the flow or program that has it, or its overlay out of /boot/firmware/config.txt"
    )]
    InUse { line: String, by: String },
    #[error("{} cannot be used", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the check sum is wrong, so bits were lost on the way: look at cable length, pull-ups and supply"
    )]
    Checksum,
    #[error("it says {says}, but {expected} was expected: {remedy}")]
    WrongPart {
        says: String,
        expected: String,
        remedy: String,
    },
    #[error(
        "{value} {unit} cannot be: it measures {low} to {high} {unit}; look at wiring and supply"
    )]
    Impossible {
        quantity: Cow<'static, str>,
        value: f64,
        unit: Cow<'static, str>,
        low: f64,
        high: f64,
    },
    #[error("{0}")]
    NotReady(String),
    /// There is more than it can measure as it is set.
    #[error("{0}")]
    Saturated(String),
    /// It is there, and does not do what it is asked.
    #[error("{0}")]
    Refused(String),
    #[error(
        "it failed {failures} times in a row, so its bus gets a rest; it is tried again in {again_in:.0?}"
    )]
    Resting { failures: u32, again_in: Duration },
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Trouble {
    /// Whether asking again at once may help. Not where that would hold up the bus, nor where only a person can help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Trouble::NoAnswer
            | Trouble::Io { .. }
            | Trouble::Checksum
            | Trouble::Impossible { .. } => true,
            Trouble::NoBus { .. }
            | Trouble::Permission { .. }
            | Trouble::Claimed { .. }
            | Trouble::InUse { .. }
            | Trouble::TimedOut { .. }
            | Trouble::WrongPart { .. }
            | Trouble::NotReady(_)
            | Trouble::Saturated(_)
            | Trouble::Refused(_)
            | Trouble::Resting { .. } => false,
            Trouble::Kernel(error) => {
                matches!(error, KernelError::Crc { .. } | KernelError::Zeros { .. })
            }
        }
    }
}
