//! `calibrate`: from what a sensor shows to what is so.

use schemars::JsonSchema;
use serde::Deserialize;

use super::series::{COMPUTED_BYTES, finite_or_fail};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};

/// Turns a sensor's raw number into the real one: along a line, a polynomial, a table of measured points, or a thermistor's
/// curve. Exactly one of these is given.
///
/// Thermistors: the payload is a resistance in ohms, or with `divider` a voltage, and the result is in degrees Celsius.
/// `steinhart_hart` is 1/T = a + b ln R + c (ln R)^3 with T in kelvin (Steinhart and Hart, "Calibration curves for
/// thermistors", Deep-Sea Research 15, 1968); `thermistor` is 1/T = 1/T0 + ln(R/R0)/beta, which is the same with c = 0.
/// Resistances that are not above 0 fail, and voltages that are not between 0 and the supply.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Calibrate {
    /// A line: `{ gain = 1.02, offset = -0.3 }` gives gain times raw plus offset. Defaults: a gain of 1, an offset of 0.
    linear: Option<Linear>,
    /// A polynomial: from 2 to 10 coefficients, that of the constant first; `[1.5, 2, 0.1]` gives 1.5 + 2 raw + 0.1 raw^2.
    polynomial: Option<Vec<f64>>,
    /// Points `[raw, real]`, from 2 to 1,000, with rising raw values, and straight lines between them. Two points with
    /// `outside = "extend"` are the usual two-point calibration.
    table: Option<Vec<(f64, f64)>>,
    /// What to do outside of the table: `hold` the value at its end, `extend` its last line, or `fail`. Default: `hold`.
    outside: Option<Outside>,
    /// A thermistor's coefficients: `{ a = 1.129148e-3, b = 2.34125e-4, c = 8.76741e-8 }`.
    steinhart_hart: Option<SteinhartHart>,
    /// A thermistor's data: `{ beta = 3950, r0 = 10000, t0 = 25 }` with `r0` ohms at `t0` degrees Celsius. Default of `t0`: 25.
    thermistor: Option<Thermistor>,
    /// For a thermistor in a voltage divider, where the payload is the voltage between the two: `{ resistor = 10000, supply =
    /// 3.3, side = "bottom" }`. `side` is where the thermistor is: `bottom` (to ground) or `top`. Default of `side`: `bottom`.
    divider: Option<Divider>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Linear {
    #[serde(default = "one")]
    gain: f64,
    #[serde(default)]
    offset: f64,
}

fn one() -> f64 {
    1.0
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Outside {
    #[default]
    Hold,
    Extend,
    Fail,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SteinhartHart {
    a: f64,
    b: f64,
    c: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Thermistor {
    beta: f64,
    /// In ohms.
    r0: f64,
    /// In degrees Celsius.
    #[serde(default = "room_temperature")]
    t0: f64,
}

fn room_temperature() -> f64 {
    25.0
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Divider {
    /// The other resistor, in ohms.
    resistor: f64,
    /// In volts.
    supply: f64,
    #[serde(default)]
    side: Side,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Side {
    Top,
    #[default]
    Bottom,
}

/// 0 degrees Celsius in kelvin.
const ICE_POINT_K: f64 = 273.15;

impl Definition for Calibrate {
    const NAME: &'static str = "calibrate";
    const EXAMPLE: &'static str = r#"
[nodes.sensed]
type = "iio"
device = "ads1015"            # so the kernel calls an ADS1115
channel = "voltage0"

[nodes.coolant]               # an NTC of 10 kohm to ground, 10 kohm to 3.3 V
type = "calibrate"
from = "sensed"
thermistor = { beta = 3950, r0 = 10000 }
divider = { resistor = 10000, supply = 3.3 }

[nodes.show]
type = "debug"
from = "coolant"
"#;

    fn hint(option: &str) -> Option<&'static str> {
        match option {
            "points" | "two_point" => Some("give `table`, with `outside = \"extend\"`"),
            "gain" | "offset" => Some("write `linear = { gain = 1.02, offset = -0.3 }`"),
            "beta" | "ntc" => Some("write `thermistor = { beta = 3950, r0 = 10000, t0 = 25 }`"),
            _ => None,
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let is_thermistor = self.steinhart_hart.is_some() || self.thermistor.is_some();
        let given = [
            ("linear", self.linear.is_some()),
            ("polynomial", self.polynomial.is_some()),
            ("table", self.table.is_some()),
            ("steinhart_hart", self.steinhart_hart.is_some()),
            ("thermistor", self.thermistor.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, is_given)| *is_given);
        let mut problems = Vec::new();
        match given.next() {
            None => problems.push(Problem::new(
                "linear",
                "is missing; give it, or `polynomial`, `table`, `steinhart_hart` or `thermistor`",
            )),
            Some((first, _)) => problems.extend(given.map(|(other, _)| {
                Problem::new(other, format!("cannot be given beside `{first}`"))
            })),
        }
        if self.outside.is_some() && self.table.is_none() {
            problems.push(Problem::new("outside", "has a meaning only with `table`"));
        }
        if self.divider.is_some() && !is_thermistor {
            let message = "has a meaning only with `thermistor` or `steinhart_hart`";
            problems.push(Problem::new("divider", message));
        }
        problems.extend(self.linear.iter().flat_map(Linear::problems));
        problems.extend(
            self.polynomial
                .iter()
                .flat_map(|it| polynomial_problems(it)),
        );
        problems.extend(self.table.iter().flat_map(|it| table_problems(it)));
        problems.extend(self.steinhart_hart.iter().flat_map(SteinhartHart::problems));
        problems.extend(self.thermistor.iter().flat_map(Thermistor::problems));
        problems.extend(self.divider.iter().flat_map(Divider::problems));
        problems
    }

    fn load(&self, input: Load) -> Load {
        input.sized(COMPUTED_BYTES)
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let curve = if let Some(coefficients) = &self.polynomial {
            Curve::Polynomial(coefficients.clone())
        } else if let Some(points) = &self.table {
            Curve::Table {
                points: points.clone(),
                outside: self.outside.unwrap_or_default(),
            }
        } else if let Some(coefficients) = self
            .steinhart_hart
            .or(self.thermistor.map(Thermistor::as_steinhart_hart))
        {
            Curve::Thermistor {
                coefficients,
                divider: self.divider,
            }
        } else {
            let Linear { gain, offset } = self.linear.unwrap_or(Linear {
                gain: 1.0,
                offset: 0.0,
            });
            Curve::Polynomial(vec![offset, gain])
        };
        Ok(Box::new(Calibration { curve }))
    }
}

impl Linear {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.gain.is_finite() || self.gain == 0.0 {
            problems.push(Problem::new(
                "linear.gain",
                "must be a finite number other than 0",
            ));
        }
        if !self.offset.is_finite() {
            problems.push(Problem::new("linear.offset", "must be a finite number"));
        }
        problems
    }
}

fn polynomial_problems(coefficients: &[f64]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !(2..=10).contains(&coefficients.len()) {
        problems.push(Problem::new(
            "polynomial",
            "must have from 2 to 10 coefficients",
        ));
    }
    if let Some(place) = coefficients.iter().position(|it| !it.is_finite()) {
        problems.push(Problem::new(
            format!("polynomial.{place}"),
            "must be a finite number",
        ));
    }
    problems
}

fn table_problems(points: &[(f64, f64)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !(2..=1000).contains(&points.len()) {
        problems.push(Problem::new("table", "must have from 2 to 1000 points"));
    }
    let not_finite = points
        .iter()
        .position(|(raw, real)| !raw.is_finite() || !real.is_finite());
    if let Some(place) = not_finite {
        problems.push(Problem::new(
            format!("table.{place}"),
            "must be two finite numbers",
        ));
        return problems;
    }
    for (place, pair) in points.windows(2).enumerate() {
        let at = format!("table.{}", place + 1);
        let [from, to] = [pair[0], pair[1]];
        if from.0 >= to.0 {
            let message = format!(
                "its raw value must be greater than that before it, {}",
                from.0
            );
            problems.push(Problem::new(at, message));
        } else if !slope(from, to).is_finite() || !(to.0 - from.0).is_finite() {
            problems.push(Problem::new(at, "is too far from the point before it"));
        }
    }
    problems
}

impl SteinhartHart {
    fn problems(&self) -> Vec<Problem> {
        [("a", self.a), ("b", self.b), ("c", self.c)]
            .into_iter()
            .filter(|(_, coefficient)| !coefficient.is_finite())
            .map(|(name, _)| {
                Problem::new(format!("steinhart_hart.{name}"), "must be a finite number")
            })
            .collect()
    }

    /// Degrees Celsius from ohms; not a number where the curve has no temperature.
    fn degc(&self, ohms: f64) -> f64 {
        let ln = ohms.ln();
        let per_kelvin = self.a + ln * (self.b + ln * ln * self.c);
        if per_kelvin > 0.0 {
            1.0 / per_kelvin - ICE_POINT_K
        } else {
            f64::NAN
        }
    }
}

impl Thermistor {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = positive("thermistor.beta", self.beta);
        problems.extend(positive("thermistor.r0", self.r0));
        if !self.t0.is_finite() || self.t0 <= -ICE_POINT_K {
            let message = "must be a temperature in degrees Celsius, above -273.15";
            problems.push(Problem::new("thermistor.t0", message));
        }
        problems
    }

    fn as_steinhart_hart(self) -> SteinhartHart {
        SteinhartHart {
            a: 1.0 / (self.t0 + ICE_POINT_K) - self.r0.ln() / self.beta,
            b: 1.0 / self.beta,
            c: 0.0,
        }
    }
}

impl Divider {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = positive("divider.resistor", self.resistor);
        problems.extend(positive("divider.supply", self.supply));
        problems
    }

    /// The thermistor's resistance in ohms; not above 0 or not finite for a voltage that cannot be.
    fn ohms(&self, volts: f64) -> f64 {
        let rest = self.supply - volts;
        match self.side {
            Side::Bottom => self.resistor * volts / rest,
            Side::Top => self.resistor * rest / volts,
        }
    }
}

fn positive(at: &str, number: f64) -> Vec<Problem> {
    if number.is_finite() && number > 0.0 {
        return Vec::new();
    }
    vec![Problem::new(at, "must be a finite number above 0")]
}

struct Calibration {
    curve: Curve,
}

enum Curve {
    /// That of the constant first.
    Polynomial(Vec<f64>),
    Table {
        points: Vec<(f64, f64)>,
        outside: Outside,
    },
    Thermistor {
        coefficients: SteinhartHart,
        divider: Option<Divider>,
    },
}

impl Node for Calibration {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(raw) = cx.number_or_fail(&message.payload) else {
            return;
        };
        match self.curve.real(raw) {
            Ok(real) => {
                let Some(real) = finite_or_fail(real, cx) else {
                    return;
                };
                message.payload = Value::Number(real);
                cx.pass(0);
            }
            Err(reason) => cx.fail(reason),
        }
    }
}

impl Curve {
    /// The real value, or why there is none.
    fn real(&self, raw: f64) -> Result<f64, String> {
        match self {
            // Horner's rule.
            Curve::Polynomial(coefficients) => {
                let powers = coefficients.iter().rev();
                Ok(powers.fold(0.0, |sum, coefficient| sum * raw + coefficient))
            }
            Curve::Table { points, outside } => {
                let (first, last) = (points[0].0, points[points.len() - 1].0);
                match outside {
                    Outside::Hold => Ok(along(points, raw.clamp(first, last))),
                    Outside::Fail if raw < first || raw > last => Err(format!(
                        "{raw} is outside of the table, which is from {first} to {last}"
                    )),
                    Outside::Extend | Outside::Fail => Ok(along(points, raw)),
                }
            }
            Curve::Thermistor {
                coefficients,
                divider,
            } => {
                let ohms = divider.map_or(raw, |divider| divider.ohms(raw));
                if ohms > 0.0 && ohms.is_finite() {
                    return Ok(coefficients.degc(ohms));
                }
                Err(match divider {
                    None => format!("a resistance is above 0 ohms, not {raw}"),
                    Some(divider) => format!(
                        "{raw} V is not between 0 and the {} V of the supply: is the thermistor connected?",
                        divider.supply
                    ),
                })
            }
        }
    }
}

/// The straight lines between points, and the first and the last of them extended. Exact at each point.
fn along(points: &[(f64, f64)], raw: f64) -> f64 {
    let not_after = points.partition_point(|(point, _)| *point <= raw);
    let line = not_after.clamp(1, points.len() - 1);
    let (anchor, value) = points[not_after.saturating_sub(1)];
    value + (raw - anchor) * slope(points[line - 1], points[line])
}

fn slope(from: (f64, f64), to: (f64, f64)) -> f64 {
    (to.1 - from.1) / (to.0 - from.0)
}

#[cfg(test)]
mod tests;
