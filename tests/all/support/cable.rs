//! A cable that can be cut, can fall silent, and can be slow: a TCP relay on a loopback address of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::random::Random;

/// The port of all addresses of [`own_address`]; below those that the system hands out.
const PORT: u16 = 18_883;

/// An address that nobody else listens at: on Linux all of 127.0.0.0/8 is loopback. So nothing has to be guessed about
/// free ports, and an address can stay without a listener, or lose it and get it back.
pub(crate) fn own_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Two runs of the tests at a time have different process ids.
    let of_process = std::process::id() << 7;
    for _ in 0..1_000 {
        let number = of_process.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let [_, _, high, low] = number.to_be_bytes();
        // From 1 to 254.
        let highest = 1 + ((number >> 16) % 254) as u8;
        let address = SocketAddr::from((Ipv4Addr::new(127, highest, high, low), PORT));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no loopback address is free at port {PORT}");
}

/// Relays connections to where it leads.
pub(crate) struct Cable {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    leads_to: Option<SocketAddr>,
    silence: Silence,
    /// Gives the delay of the next piece, if there are delays.
    delays: Option<Random>,
    is_gone: bool,
    connections: Vec<TcpStream>,
}

/// What does not get through, though connections stand.
#[derive(Clone, Copy, Default, PartialEq)]
enum Silence {
    #[default]
    Nothing,
    Answers,
    Everything,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    ToBroker,
    ToDevice,
}

/// In milliseconds.
const LATEST: u64 = 150;

impl Cable {
    /// Lays a cable from `address`. Until it leads somewhere, connections are accepted and closed at once.
    pub(crate) fn lay(address: SocketAddr) -> Cable {
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::<Shared>::default();
        std::thread::spawn({
            let shared = shared.clone();
            move || {
                for near in listener.incoming().map_while(Result::ok) {
                    if shared.state.lock().unwrap().is_gone {
                        break;
                    }
                    shared.connect(near);
                }
            }
        });
        Cable { address, shared }
    }

    /// Mends the cable: from now on it leads there. Connections that stand are cut.
    pub(crate) fn lead_to(&self, broker: SocketAddr) {
        self.set(Some(broker));
    }

    /// Cuts the cable: connections end, new ones are closed at once.
    pub(crate) fn cut(&self) {
        self.set(None);
    }

    /// Nothing gets through any more, and nobody is told.
    pub(crate) fn fall_silent(&self) {
        self.shared.state.lock().unwrap().silence = Silence::Everything;
    }

    /// What the broker says does not get through any more.
    pub(crate) fn hold_answers(&self) {
        self.shared.state.lock().unwrap().silence = Silence::Answers;
    }

    /// What is sent comes in pieces that are up to so much late, each way by itself; as `random` has it.
    pub(crate) fn delay(&self, random: Random) {
        self.shared.state.lock().unwrap().delays = Some(random);
    }

    fn set(&self, leads_to: Option<SocketAddr>) {
        let mut state = self.shared.state.lock().unwrap();
        state.leads_to = leads_to;
        state.silence = Silence::Nothing;
        state.delays = None;
        for connection in state.connections.drain(..) {
            // The other side may have closed it already.
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().is_gone = true;
        self.set(None);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn connect(self: &Arc<Shared>, near: TcpStream) {
        let mut state = self.state.lock().unwrap();
        let Some(Ok(far)) = state.leads_to.map(TcpStream::connect) else {
            return;
        };
        for (from, to, way) in [(&near, &far, Way::ToBroker), (&far, &near, Way::ToDevice)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            state.connections.push(to.try_clone().unwrap());
            let shared = self.clone();
            std::thread::spawn(move || shared.copy(from, to, way));
        }
    }

    /// Ends with the connection, whatever ends that.
    fn copy(&self, mut from: TcpStream, mut to: TcpStream, way: Way) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let is_held = |state: &mut State| match state.silence {
                Silence::Nothing => false,
                Silence::Answers => way == Way::ToDevice,
                Silence::Everything => true,
            };
            let state = self.state.lock().unwrap();
            let mut state = self.changed.wait_while(state, is_held).unwrap();
            let delay = state.delays.as_mut().map(|random| random.millis(0, LATEST));
            drop(state);
            std::thread::sleep(delay.unwrap_or_default());
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
