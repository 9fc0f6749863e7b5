//! The thread over lines that the test makes edges on. Each line is a socket, so that `poll` is the real one.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use super::Level::{High, Low};
use super::*;
use crate::message::Timestamp;

/// An input that the test drives.
struct Wire {
    socket: UnixDatagram,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_high: AtomicBool,
    is_broken: AtomicBool,
    /// How many are armed now.
    armed: AtomicU32,
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Line for Wire {
    fn level(&self) -> Result<Level, Source> {
        Ok(Level::from(self.state.is_high.load(Ordering::SeqCst)))
    }

    fn read(&mut self, seen: &mut Vec<Seen>) -> Result<(), Source> {
        if self.state.is_broken.load(Ordering::SeqCst) {
            return Err("broken".into());
        }
        let mut bytes = [0; 16];
        while self.socket.recv(&mut bytes).is_ok() {
            let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            seen.push(Seen {
                stamp: Duration::new(u64::from(number(0)), number(4)),
                level: Level::from(number(8) == 1),
                number: number(12),
            });
        }
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.armed.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The lines of a board, by the test's end.
#[derive(Default)]
struct Bench {
    ends: Mutex<BTreeMap<Pin, UnixDatagram>>,
    states: Mutex<BTreeMap<Pin, Arc<State>>>,
    is_busy: AtomicBool,
}

impl Inputs for Arc<Bench> {
    type Line = Wire;

    fn arm(&self, pin: Pin, _: Pull) -> Result<Wire, BoardError> {
        let state = self.state(pin);
        let is_free = state.armed.fetch_add(1, Ordering::SeqCst) == 0;
        let (socket, end) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let wire = Wire { socket, state };
        if !is_free || self.is_busy.load(Ordering::SeqCst) {
            let consumer = "w1".to_owned();
            return Err(BoardError::Busy { pin, consumer });
        }
        self.ends.lock().unwrap().insert(pin, end);
        Ok(wire)
    }
}

impl Bench {
    fn state(&self, pin: Pin) -> Arc<State> {
        self.states.lock().unwrap().entry(pin).or_default().clone()
    }

    fn edge(&self, pin: Pin, seen: Seen) {
        let words = [
            u32::try_from(seen.stamp.as_secs()).unwrap(),
            seen.stamp.subsec_nanos(),
            u32::from(seen.level.is_high()),
            seen.number,
        ];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.state(pin)
            .is_high
            .store(seen.level.is_high(), Ordering::SeqCst);
        self.ends.lock().unwrap()[&pin].send(&bytes).unwrap();
    }
}

#[derive(Clone, Default)]
struct Got(Arc<Mutex<Vec<Edge>>>);

impl Got {
    fn sink(&self) -> EdgeSink {
        let got = self.0.clone();
        Arc::new(move |edge| got.lock().unwrap().push(edge))
    }

    /// Waits for so many, and returns pins, levels and times.
    fn wait(&self, count: usize) -> Vec<(u8, Level, Timestamp)> {
        wait_for("edges", || self.0.lock().unwrap().len() >= count);
        let edges = self.0.lock().unwrap();
        edges
            .iter()
            .map(|edge| (edge.pin.number(), edge.level, edge.time))
            .collect()
    }

    fn levels(&self, count: usize) -> Vec<Level> {
        self.wait(count)
            .into_iter()
            .map(|(_, level, _)| level)
            .collect()
    }
}

fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    let mut condition = condition;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn pin(number: u8) -> Pin {
    Pin::new(number).unwrap()
}

fn seen(number: u32, level: Level) -> Seen {
    Seen {
        stamp: kernel_now(),
        level,
        number,
    }
}

fn bench() -> (Arc<Bench>, Edges<Arc<Bench>>, Clock) {
    let (bench, clock) = (Arc::<Bench>::default(), Clock::start());
    let edges = Edges::new(bench.clone(), &clock);
    (bench, edges, clock)
}

#[test]
fn edges_are_handed_over_with_the_time_of_their_stamp() {
    let (bench, mut edges, clock) = bench();
    let got = Got::default();
    bench.state(pin(17)).is_high.store(true, Ordering::SeqCst);
    assert_eq!(edges.arm(pin(17), Pull::Up, got.sink()).unwrap(), High);

    let before = kernel_now();
    let at = clock.now().wall;
    for (number, level) in [(1, Low), (2, High)] {
        // As if the kernel had seen it a quarter of an hour ahead: so it is not the time of reading.
        let stamp = before + Duration::from_secs(900) + Duration::from_millis(u64::from(number));
        bench.edge(
            pin(17),
            Seen {
                stamp,
                level,
                number,
            },
        );
    }
    let found = got.wait(2);
    assert_eq!(got.levels(2), [Low, High]);
    let ahead = found[0].2.saturating_since(at);
    assert!((900.0..960.0).contains(&ahead.as_secs_f64()), "{ahead:?}");
    assert_eq!(
        found[1].2.saturating_since(found[0].2),
        Duration::from_millis(1)
    );
    assert!(edges.recheck().is_ok());
}

#[test]
fn what_is_read_in_one_turn_is_in_the_order_of_the_stamps() {
    let (bench, mut edges, _) = bench();
    let got = Got::default();
    // The thread stands in this sink until the test lets it go, so that the rest is read in one turn.
    let (release, gate) = crossbeam_channel::bounded::<()>(0);
    let (is_in, entered) = crossbeam_channel::bounded::<()>(1);
    let hold: EdgeSink = Arc::new(move |_| {
        is_in.send(()).unwrap();
        gate.recv().unwrap();
    });
    edges.arm(pin(1), Pull::None, hold).unwrap();
    for number in [4, 5] {
        edges.arm(pin(number), Pull::None, got.sink()).unwrap();
    }
    bench.edge(pin(1), seen(1, High));
    entered.recv().unwrap();
    let start = kernel_now();
    let at = |millis| start + Duration::from_millis(millis);
    // The two outputs of a rotary encoder, read one after the other.
    for (line, number, level, millis) in [
        (5, 1, High, 2),
        (5, 2, Low, 4),
        (4, 1, High, 1),
        (4, 2, Low, 3),
    ] {
        let stamp = at(millis);
        bench.edge(
            pin(line),
            Seen {
                stamp,
                level,
                number,
            },
        );
    }
    release.send(()).unwrap();
    let order: Vec<(u8, Level)> = got
        .wait(4)
        .into_iter()
        .map(|(pin, level, _)| (pin, level))
        .collect();
    assert_eq!(order, [(4, High), (5, High), (4, Low), (5, Low)]);
}

#[test]
fn a_gap_is_counted_with_its_pin_and_the_level_is_right() {
    let (bench, mut edges, _) = bench();
    let got = Got::default();
    edges.arm(pin(17), Pull::None, got.sink()).unwrap();
    bench.edge(pin(17), seen(1, High));
    bench.edge(pin(17), seen(40, Low));
    assert_eq!(got.levels(2), [High, Low]);
    let error = edges.recheck().unwrap_err().to_string();
    assert!(error.contains("38 edges of GPIO17 were lost"), "{error}");
    assert_eq!((edges.lost(), edges.lost()), (38, 0), "once");
    assert!(edges.recheck().is_ok());
}

#[test]
fn a_level_without_an_edge_is_told_by_the_looks() {
    let (bench, mut edges, _) = bench();
    let got = Got::default();
    edges.arm(pin(17), Pull::None, got.sink()).unwrap();
    bench.state(pin(17)).is_high.store(true, Ordering::SeqCst);
    assert_eq!(got.levels(1), [High]);
    assert!(matches!(edges.recheck(), Err(BoardError::FoundLate { .. })));
}

#[test]
fn a_closed_line_is_free_at_once_and_tells_nothing_more() {
    let (bench, mut edges, _) = bench();
    let (got, other) = (Got::default(), Got::default());
    for _ in 0..20 {
        edges.arm(pin(17), Pull::None, got.sink()).unwrap();
        edges.close(pin(17));
        assert_eq!(bench.state(pin(17)).armed.load(Ordering::SeqCst), 0);
    }
    edges.arm(pin(17), Pull::None, got.sink()).unwrap();
    edges
        .arm(pin(17), Pull::None, other.sink())
        .expect("armed anew, not busy");
    bench.edge(pin(17), seen(1, High));
    assert_eq!(other.levels(1), [High]);
    assert!(got.0.lock().unwrap().is_empty());
}

#[test]
fn a_line_that_fails_is_armed_anew_and_the_others_go_on() {
    let (bench, mut edges, _) = bench();
    let (got, other) = (Got::default(), Got::default());
    edges.arm(pin(17), Pull::None, got.sink()).unwrap();
    edges.arm(pin(18), Pull::None, other.sink()).unwrap();
    bench.state(pin(17)).is_broken.store(true, Ordering::SeqCst);
    bench.edge(pin(17), seen(1, High));
    wait_for("the end of it", || {
        bench.state(pin(17)).armed.load(Ordering::SeqCst) == 0
    });
    bench.edge(pin(18), seen(1, High));
    assert_eq!(other.levels(1), [High]);

    // While it cannot be had, each call says so.
    bench.is_busy.store(true, Ordering::SeqCst);
    wait_for("the note", || edges.recheck().is_err());
    for _ in 0..2 {
        assert!(matches!(edges.recheck(), Err(BoardError::Busy { .. })));
    }
    bench.is_busy.store(false, Ordering::SeqCst);
    bench
        .state(pin(17))
        .is_broken
        .store(false, Ordering::SeqCst);
    assert!(matches!(edges.recheck(), Err(BoardError::ArmedAnew { .. })));
    assert_eq!(got.levels(1), [High], "the level that it has now");
    assert!(edges.recheck().is_ok());
    bench.edge(pin(17), seen(1, Low));
    assert_eq!(got.levels(2), [High, Low]);
}

#[test]
fn a_thread_that_ended_is_started_again_with_all_its_inputs() {
    let (bench, mut edges, _) = bench();
    let got = Got::default();
    let bad: EdgeSink = Arc::new(|edge: Edge| {
        assert!(
            !edge.level.is_high(),
            "a sink that panics, as the test wants"
        )
    });
    edges.arm(pin(17), Pull::None, got.sink()).unwrap();
    edges.arm(pin(18), Pull::None, bad).unwrap();
    bench.edge(pin(18), seen(1, High));
    wait_for("its end", || edges.reader.as_ref().unwrap().has_ended());
    // Closing and arming go on meanwhile.
    edges.close(pin(18));
    assert!(matches!(edges.recheck(), Err(BoardError::ArmedAnew { .. })));
    assert!(edges.recheck().is_ok());
    bench.edge(pin(17), seen(1, High));
    assert_eq!(got.levels(2), [Low, High], "its level, and the new edge");
}

#[test]
fn dropping_it_lets_all_lines_go() {
    let (bench, mut edges, _) = bench();
    edges
        .arm(pin(17), Pull::None, Got::default().sink())
        .unwrap();
    drop(edges);
    assert_eq!(bench.state(pin(17)).armed.load(Ordering::SeqCst), 0);
}
