//! One pin, one process: a claim that the kernel drops with the process, however that ends.
//!
//! Registers are written without anybody's leave, so the kernel cannot tell a second process that a pin is driven. A claim is an abstract
//! Unix socket named after the line: binding it a second time fails, and nothing stays behind in a file system after SIGKILL. It counts
//! within one network namespace: two containers do not see each other's.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::{BoardError, Pin};

/// Held as long as the pin is used.
#[derive(Debug)]
pub(super) struct Claim {
    _socket: Option<UnixDatagram>,
}

impl Claim {
    /// Claims a pin of a chip (`gpiochip0`). Where no such socket can be had at all, the pin is used unclaimed and the log says so:
    /// control matters more than the guard.
    pub(super) fn new(chip: &str, pin: Pin) -> Result<Claim, BoardError> {
        let name = format!("tidegate/{chip}/{}", pin.number());
        let bound = SocketAddr::from_abstract_name(&name)
            .and_then(|address| UnixDatagram::bind_addr(&address));
        match bound {
            Ok(socket) => Ok(Claim {
                _socket: Some(socket),
            }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Err(BoardError::Claimed { pin }),
            Err(error) => {
                tracing::warn!(
                    "{pin} cannot be claimed, so another Tidegate could drive it too: {error}"
                );
                Ok(Claim { _socket: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_pin_is_claimed_once_until_the_claim_is_dropped() {
        // A chip of this test's own: the claims of a running Tidegate, or of another test, are none of its business.
        let chip = format!("test-{}", std::process::id());
        let pin = |number| Pin::new(number).unwrap();
        let claim = Claim::new(&chip, pin(17)).unwrap();
        let refused = Claim::new(&chip, pin(17)).unwrap_err().to_string();
        assert!(
            refused.contains("GPIO17 is in use by another Tidegate"),
            "{refused}"
        );
        let _other_pin = Claim::new(&chip, pin(18)).unwrap();
        let _other_chip = Claim::new(&format!("{chip}-b"), pin(17)).unwrap();
        drop(claim);
        wait_until_free(&chip, pin(17));
    }

    /// A process that some other test starts has this one's sockets from its fork until it runs.
    fn wait_until_free(chip: &str, pin: Pin) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = Claim::new(chip, pin) {
            assert!(Instant::now() < deadline, "{error}");
            thread::sleep(Duration::from_millis(1));
        }
    }
    const CHIP_OF_HOLDER: &str = "TIDEGATE_TEST_CLAIM";

    /// The other process of the test below.
    #[test]
    #[ignore = "only as a process of its own"]
    fn hold() {
        let chip = std::env::var(CHIP_OF_HOLDER).unwrap();
        let _claim = Claim::new(&chip, Pin::new(17).unwrap()).unwrap();
        println!("\nheld");
        io::stdin().lines().next();
    }

    #[test]
    fn a_process_that_is_killed_leaves_no_claim_behind() {
        let chip = format!("test-killed-{}", std::process::id());
        let pin = Pin::new(17).unwrap();
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args([
                "board::claim::tests::hold",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(CHIP_OF_HOLDER, &chip)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(holder.stdout.take().unwrap()).lines();
        assert!(said.map_while(Result::ok).any(|line| line == "held"));
        assert!(matches!(
            Claim::new(&chip, pin),
            Err(BoardError::Claimed { .. })
        ));
        holder.kill().unwrap();
        holder.wait().unwrap();
        wait_until_free(&chip, pin);
    }
}
