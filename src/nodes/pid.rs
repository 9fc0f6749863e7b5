//! `pid`: holds a measurement at a setpoint.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gpio_out::too_short;
use super::range::Ends;
use super::series::{is_ahead, present_or_fail};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, NodeId, Timestamp, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Holds a measurement at a setpoint with a PID controller in its parallel form. The payload is the measurement; it sends
/// what a valve, a fan or a heater is to be driven with, a number within `out`.
///
/// `out = kp * e + ki * integral of e dt - kd * dy/dt`, with the measurement `y` and the error `e = setpoint - y` (turned
/// round with `action = "direct"`). The derivative is that of the measurement, so that a new setpoint gives no kick; with
/// `derivative_filter` it is smoothed by a lag of that time. Gains in the form of `Ti` and `Td` are
/// `ki = kp / Ti` and `kd = kp * Td`. In steps of `h`, as in Åström and Murray, "Feedback Systems" (2008), 10.5, but with the new
/// error in the integral: `I += ki * e * h`, `D = (Tf * D - kd * (y - last y)) / (Tf + h)`.
///
/// `h` is the time between two measurements by their own time stamps, and need not be even. The integral does not move further
/// while the output is at the end of `out` to which it would push (no windup), and stays within `out` itself. The first
/// measurement, and one after a gap of more than `max_gap`, has neither a derivative nor a step of the integral.
///
/// The integral is kept over a restart, and so is a setpoint from a node. If a measurement was missed meanwhile, the next one is as
/// one after a gap: while nothing was controlled, nothing is integrated.
///
/// It keeps one state, whatever the topics. A measurement that is not later than the one before, is no finite number, or is too
/// large to compute with fails and changes nothing. With `setpoint_from`, a message from that node sets the setpoint and
/// sends nothing; before there is one, nothing is sent.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Pid {
    /// What the measurement is to be held at, in its unit. With `setpoint_from`, until that sends one.
    setpoint: Option<f64>,
    /// The node that sends the setpoint, one of those that it reads. Default: none.
    setpoint_from: Option<String>,
    /// Proportional gain: output per unit of error. 0 or more.
    kp: f64,
    /// Integral gain: output per unit of error and second. 0 or more. Default: 0.
    #[serde(default)]
    ki: f64,
    /// Derivative gain: output per unit of the measurement in a second. 0 or more. Default: 0.
    #[serde(default)]
    kd: f64,
    /// The time constant of the derivative's smoothing; a tenth to a third of `kd / kp` is usual. Default: no smoothing.
    derivative_filter: Option<Span>,
    /// The least and the greatest output. Default: `[0, 1]`.
    #[serde(default = "default_out")]
    out: Ends,
    /// How the output acts: `reverse` rises while the measurement is below the setpoint (heating, filling), `direct` while it
    /// is above (cooling, draining). Default: `reverse`.
    #[serde(default)]
    action: Action,
    /// The integral when the flow runs for the first time, in units of the output and within `out`. Default: 0, or the end of `out` that is nearest.
    start: Option<f64>,
    /// After a longer gap between two measurements go on from the second, without a step over the gap. Default: no gap is
    /// too long.
    max_gap: Option<Span>,
}

fn default_out() -> Ends {
    Ends(0.0, 1.0)
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Action {
    #[default]
    Reverse,
    Direct,
}

impl Definition for Pid {
    const NAME: &'static str = "pid";
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"
every = "2s"

[nodes.cooler]
type = "pid"
from = "probe"
setpoint = 4.0            # degC
kp = 0.2                  # of full power for each degree
ki = 0.005                # and that much each second
action = "direct"         # the warmer, the more
max_gap = "1m"

[nodes.compressor]
type = "pwm out"
from = "cooler"
pin = 17
silent_after = "30s"
"#;

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let setpoint = self.setpoint_from.iter();
        setpoint
            .map(|name| ("setpoint_from", name.clone()))
            .collect()
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        match self.setpoint {
            None if self.setpoint_from.is_none() => {
                let message = "is missing: give a number, or `setpoint_from` a node that sends it";
                problems.push(Problem::new("setpoint", message));
            }
            Some(setpoint) if !setpoint.is_finite() => {
                problems.push(Problem::new("setpoint", "must be a finite number"));
            }
            _ => {}
        }
        for (option, gain) in [("kp", self.kp), ("ki", self.ki), ("kd", self.kd)] {
            if !gain.is_finite() || gain < 0.0 {
                let message =
                    "must be a finite number, not negative; which way the output acts is `action`";
                problems.push(Problem::new(option, message));
            }
        }
        if self.kp == 0.0 && self.ki == 0.0 && self.kd == 0.0 {
            let message = "must be greater than 0, or `ki`: nothing would be controlled";
            problems.push(Problem::new("kp", message));
        }
        let Ends(low, high) = self.out;
        if low >= high {
            let message =
                "the first number must be less than the second; to turn it round set `action`";
            problems.push(Problem::new("out", message));
        } else if self
            .start
            .is_some_and(|start| !(low..=high).contains(&start))
        {
            let message = format!("must lie within `out`, from {low} to {high}");
            problems.push(Problem::new("start", message));
        }
        problems.extend(too_short("derivative_filter", self.derivative_filter));
        problems.extend(too_short("max_gap", self.max_gap));
        problems
    }

    fn warnings(&self) -> Vec<Problem> {
        if self.derivative_filter.is_some() && self.kd == 0.0 {
            let message = "has nothing to smooth, for `kd` is 0";
            return vec![Problem::new("derivative_filter", message)];
        }
        Vec::new()
    }

    fn load(&self, input: Load) -> Load {
        const FRACTION_BYTES: f64 = 18.0;
        input.sized(FRACTION_BYTES)
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let Ends(low, high) = self.out;
        Ok(Box::new(Controller {
            setpoint_from: self.setpoint_from.as_deref().map(|name| site.input(name)),
            kp: self.kp,
            ki: self.ki,
            kd: self.kd,
            sign: match self.action {
                Action::Reverse => 1.0,
                Action::Direct => -1.0,
            },
            filter_s: self.derivative_filter.map_or(0.0, |tf| tf.0.as_secs_f64()),
            low,
            high,
            max_gap: self.max_gap.map_or(Duration::MAX, |gap| gap.0),
            remembered: Remembered {
                setpoint: self.setpoint,
                integral: self.start.unwrap_or_else(|| 0.0_f64.clamp(low, high)),
                derivative: 0.0,
                last: None,
                interval: None,
            },
        }))
    }
}

struct Controller {
    setpoint_from: Option<NodeId>,
    kp: f64,
    ki: f64,
    kd: f64,
    /// 1, or -1 if the output rises with the measurement.
    sign: f64,
    /// The time constant of the derivative's filter, in seconds.
    filter_s: f64,
    low: f64,
    high: f64,
    max_gap: Duration,
    remembered: Remembered,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    setpoint: Option<f64>,
    /// The integral part of the output.
    integral: f64,
    /// The derivative part of the output.
    derivative: f64,
    /// The last measurement.
    last: Option<(Timestamp, f64)>,
    /// How long before that the one before it was.
    interval: Option<Duration>,
}

impl Remembered {
    /// Whether a measurement must have come and was not seen, or none can come that is later than the last one.
    fn is_cut_off(&self, pause: Pause, cx: &Context<'_>) -> bool {
        let Some((time, _)) = self.last else {
            return false;
        };
        let away = cx.now().wall.saturating_since(time);
        let is_missed = self.interval.is_none_or(|interval| away > interval);
        (pause == Pause::Restart && is_missed) || is_ahead(time, pause, cx)
    }
}

impl Controller {
    /// The output for a measurement. Nothing is changed if it cannot be computed.
    fn step(&mut self, setpoint: f64, time: Timestamp, y: f64) -> Result<f64, String> {
        let error = self.sign * (setpoint - y);
        let proportional = self.kp * error;
        let Remembered { integral, last, .. } = self.remembered;
        let (mut derivative, mut push, mut interval) = (0.0, 0.0, None);
        if let Some((last_time, last_y)) = last {
            if time <= last_time {
                return Err(format!(
                    "the measurement's time {time} is not after that of the one before, {last_time}"
                ));
            }
            let gap = time.saturating_since(last_time);
            interval = Some(gap);
            if gap <= self.max_gap {
                let h = gap.as_secs_f64();
                let change = self.sign * (y - last_y);
                derivative = (self.filter_s * self.remembered.derivative - self.kd * change)
                    / (self.filter_s + h);
                push = self.ki * error * h;
            }
        }
        let unlimited = proportional + integral + derivative;
        if !unlimited.is_finite() || push.is_nan() {
            return Err(format!(
                "the measurement {y} and the setpoint {setpoint} are too large to compute with"
            ));
        }
        // Only as far as the output has room that way.
        let push = if push > 0.0 {
            push.min((self.high - unlimited).max(0.0))
        } else {
            push.max((self.low - unlimited).min(0.0))
        };
        let integral = (integral + push).clamp(self.low, self.high);
        self.remembered = Remembered {
            integral,
            derivative,
            last: Some((time, y)),
            interval: interval.or(self.remembered.interval),
            ..self.remembered
        };
        let output = proportional + integral + derivative;
        Ok(output.clamp(self.low, self.high))
    }
}

impl Node for Controller {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.remembered))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        self.remembered = state.read()?;
        if self.remembered.is_cut_off(pause, cx) {
            self.remembered.last = None;
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        if self.setpoint_from == Some(message.source) {
            self.remembered.setpoint = Some(number);
            return;
        }
        let Some(setpoint) = self.remembered.setpoint else {
            return;
        };
        // Kept, a time far ahead would make all that follow fail, and the output stay where it is.
        if present_or_fail(message.time, cx).is_none() {
            return;
        }
        match self.step(setpoint, message.time, number) {
            Ok(output) => {
                message.payload = Value::Number(output);
                cx.pass(0);
            }
            Err(reason) => cx.fail(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, node_problems, run_node, run_node_at};

    /// What it sends for measurements a second apart, rounded to a millionth.
    fn check(options: &str, measurements: &[f64], expected: &[f64]) {
        let times = (10..).map(|second| Timestamp::from_millis(second * 1000));
        let timed: Vec<_> = times.zip(measurements.iter().copied()).collect();
        check_at(options, &timed, expected);
    }

    fn check_at(options: &str, measurements: &[(Timestamp, f64)], expected: &[f64]) {
        let payloads = measurements
            .iter()
            .map(|(time, y)| (*time, Value::from(*y)));
        let sent = run_node_at(&format!("type = 'pid'\n{options}"), payloads);
        let sent: Vec<f64> = sent
            .iter()
            .map(|sent| sent.parse::<f64>().unwrap_or_else(|_| panic!("{sent}")))
            .map(|output| (output * 1e6).round() / 1e6)
            .collect();
        assert_eq!(sent, expected, "{options}: {measurements:?}");
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    const WIDE: &str = "setpoint = 10\nout = [-1000, 1000]";

    #[test]
    fn each_part_is_what_the_formula_says() {
        let y = [8.0, 9.0, 12.0, 10.0];
        check(&format!("{WIDE}\nkp = 3"), &y, &[6.0, 3.0, -6.0, 0.0]);
        check(
            &format!("{WIDE}\nkp = 0\nki = 0.5"),
            &y,
            &[0.0, 0.5, -0.5, -0.5],
        );
        check(
            &format!("{WIDE}\nkp = 0\nkd = 2"),
            &y,
            &[0.0, -2.0, -6.0, 4.0],
        );
        check(
            &format!("{WIDE}\nkp = 3\nki = 0.5\nkd = 2"),
            &y,
            &[6.0, 1.5, -12.5, 3.5],
        );
        check(
            &format!("{WIDE}\nkp = 3\nki = 0.5\nkd = 2\naction = 'direct'"),
            &y,
            &[-6.0, -1.5, 12.5, -3.5],
        );
    }

    #[test]
    fn time_between_measurements_counts_and_need_not_be_even() {
        let uneven = [(second(0), 8.0), (second(4), 8.0), (second(5), 6.0)];
        check_at(
            &format!("{WIDE}\nkp = 0\nki = 0.5"),
            &uneven,
            &[0.0, 4.0, 6.0],
        );
        check_at(
            &format!("{WIDE}\nkp = 0\nkd = 2"),
            &[(second(0), 8.0), (second(4), 10.0), (second(5), 11.0)],
            &[0.0, -1.0, -2.0],
        );
    }

    #[test]
    fn the_derivative_is_smoothed() {
        // A ramp of 1 per second: Tf = 3 s takes 3/4 of the old and 1/4 of the new with each second.
        check(
            &format!("{WIDE}\nkp = 0\nkd = 1\nderivative_filter = '3s'"),
            &[0.0, 1.0, 2.0, 3.0, 3.0],
            &[0.0, -0.25, -0.4375, -0.578125, -0.433594],
        );
    }

    #[test]
    fn the_integral_begins_where_told_and_the_output_is_limited() {
        let y = [10.0, 10.0];
        let options = "setpoint = 10\nkp = 1\nki = 1";
        check(options, &y, &[0.0, 0.0]);
        check(&format!("{options}\nstart = 0.4"), &y, &[0.4, 0.4]);
        check(&format!("{options}\nout = [20, 80]"), &y, &[20.0, 20.0]);
        check(&format!("{options}\nout = [-80, -20]"), &y, &[-20.0, -20.0]);
        check(options, &[0.0, 20.0], &[1.0, 0.0]);
    }

    #[test]
    fn the_integral_stops_where_the_output_has_no_room() {
        // Far below for long: the output is full, and leaves the limit with the first measurement that asks for it.
        let mut y = vec![0.0; 1000];
        y.extend([9.5, 10.5]);
        let mut expected = vec![1.0; 1000];
        // kp alone gives 0.05 and -0.05; the integral had no room to grow, and moves by 0.1 * e.
        expected.extend([0.1, 0.0]);
        check("setpoint = 10\nkp = 0.1\nki = 0.1", &y, &expected);
        // With an integral alone it goes up to the limit, no further, and comes back from there.
        check(
            "setpoint = 10\nkp = 0\nki = 0.4",
            &[9.0, 9.0, 9.0, 9.0, 9.0, 11.0, 11.0],
            &[0.0, 0.4, 0.8, 1.0, 1.0, 0.6, 0.2],
        );
    }

    #[test]
    fn the_integral_stays_within_the_output_even_if_the_derivative_leaves_room() {
        // A fast rise pulls the output far down while the integral is to grow by 5.
        check(
            "setpoint = 10\nkp = 0\nki = 1\nkd = 10",
            &[0.0, 5.0, 5.0, 10.5, 10.5],
            &[0.0, 0.0, 1.0, 0.0, 0.5],
        );
    }

    #[test]
    fn a_gap_is_not_stepped_over() {
        let gap = [
            (second(0), 8.0),
            (second(1), 8.0),
            (second(12), 2.0),
            (second(13), 2.0),
        ];
        let options = format!("{WIDE}\nkp = 0\nki = 0.5\nkd = 1");
        check_at(
            &format!("{options}\nmax_gap = '10s'"),
            &gap,
            &[0.0, 1.0, 1.0, 5.0],
        );
        // Just inside.
        let inside = [(second(0), 8.0), (second(1), 8.0), (second(11), 8.0)];
        check_at(
            &format!("{options}\nmax_gap = '10s'"),
            &inside,
            &[0.0, 1.0, 11.0],
        );
        check_at(&options, &gap[1..], &[0.0, 44.545455, 48.0]);
    }

    #[test]
    fn a_measurement_that_is_not_later_fails_and_changes_nothing() {
        let sent = run_node_at(
            &format!("type = 'pid'\n{WIDE}\nkp = 0\nki = 1"),
            [(second(5), 9.0), (second(5), 0.0), (second(6), 9.0)]
                .map(|(t, y)| (t, Value::from(y))),
        );
        let failed = "failed: the measurement's time 1970-01-01T00:00:05.000Z is not after that of the one before, \
                      1970-01-01T00:00:05.000Z";
        assert_eq!(sent, ["0", failed, "1"]);
        let mut run = Run::new(&format!("type = 'pid'\n{WIDE}\nkp = 0\nki = 1"));
        for nanos in [i64::MIN, i64::MAX, i64::MIN] {
            run.go_on_until(Timestamp::from_nanos(nanos));
            run.deliver(Timestamp::from_nanos(nanos), 9.0.into());
        }
        assert_eq!(run.sent.len(), 3);
        assert!(run.sent[2].starts_with("failed: "), "{:?}", run.sent);
    }

    #[test]
    fn what_is_no_measurement_fails_and_changes_nothing() {
        let too_large = |y: f64| {
            format!("failed: the measurement {y} and the setpoint 10 are too large to compute with")
        };
        let sent = run_node(
            &format!("type = 'pid'\n{WIDE}\nkp = 3\nkd = 3"),
            [9.0, f64::NAN, f64::INFINITY, 1e308, -1e308, 9.0].map(Value::from),
        );
        let no_number = |what: &str| {
            format!("failed: needs a finite number, but the payload is a number: {what}")
        };
        let expected = [
            "3".to_owned(),
            no_number("NaN"),
            no_number("inf"),
            too_large(1e308),
            too_large(-1e308),
            "3".to_owned(),
        ];
        assert_eq!(sent, expected);
        // An integral that would overflow stops at its limit.
        check(
            "setpoint = 10\nkp = 0\nki = 10",
            &[-1e307, -1e307, 1e307],
            &[0.0, 1.0, 0.0],
        );
    }

    #[test]
    fn a_setpoint_comes_from_a_node_and_gives_no_kick() {
        let mut run = Run::with_sources(
            &["source", "knob"],
            "type = 'pid'\nsetpoint_from = 'knob'\nkp = 0.5\nkd = 100\nout = [-1000, 1000]",
        );
        let steps = [
            ("source", 20.0.into()),
            ("knob", 21.0.into()),
            ("source", 20.0.into()),
            ("source", 20.0.into()),
            ("knob", 40.0.into()),
            ("knob", Value::Null),
            ("source", 20.0.into()),
        ];
        for (at, (source, payload)) in (0..).zip(steps) {
            run.go_on_until(second(at));
            run.deliver_message(source, "t", second(at), payload);
        }
        let failed = "failed: needs a finite number, but the payload is null: null";
        assert_eq!(run.sent, ["0.5", "0.5", failed, "10"]);

        let mut run = Run::with_sources(
            &["source", "knob"],
            "type = 'pid'\nsetpoint = 5\nsetpoint_from = 'knob'\nkp = 1\nout = [0, 10]",
        );
        run.go_on_until(second(0));
        run.deliver_message("source", "t", second(0), 3.0.into());
        run.go_on_until(second(1));
        run.deliver_message("knob", "t", second(1), 4.0.into());
        run.go_on_until(second(2));
        run.deliver_message("source", "t", second(2), 3.0.into());
        assert_eq!(run.sent, ["2", "1"]);
    }

    /// A plant of the first order in a closed loop: `gain` times the output is where it goes, with a time constant of 60 s,
    /// from 0; measured each second. Gives the measurements. `setpoint(second)` is sent before each.
    fn closed_loop(options: &str, gain: f64, setpoint: impl Fn(i64) -> f64) -> Vec<f64> {
        let mut run = Run::with_sources(
            &["source", "knob"],
            &format!("type = 'pid'\nsetpoint_from = 'knob'\n{options}"),
        );
        let keeps = (-1.0_f64 / 60.0).exp();
        let mut y = 0.0;
        let mut measured = Vec::new();
        for at in 0..3000 {
            run.go_on_until(second(at));
            run.deliver_message("knob", "t", second(at), setpoint(at).into());
            run.go_on_until(second(at));
            run.deliver_message("source", "t", second(at), y.into());
            let last = run.messages.last().expect("an output for each measurement");
            let output = last.payload.as_number().expect("a number");
            assert!((0.0..=1.0).contains(&output), "{output}");
            measured.push(y);
            y = gain * output + (y - gain * output) * keeps;
        }
        assert_eq!(run.sent.len(), 3000, "no failures");
        measured
    }

    const TUNED: &str = "kp = 0.05\nki = 0.001\nkd = 0.1\nderivative_filter = '5s'";

    #[test]
    fn it_brings_a_plant_to_its_setpoint_without_overshoot() {
        let y = closed_loop(TUNED, 100.0, |_| 50.0);
        let highest = y.iter().copied().fold(0.0, f64::max);
        assert!(highest < 51.0, "{highest}");
        let late = &y[600..];
        assert!(late.iter().all(|y| (y - 50.0).abs() < 0.1), "{:?}", late[0]);
    }

    #[test]
    fn it_follows_steps_up_and_down() {
        let y = closed_loop(TUNED, 100.0, |at| if at < 1000 { 50.0 } else { 30.0 });
        assert!((y[999] - 50.0).abs() < 0.1, "{}", y[999]);
        let lowest = y[1000..].iter().copied().fold(f64::MAX, f64::min);
        assert!(lowest > 29.0, "{lowest}");
        assert!((y[1900] - 30.0).abs() < 0.1, "{}", y[1900]);
    }

    #[test]
    fn it_does_not_wind_up_while_the_setpoint_is_out_of_reach() {
        // Full power reaches 40 of the 50 that are wanted for half an hour; then 20 is wanted.
        let y = closed_loop(TUNED, 40.0, |at| if at < 1800 { 50.0 } else { 20.0 });
        assert!((y[1799] - 40.0).abs() < 0.1, "{}", y[1799]);
        // By itself the plant falls from 40 to 22 within 36 s. With windup the output would stay full for long.
        let below = y[1800..].iter().position(|y| *y < 22.0).expect("it falls");
        assert!(below < 60, "{below}");
        let lowest = y[1800..].iter().copied().fold(f64::MAX, f64::min);
        assert!(lowest > 18.0, "{lowest}");
        assert!((y[2900] - 20.0).abs() < 0.1, "{}", y[2900]);
    }

    #[test]
    fn options_are_checked() {
        let check = |options: &str, expected: &str| {
            let found = node_problems(&format!("type = 'pid'\n{options}"));
            assert!(found.iter().any(|p| p.contains(expected)), "{found:?}");
        };
        check(
            "kp = 1",
            "`setpoint`: is missing: give a number, or `setpoint_from`",
        );
        check(
            "kp = 1\nsetpoint = nan",
            "`setpoint`: must be a finite number",
        );
        check(
            "kp = -1\nsetpoint = 1",
            "`kp`: must be a finite number, not negative",
        );
        check(
            "kp = 1\nki = inf\nsetpoint = 1",
            "`ki`: must be a finite number",
        );
        check(
            "kp = 1\nkd = nan\nsetpoint = 1",
            "`kd`: must be a finite number",
        );
        check(
            "kp = 0\nsetpoint = 1",
            "`kp`: must be greater than 0, or `ki`",
        );
        let valid = "kp = 1\nsetpoint = 1";
        let out = "`out`: the first number must be less than the second";
        check(&format!("{valid}\nout = [1, 0]"), out);
        check(&format!("{valid}\nout = [1, 1]"), out);
        let start = "`start`: must lie within `out`, from 0 to 1";
        check(&format!("{valid}\nstart = 1.1"), start);
        check(&format!("{valid}\nstart = nan"), start);
        check(
            &format!("{valid}\nmax_gap = '0s'"),
            "`max_gap`: must be at least 1ms",
        );
        check(
            &format!("{valid}\nderivative_filter = '0s'"),
            "`derivative_filter`: must be",
        );
        check(
            &format!("{valid}\nderivative_filter = '1s'"),
            "warning: `derivative_filter`: has nothing to smooth",
        );
        check(
            &format!("{valid}\nsetpoint_from = 'knob'"),
            "does not read from `knob`",
        );
        check(&format!("{valid}\naction = 'cool'"), "`action`");
    }

    /// The integral is kept over a pause. Only measurements that were not missed are steps of it.
    #[test]
    fn nothing_is_integrated_over_a_pause_in_which_a_measurement_was_missed() {
        let check = |off_ms: u64, expected: &[&str]| {
            let mut run = Run::new(&format!("type = 'pid'\n{WIDE}\nkp = 0\nki = 0.5\nkd = 2"));
            for at in [0, 1] {
                run.go_on_until(second(at));
                run.deliver(second(at), 8.0.into());
            }
            run.restart(Duration::from_millis(off_ms));
            for y in [8.0, 9.0] {
                let next = run.now.wall.saturating_add(Duration::from_secs(1));
                run.go_on_until(next);
                run.deliver(next, y.into());
            }
            assert_eq!(run.sent, expected, "{off_ms} ms");
        };
        check(0, &["0", "1", "2", "0.5"]);
        check(1000, &["0", "1", "3", "1.5"]);
        check(1001, &["0", "1", "1", "-0.5"]);
        check(86_400_000, &["0", "1", "1", "-0.5"]);
    }

    #[test]
    fn a_setpoint_from_a_node_is_kept() {
        let mut run = Run::with_sources(
            &["source", "wanted"],
            "type = 'pid'\nsetpoint_from = 'wanted'\nkp = 1\nout = [-100, 100]",
        );
        run.deliver_message("wanted", "t", second(0), 20.0.into());
        run.restart(Duration::from_secs(86_400));
        run.deliver(run.now.wall, 15.0.into());
        assert_eq!(run.sent, ["5"]);
    }
}
