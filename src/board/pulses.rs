//! Output lines of a board, each at a level or with pulses: software PWM.
//!
//! One thread switches every line that has pulses. It is started when the first line wants some, and sleeps from edge to
//! edge. When a line switches is a pure function of time; see docs/decisions/0011-pwm.md for why this is not rppal's.
//!
//! Must not: hold the lock for anything but writing levels, for the control thread takes it too.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{BoardError, Drive, Level, Pin, Pulses};
use crate::runtime::clock::Clock;

/// A line that can be switched.
pub(super) trait Line: Send + 'static {
    fn write(&mut self, level: Level) -> Result<(), BoardError>;

    /// Lets go of it at the end of the board, and leaves it at its level.
    fn leave(self)
    where
        Self: Sized,
    {
    }
}

/// The output lines of a board. The thread ends when this is dropped; what had pulses then stays as it is at that moment.
pub(super) struct Lines<L: Line> {
    clock: Clock,
    shared: Arc<Shared<L>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<L> {
    state: Mutex<State<L>>,
    /// Woken when a line has got pulses or the thread is to stop.
    changed: Condvar,
}

struct State<L> {
    lines: BTreeMap<Pin, Driven<L>>,
    /// The last pulse that could not be written.
    failed: Option<BoardError>,
    stop: bool,
}

struct Driven<L> {
    line: L,
    rhythm: Option<Rhythm>,
    /// When the last period began that a level ended.
    began: Option<Duration>,
}

/// The pulses on a line.
#[derive(Debug)]
struct Rhythm {
    /// Those of this period.
    pulses: Pulses,
    /// Those of the next one.
    wanted: Pulses,
    level: Level,
    /// When the level changes, as monotonic time.
    next: Duration,
}

impl Rhythm {
    /// Begins with a pulse.
    fn start(pulses: Pulses, now: Duration) -> Rhythm {
        Rhythm {
            pulses,
            wanted: pulses,
            level: Level::High,
            next: now.saturating_add(pulses.width()),
        }
    }

    /// Goes on in a period that a level has interrupted, so that pulses which come and go at each new duty are not more than
    /// one in each period; with a pulse if that period is over.
    fn resume(pulses: Pulses, began: Duration, now: Duration) -> Rhythm {
        let mut rhythm = Rhythm::start(pulses, began);
        if now.saturating_sub(began) >= pulses.period() {
            return Rhythm::start(pulses, now);
        }
        rhythm.due(now);
        rhythm
    }

    /// When the period began.
    fn began(&self) -> Duration {
        let since = if self.level.is_high() {
            self.pulses.width()
        } else {
            self.pulses.period()
        };
        self.next.saturating_sub(since)
    }

    /// The level to switch to, once it is time. What counts is when it was due, so that lateness does not add up; after a
    /// whole period without a look at it the rhythm begins anew.
    fn due(&mut self, now: Duration) -> Option<Level> {
        let late = now.checked_sub(self.next)?;
        let since = if late < self.pulses.period() {
            self.next
        } else {
            now
        };
        let span = if self.level.is_high() {
            self.level = Level::Low;
            self.pulses.period().saturating_sub(self.pulses.width())
        } else {
            self.level = Level::High;
            self.pulses = self.wanted;
            self.pulses.width()
        };
        self.next = since.saturating_add(span);
        Some(self.level)
    }
}

impl<L> Shared<L> {
    fn lock(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Line> State<L> {
    /// Switches what is due and tells when the next line is.
    fn switch(&mut self, now: Duration) -> Option<Duration> {
        let mut first = None;
        for Driven { line, rhythm, .. } in self.lines.values_mut() {
            let Some(rhythm) = rhythm else { continue };
            if let Some(level) = rhythm.due(now)
                && let Err(error) = line.write(level)
            {
                self.failed = Some(error);
            }
            first = Some(first.map_or(rhythm.next, |first: Duration| first.min(rhythm.next)));
        }
        first
    }
}

impl<L: Line> Lines<L> {
    pub(super) fn new(clock: &Clock) -> Lines<L> {
        Lines {
            clock: clock.clone(),
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    lines: BTreeMap::new(),
                    failed: None,
                    stop: false,
                }),
                changed: Condvar::new(),
            }),
            thread: None,
        }
    }

    pub(super) fn contains(&self, pin: Pin) -> bool {
        self.shared.lock().lines.contains_key(&pin)
    }

    /// Takes over a line, which keeps its level.
    pub(super) fn insert(&mut self, pin: Pin, line: L) {
        let driven = Driven {
            line,
            rhythm: None,
            began: None,
        };
        self.shared.lock().lines.insert(pin, driven);
    }

    pub(super) fn remove(&mut self, pin: Pin) {
        self.shared.lock().lines.remove(&pin);
    }

    /// Drives a line, if it is there. A level ends pulses at once; a change of pulses counts from the next one.
    pub(super) fn drive(&mut self, pin: Pin, drive: Drive) -> Result<(), BoardError> {
        if matches!(drive, Drive::Pulses(_)) {
            self.start_thread()?;
        }
        let mut state = self.shared.lock();
        let Some(driven) = state.lines.get_mut(&pin) else {
            return Ok(());
        };
        match (drive, &mut driven.rhythm) {
            (Drive::Level(level), rhythm) => {
                let interrupted = rhythm.take().map(|rhythm| rhythm.began());
                driven.began = interrupted.or(driven.began);
                driven.line.write(level)?;
            }
            (Drive::Pulses(pulses), Some(rhythm)) => rhythm.wanted = pulses,
            (Drive::Pulses(pulses), rhythm) => {
                let now = self.clock.now().mono;
                let new = match driven.began {
                    Some(began) => Rhythm::resume(pulses, began, now),
                    None => Rhythm::start(pulses, now),
                };
                let written = driven.line.write(new.level);
                *rhythm = Some(new);
                drop(state);
                self.shared.changed.notify_one();
                written?;
            }
        }
        Ok(())
    }

    /// Tells of a pulse that could not be written since the last call.
    pub(super) fn check(&self) -> Result<(), BoardError> {
        self.shared.lock().failed.take().map_or(Ok(()), Err)
    }

    fn start_thread(&mut self) -> Result<(), BoardError> {
        const THREAD: &str = "pulses";
        if self
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            return Ok(());
        }
        let (shared, clock) = (self.shared.clone(), self.clock.clone());
        let thread = thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || make_pulses(&shared, &clock))
            .map_err(|source| BoardError::Thread {
                name: THREAD,
                source,
            })?;
        self.thread = Some(thread);
        Ok(())
    }
}

impl<L: Line> Drop for Lines<L> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so, and there is nobody to tell here.
            let _ = thread.join();
        }
        let lines = mem::take(&mut self.shared.lock().lines);
        lines.into_values().for_each(|driven| driven.line.leave());
    }
}

fn make_pulses<L: Line>(shared: &Shared<L>, clock: &Clock) {
    let mut state = shared.lock();
    while !state.stop {
        state = match state.switch(clock.now().mono) {
            Some(next) => {
                let span = next.saturating_sub(clock.now().mono);
                shared
                    .changed
                    .wait_timeout(state, span)
                    .map(|(state, _)| state)
                    .unwrap_or_else(|poisoned| poisoned.into_inner().0)
            }
            None => shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn pulses(period: Duration, duty: f64) -> Pulses {
        match Drive::with_duty(period, duty) {
            Drive::Pulses(pulses) => pulses,
            Drive::Level(level) => panic!("{level}"),
        }
    }

    /// What a rhythm of 10 ms with 30 % switches when it is looked at in these milliseconds.
    fn check(looks: &[u64], expected: &[Option<Level>]) {
        let mut rhythm = Rhythm::start(pulses(ms(10), 0.3), ms(0));
        let found: Vec<_> = looks.iter().map(|at| rhythm.due(ms(*at))).collect();
        assert_eq!(found, expected, "{looks:?}");
    }

    const HIGH: Option<Level> = Some(Level::High);
    const LOW: Option<Level> = Some(Level::Low);

    #[test]
    fn it_switches_when_it_is_due_and_not_before() {
        check(&[2, 3, 9, 10, 12, 13], &[None, LOW, None, HIGH, None, LOW]);
    }

    #[test]
    fn lateness_does_not_add_up() {
        check(&[5, 9, 10, 12, 13], &[LOW, None, HIGH, None, LOW]);
        // Late for the whole pulse: it is short, and the rhythm stays.
        check(&[3, 14, 14, 19, 20], &[LOW, HIGH, LOW, None, HIGH]);
    }

    #[test]
    fn after_a_pause_it_begins_anew_without_catching_up() {
        check(&[3, 1000, 1002, 1003], &[LOW, HIGH, None, LOW]);
    }

    #[test]
    fn a_new_width_counts_from_the_next_pulse() {
        let mut rhythm = Rhythm::start(pulses(ms(10), 0.3), ms(0));
        rhythm.wanted = pulses(ms(10), 0.8);
        assert_eq!([3, 9].map(|at| rhythm.due(ms(at))), [LOW, None]);
        assert_eq!([10, 17, 18].map(|at| rhythm.due(ms(at))), [HIGH, None, LOW]);
        assert_eq!([19, 20].map(|at| rhythm.due(ms(at))), [None, HIGH]);
    }

    #[test]
    fn after_a_level_it_goes_on_in_its_period_or_begins_anew_if_that_is_over() {
        // 10 ms with 30 %, begun at 0: the level, and when it changes.
        let check = |now: u64, level: Level, next: u64| {
            let rhythm = Rhythm::resume(pulses(ms(10), 0.3), ms(0), ms(now));
            assert_eq!((rhythm.level, rhythm.next), (level, ms(next)), "{now}");
            assert_eq!(rhythm.began(), ms(if now < 10 { 0 } else { now }), "{now}");
        };
        check(0, Level::High, 3);
        check(2, Level::High, 3);
        check(3, Level::Low, 10);
        check(9, Level::Low, 10);
        check(10, Level::High, 13);
        check(1000, Level::High, 1003);
    }

    #[test]
    fn pulses_that_come_and_go_are_no_more_than_their_share() {
        // Each 1 ms another duty: 20 % of 10 ms, and none; then 80 %, and all.
        let high_of_a_thousand = |duty: f64, other: Level| {
            let mut began = None;
            let mut high = 0;
            for at in 0..1000 {
                if at % 2 == 1 {
                    high += u32::from(other.is_high());
                    continue;
                }
                let pulses = pulses(ms(10), duty);
                let rhythm = match began {
                    Some(began) => Rhythm::resume(pulses, began, ms(at)),
                    None => Rhythm::start(pulses, ms(at)),
                };
                high += u32::from(rhythm.level.is_high());
                began = Some(rhythm.began());
            }
            high
        };
        assert_eq!(high_of_a_thousand(0.2, Level::Low), 100);
        assert_eq!(high_of_a_thousand(0.8, Level::High), 900);
    }

    #[test]
    fn over_time_the_duty_is_what_was_wanted() {
        let mut rhythm = Rhythm::start(pulses(ms(10), 0.37), ms(0));
        let mut level = Level::High;
        let (mut high, total) = (0_u32, 100_000_u32);
        for tick in 0..total {
            // Looked at every 0.1 ms, and from 0 to 2 ms late besides.
            let at = Duration::from_micros(100 * u64::from(tick));
            if tick % 7 != 0 || tick % 20 == 0 {
                level = rhythm.due(at).unwrap_or(level);
            }
            high += u32::from(level.is_high());
        }
        let duty = f64::from(high) / f64::from(total);
        assert!((duty - 0.37).abs() < 0.02, "{duty}");
    }

    #[derive(Clone, Default)]
    struct Noted(Arc<Mutex<Vec<Level>>>, Arc<AtomicBool>);

    impl Line for Noted {
        fn write(&mut self, level: Level) -> Result<(), BoardError> {
            self.0.lock().unwrap().push(level);
            Ok(())
        }

        fn leave(self) {
            self.1.store(true, Ordering::SeqCst);
        }
    }

    /// A line whose writes fail, as one on a bus may.
    struct Broken(Pin);

    impl Line for Broken {
        fn write(&mut self, _: Level) -> Result<(), BoardError> {
            Err(BoardError::Pin {
                pin: self.0,
                direction: "output",
                source: "gone".into(),
            })
        }
    }

    #[test]
    fn a_write_that_fails_is_told_at_once_and_one_of_the_thread_when_asked() {
        let pin = Pin::new(18).unwrap();
        let mut lines = Lines::new(&Clock::start());
        lines.insert(pin, Broken(pin));
        let check = |result: Result<(), BoardError>| {
            assert!(matches!(result, Err(BoardError::Pin { .. })), "{result:?}");
        };
        check(lines.drive(pin, Drive::Level(Level::High)));
        assert!(lines.check().is_ok(), "that one was told");
        check(lines.drive(pin, Drive::with_duty(ms(2), 0.5)));
        wait_for("a pulse", || lines.shared.lock().failed.is_some());
        check(lines.check());
    }

    impl Noted {
        fn levels(&self) -> Vec<Level> {
            self.0.lock().unwrap().clone()
        }
    }

    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain for: {what}");
            thread::sleep(ms(1));
        }
    }

    #[test]
    fn pulses_alternate_until_a_level_ends_them() {
        let pin = Pin::new(18).unwrap();
        let mut lines = Lines::new(&Clock::start());
        let noted = Noted::default();
        lines.insert(pin, noted.clone());
        lines.drive(pin, Drive::Level(Level::Low)).unwrap();
        assert!(lines.thread.is_none(), "a level needs no thread");

        let drive = Drive::with_duty(ms(2), 0.5);
        lines.drive(pin, drive).unwrap();
        wait_for("ten pulses", || noted.levels().len() > 20);
        lines.drive(pin, Drive::Level(Level::High)).unwrap();
        let levels = noted.levels();
        let (last, switched) = levels.split_last().unwrap();
        assert!(switched.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(*last, Level::High);

        // As many periods again, in which the other line goes on: nothing more comes on this one.
        let other = Noted::default();
        let other_pin = Pin::new(19).unwrap();
        lines.insert(other_pin, other.clone());
        lines.drive(other_pin, drive).unwrap();
        wait_for("ten more pulses", || other.levels().len() > 20);
        assert_eq!(noted.levels(), levels);
    }

    #[test]
    fn a_line_is_left_as_it_is_at_the_end_and_let_go_when_it_is_taken_away() {
        let pin = Pin::new(18).unwrap();
        let (left, removed) = (Noted::default(), Noted::default());
        let mut lines = Lines::new(&Clock::start());
        lines.insert(pin, removed.clone());
        lines.remove(pin);
        lines.insert(pin, left.clone());
        drop(lines);
        assert!(left.1.load(Ordering::SeqCst) && !removed.1.load(Ordering::SeqCst));
        assert!(left.levels().is_empty());
    }

    #[test]
    fn dropping_it_does_not_wait_for_a_slow_pulse() {
        let pin = Pin::new(18).unwrap();
        let mut lines = Lines::new(&Clock::start());
        lines.insert(pin, Noted::default());
        let start = Instant::now();
        lines
            .drive(pin, Drive::with_duty(Duration::from_secs(100), 0.5))
            .unwrap();
        drop(lines);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
