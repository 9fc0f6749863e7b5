//! Connections that are not yet clients: how many there may be, in all and from one address.
//!
//! Nobody has shown a certificate yet, so whoever reaches the port can make them: one host must not take them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

/// In all. Each holds a socket for the length of two time-outs at most.
const ALL_MAX: usize = 256;
/// From one address. A site behind one gateway comes back all at once after an outage, so it is not small.
const ADDRESS_MAX: usize = 64;

/// The handshakes under way.
#[derive(Default)]
pub(super) struct Handshakes {
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A handshake under way, until this is dropped.
pub(super) struct Handshake {
    handshakes: Arc<Handshakes>,
    address: IpAddr,
}

/// Why there is no room for another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Crowd {
    All,
    Address,
}

impl Handshakes {
    pub(super) fn enter(self: &Arc<Handshakes>, address: IpAddr) -> Result<Handshake, Crowd> {
        // An IPv4 client of a socket that listens on IPv6 is still the same client.
        let address = address.to_canonical();
        let mut by_address = self
            .by_address
            .lock()
            .expect("nothing panics while it is locked");
        if by_address.values().sum::<usize>() >= ALL_MAX {
            return Err(Crowd::All);
        }
        let count = by_address.entry(address).or_default();
        if *count >= ADDRESS_MAX {
            return Err(Crowd::Address);
        }
        *count += 1;
        Ok(Handshake {
            handshakes: self.clone(),
            address,
        })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut by_address = self
            .handshakes
            .by_address
            .lock()
            .expect("nothing panics while it is locked");
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let handshakes = Arc::<Handshakes>::default();
        let mut greedy: Vec<Handshake> = (0..ADDRESS_MAX)
            .map(|_| handshakes.enter(address(1)).ok().unwrap())
            .collect();
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        for again in [address(1), mapped] {
            assert_eq!(handshakes.enter(again).err(), Some(Crowd::Address));
        }
        assert!(handshakes.enter(address(2)).is_ok());
        greedy.pop();
        assert!(handshakes.enter(address(1)).is_ok());
        drop(greedy);
        assert!(handshakes.by_address.lock().unwrap().is_empty());
    }

    #[test]
    fn all_addresses_together_have_a_limit() {
        let handshakes = Arc::<Handshakes>::default();
        let all: Vec<Handshake> = (0..ALL_MAX)
            .map(|number| handshakes.enter(address(number as u8)).ok().unwrap())
            .collect();
        assert_eq!(handshakes.enter(address(1)).err(), Some(Crowd::All));
        drop(all);
        assert!(handshakes.enter(address(1)).is_ok());
    }
}
