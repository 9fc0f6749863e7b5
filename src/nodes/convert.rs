//! `convert`: from one unit to another.

use schemars::JsonSchema;
use serde::Deserialize;

use super::series::{COMPUTED_BYTES, finite_or_fail};
use super::units::{self, Conversion};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::diagnostic::did_you_mean;
use crate::flow::estimate::Load;
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};

/// Converts a number from one unit to another of the same quantity. A temperature is a point on its scale, not a difference.
///
/// The units, whose capitals matter (`mW` is not `MW`):
///
/// - temperature: `degC`, `degF`, `K`
/// - pressure: `Pa`, `hPa`, `kPa`, `MPa`, `mbar`, `bar`, `atm`, `psi`, `mmHg`, `inHg`, `mmH2O`, `inH2O`, `mH2O`, `Torr`
/// - length: `nm`, `um`, `mm`, `cm`, `m`, `km`, `in`, `ft`, `yd`, `mi`, `nmi`
/// - area: `mm2`, `cm2`, `m2`, `ha`, `km2`, `in2`, `ft2`, `acre`
/// - volume: `ml`, `cl`, `l`, `hl`, `m3`, `gal` (US), `imp_gal`, `fl_oz` (US), `in3`, `ft3`
/// - mass: `mg`, `g`, `kg`, `t`, `oz`, `lb`; force: `N`, `kN`, `kgf`, `lbf`
/// - time: `ns`, `us`, `ms`, `s`, `min`, `h`, `d`; frequency: `Hz`, `kHz`, `MHz`, `rpm`
/// - speed: `mm/s`, `m/s`, `km/h`, `mph`, `kn`, `ft/s`, `ft/min`; acceleration: `m/s2`, `gn` (standard gravity), `mgn`
/// - flow: `ml/min`, `l/s`, `l/min`, `l/h`, `m3/s`, `m3/h`, `gpm` (US), `cfm`
/// - energy: `J`, `kJ`, `MJ`, `GJ`, `Wh`, `kWh`, `MWh`, `cal` (thermochemical), `kcal`, `BTU` (International Table)
/// - power: `mW`, `W`, `kW`, `MW`, `hp` (mechanical), `PS` (metric), `BTU/h`
/// - voltage: `uV`, `mV`, `V`, `kV`; current: `uA`, `mA`, `A`; charge: `As`, `mAh`, `Ah`; resistance: `mohm`, `ohm`, `kohm`,
///   `Mohm`
/// - angle: `deg`, `rad`, `gon`, `turn`; share: `ratio`, `percent`, `permille`, `ppm`, `ppb`
/// - density: `kg/m3`, `g/m3`, `mg/m3`, `ug/m3`
/// - data: `bit`, `B`, `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`
///
/// The factors are those of the units' definitions (SI Brochure, NIST Special Publication 811).
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Convert {
    /// The unit that the payload is in, such as `degF`. `°F`, `m³/h`, `µA` and other common spellings are understood.
    unit: String,
    /// The unit to convert it to, such as `degC`.
    to: String,
}

impl Definition for Convert {
    const NAME: &'static str = "convert";
    const EXAMPLE: &'static str = r#"
[nodes.barometer]
type = "iio"
device = "bme280"
channel = "pressure"

[nodes.inches]
type = "convert"
from = "barometer"
unit = "hPa"
to = "inHg"

[nodes.show]
type = "debug"
from = "inches"
"#;

    fn hint(option: &str) -> Option<&'static str> {
        match option {
            "from_unit" | "unit_from" | "source_unit" => Some("it is called `unit`"),
            "to_unit" | "unit_to" | "target_unit" | "into" => Some("it is called `to`"),
            _ => None,
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let (from, to) = (units::find(&self.unit), units::find(&self.to));
        let mut problems = Vec::new();
        for (option, name, found) in [("unit", &self.unit, from), ("to", &self.to, to)] {
            if found.is_none() {
                let other_capitals = units::names().find(|it| it.eq_ignore_ascii_case(name));
                let help = other_capitals
                    .map(|known| format!("did you mean `{known}`?"))
                    .or_else(|| did_you_mean(name, units::names()))
                    .unwrap_or_else(|| "units are written like `degC`, `l/min`, `kWh`".to_owned());
                problems.push(Problem::new(
                    option,
                    format!("there is no unit `{name}`; {help}"),
                ));
            }
        }
        if let (Some((from, _)), Some((to, _))) = (from, to)
            && from.name != to.name
        {
            problems.push(Problem::new(
                "to",
                format!(
                    "`{}` is a unit of {}, but `{}` is one of {}",
                    self.to, to.name, self.unit, from.name
                ),
            ));
        }
        problems
    }

    fn warnings(&self) -> Vec<Problem> {
        let is_idle = self.conversion().is_some_and(Conversion::is_idle);
        is_idle
            .then(|| Problem::new("to", "is the same unit: nothing is converted"))
            .into_iter()
            .collect()
    }

    fn load(&self, input: Load) -> Load {
        input.sized(COMPUTED_BYTES)
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let conversion = self
            .conversion()
            .expect("`problems` has seen that both units are there");
        Ok(Box::new(Converter { conversion }))
    }
}

impl Convert {
    fn conversion(&self) -> Option<Conversion> {
        let ((_, from), (_, to)) = (units::find(&self.unit)?, units::find(&self.to)?);
        Some(Conversion::between(from, to))
    }
}

struct Converter {
    conversion: Conversion,
}

impl Node for Converter {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        let Some(result) = finite_or_fail(self.conversion.apply(number), cx) else {
            return;
        };
        message.payload = Value::Number(result);
        cx.pass(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::NodeType;
    use crate::nodes::testing::{node_mistakes, run_node, run_node_json};

    #[test]
    fn it_converts() {
        let check = |unit: &str, to: &str, payloads: &str, expected: &[&str]| {
            let node = format!("type = 'convert'\nunit = '{unit}'\nto = '{to}'");
            assert_eq!(run_node_json(&node, payloads), expected, "{unit} to {to}");
        };
        check("degF", "degC", "[]", &[]);
        check("degF", "degC", "[32, 212, -40]", &["0", "100", "-40"]);
        check(" °F ", "K", "[32]", &["273.15"]);
        check("m³/h", "l/min", "[1.8]", &["30"]);
        check(
            "kWh",
            "J",
            r#"["1", 1]"#,
            &[
                "failed: needs a finite number, but the payload is text: \"1\"",
                "3600000",
            ],
        );
    }

    #[test]
    fn a_result_too_large_fails() {
        let sent = run_node(
            "type = 'convert'\nunit = 'kWh'\nto = 'J'",
            [1e303, f64::INFINITY, 1e301].map(Value::Number),
        );
        assert_eq!(
            sent,
            [
                "failed: the result is not a finite number: inf",
                "failed: needs a finite number, but the payload is a number: inf",
                "3.6e+307",
            ]
        );
    }

    #[test]
    fn units_must_be_known_and_fit() {
        let check = |unit: &str, to: &str, expected: &[&str]| {
            let node = format!("type = 'convert'\nunit = '{unit}'\nto = '{to}'");
            assert_eq!(node_mistakes(&node), expected, "{unit} to {to}");
        };
        check("degF", "degC", &[]);
        check(
            "degf",
            "parsec",
            &[
                "`unit`: there is no unit `degf`; did you mean `degF`?",
                "`to`: there is no unit `parsec`; units are written like `degC`, `l/min`, `kWh`",
            ],
        );
        check(
            "",
            "m",
            &["`unit`: there is no unit ``; units are written like `degC`, `l/min`, `kWh`"],
        );
        check(
            "kW",
            "kWh",
            &["`to`: `kWh` is a unit of energy, but `kW` is one of power"],
        );
        check(
            "litr",
            "KWH",
            &[
                "`unit`: there is no unit `litr`; did you mean `liter`?",
                "`to`: there is no unit `KWH`; did you mean `kWh`?",
            ],
        );
        check(
            "hPa",
            "mbar",
            &["`to`: is the same unit: nothing is converted"],
        );
    }

    #[test]
    fn the_documentation_names_every_unit() {
        let schema = NodeType::find("convert").unwrap().schema();
        let text = schema
            .get("description")
            .and_then(|it| it.as_str())
            .unwrap();
        for name in units::first_names() {
            assert!(text.contains(&format!("`{name}`")), "`{name}` is not there");
        }
    }
}
