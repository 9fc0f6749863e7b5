//! Frees an I2C bus whose data line a chip holds low.
//!
//! A chip that lost its place in the midst of a byte, when the Pi was restarted say, waits for clocks that nobody gives, and holds the data
//! line. It lets go within nine of them (NXP UM10204 revision 7, section 3.1.16, "bus clear"); a STOP then ends what it thought was going on.
//! The Pi's controller has no such thing, so the two pins are taken from it for the moment.
//!
//! Must not: drive a line high: both are open drain.

use std::time::Duration;

/// The two lines of a bus, in our hands.
pub trait Wires {
    /// Lets the clock go, or holds it low.
    fn set_clock(&mut self, is_high: bool);
    fn set_data(&mut self, is_high: bool);
    /// What the lines show.
    fn clock(&mut self) -> bool;
    fn data(&mut self) -> bool;
    fn wait(&mut self, span: Duration);
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The data line was high: something else is the matter.
    NotStuck,
    /// The data line is high again, after so many clocks.
    Freed { clocks: u8 },
    /// It is still low: a short circuit, or a chip without sense.
    Stuck,
    /// The clock line is held low, so nobody can clock.
    ClockStuck,
}

/// Half a clock at 50 kHz, slow enough for any chip.
const HALF: Duration = Duration::from_micros(10);

pub(super) fn recover(wires: &mut dyn Wires) -> Recovery {
    wires.set_clock(true);
    wires.set_data(true);
    wires.wait(HALF);
    if !wires.clock() {
        return Recovery::ClockStuck;
    }
    if wires.data() {
        return Recovery::NotStuck;
    }
    for clocks in 1..=9 {
        wires.set_clock(false);
        wires.wait(HALF);
        wires.set_clock(true);
        wires.wait(HALF);
        if wires.data() {
            stop(wires);
            return Recovery::Freed { clocks };
        }
    }
    Recovery::Stuck
}

/// Data rises while the clock is high.
fn stop(wires: &mut dyn Wires) {
    wires.set_clock(false);
    wires.wait(HALF);
    wires.set_data(false);
    wires.wait(HALF);
    wires.set_clock(true);
    wires.wait(HALF);
    wires.set_data(true);
    wires.wait(HALF);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chip that holds the data line for so many clocks more.
    struct Chip {
        holds: u8,
        clock: bool,
        data: bool,
        clock_is_held: bool,
        stops: u8,
    }

    impl Wires for Chip {
        fn set_clock(&mut self, is_high: bool) {
            if !self.clock && is_high {
                self.holds = self.holds.saturating_sub(1);
            }
            self.clock = is_high;
        }
        fn set_data(&mut self, is_high: bool) {
            if self.clock && !self.data && is_high && self.holds == 0 {
                self.stops += 1;
            }
            self.data = is_high;
        }
        fn clock(&mut self) -> bool {
            self.clock && !self.clock_is_held
        }
        fn data(&mut self) -> bool {
            self.data && self.holds == 0
        }
        fn wait(&mut self, _: Duration) {}
    }

    #[test]
    fn a_chip_lets_go_within_nine_clocks_or_not_at_all() {
        let check = |holds: u8, expected: Recovery, stops: u8| {
            let mut chip = Chip {
                holds,
                clock: true,
                data: true,
                clock_is_held: false,
                stops: 0,
            };
            assert_eq!(recover(&mut chip), expected, "{holds}");
            assert_eq!(chip.stops, stops, "{holds}");
            assert!(chip.clock, "the clock is let go");
            assert!(chip.data, "and the data");
        };
        check(0, Recovery::NotStuck, 0);
        check(1, Recovery::Freed { clocks: 1 }, 1);
        check(9, Recovery::Freed { clocks: 9 }, 1);
        check(10, Recovery::Stuck, 0);
    }

    #[test]
    fn nobody_can_clock_a_line_that_is_held() {
        let mut chip = Chip {
            holds: 3,
            clock: true,
            data: true,
            clock_is_held: true,
            stops: 0,
        };
        assert_eq!(recover(&mut chip), Recovery::ClockStuck);
        assert_eq!(chip.holds, 3, "it was not clocked");
    }
}
