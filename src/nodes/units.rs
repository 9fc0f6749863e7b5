//! Units of measurement by name, and what each is in the base unit of its quantity.
//!
//! No crate is used for this: those that are kept well convert at compile time and by type, which a flow file cannot name.
//!
//! Each factor is the definition, as a quotient of whole numbers where there are such: so converting by a power of ten gives the
//! nearest double there is. Sources: the SI Brochure (BIPM, 9th edition, 2019), tables 4 and 8 and the prefixes; NIST Special
//! Publication 811 (2008), appendix B, for the others, which rest on the inch of 25.4 mm, the pound of 0.45359237 kg, the US
//! gallon of 231 cubic inches, the imperial gallon of 4.54609 l and standard gravity of 9.80665 m/s2.

use std::f64::consts::PI;

/// What can be measured, and the units for it. The first of them is the base unit.
#[derive(Debug)]
pub(super) struct Quantity {
    pub(super) name: &'static str,
    units: &'static [Unit],
}

/// A unit: `(number - zero) * times / over` is the number in the base unit.
#[derive(Debug)]
pub(super) struct Unit {
    /// How it is written: first the spelling that the documentation has, then others.
    names: &'static [&'static str],
    times: f64,
    over: f64,
    /// What it shows where the base unit shows 0.
    zero: f64,
}

const fn base(names: &'static [&'static str]) -> Unit {
    unit(names, 1.0, 1.0)
}

const fn unit(names: &'static [&'static str], times: f64, over: f64) -> Unit {
    Unit {
        names,
        times,
        over,
        zero: 0.0,
    }
}

const fn shifted(names: &'static [&'static str], times: f64, over: f64, zero: f64) -> Unit {
    Unit {
        names,
        times,
        over,
        zero,
    }
}

const QUANTITIES: &[Quantity] = &[
    Quantity {
        name: "temperature",
        units: &[
            base(&["degC", "°C", "C", "celsius"]),
            shifted(&["degF", "°F", "F", "fahrenheit"], 5.0, 9.0, 32.0),
            shifted(&["K", "kelvin"], 1.0, 1.0, 273.15),
        ],
    },
    Quantity {
        name: "pressure",
        units: &[
            base(&["Pa"]),
            unit(&["hPa"], 100.0, 1.0),
            unit(&["kPa"], 1e3, 1.0),
            unit(&["MPa"], 1e6, 1.0),
            unit(&["mbar"], 100.0, 1.0),
            unit(&["bar"], 1e5, 1.0),
            unit(&["atm"], 101_325.0, 1.0),
            // A pound-force on a square inch: 4.4482216152605 N on 0.00064516 m2.
            unit(&["psi", "lbf/in2"], 44_482_216_152_605.0, 6_451_600_000.0),
            // Columns at standard gravity: mercury of 13595.1 kg/m3, water of 1000 kg/m3 (both "conventional").
            unit(&["mmHg"], 133_322_387_415.0, 1e9),
            unit(&["inHg"], 3_386_388_640_341.0, 1e9),
            unit(&["mmH2O"], 980_665.0, 1e5),
            unit(&["inH2O"], 24_908_891.0, 1e5),
            unit(&["mH2O"], 980_665.0, 100.0),
            unit(&["Torr"], 101_325.0, 760.0),
        ],
    },
    Quantity {
        name: "length",
        units: &[
            base(&["m"]),
            unit(&["nm"], 1.0, 1e9),
            unit(&["um"], 1.0, 1e6),
            unit(&["mm"], 1.0, 1e3),
            unit(&["cm"], 1.0, 100.0),
            unit(&["km"], 1e3, 1.0),
            unit(&["in", "inch"], 254.0, 1e4),
            unit(&["ft", "foot", "feet"], 3048.0, 1e4),
            unit(&["yd"], 9144.0, 1e4),
            unit(&["mi", "mile"], 1_609_344.0, 1e3),
            unit(&["nmi"], 1852.0, 1.0),
        ],
    },
    Quantity {
        name: "area",
        units: &[
            base(&["m2"]),
            unit(&["mm2"], 1.0, 1e6),
            unit(&["cm2"], 1.0, 1e4),
            unit(&["ha"], 1e4, 1.0),
            unit(&["km2"], 1e6, 1.0),
            unit(&["in2"], 64_516.0, 1e8),
            unit(&["ft2"], 9_290_304.0, 1e8),
            // The international acre, of 4840 square yards of 0.9144 m.
            unit(&["acre"], 40_468_564_224.0, 1e7),
        ],
    },
    Quantity {
        name: "volume",
        units: &[
            base(&["l", "L", "litre", "liter"]),
            unit(&["ml", "mL", "cm3"], 1.0, 1e3),
            unit(&["cl"], 1.0, 100.0),
            unit(&["hl"], 100.0, 1.0),
            unit(&["m3"], 1e3, 1.0),
            unit(&["gal", "gallon"], 3_785_411_784.0, 1e9),
            unit(&["imp_gal"], 454_609.0, 1e5),
            unit(&["fl_oz"], 295_735_295_625.0, 1e13),
            unit(&["in3"], 16_387_064.0, 1e9),
            unit(&["ft3"], 28_316_846_592.0, 1e9),
        ],
    },
    Quantity {
        name: "mass",
        units: &[
            base(&["kg"]),
            unit(&["mg"], 1.0, 1e6),
            unit(&["g"], 1.0, 1e3),
            unit(&["t"], 1e3, 1.0),
            unit(&["oz"], 28_349_523_125.0, 1e12),
            unit(&["lb"], 45_359_237.0, 1e8),
        ],
    },
    Quantity {
        name: "force",
        units: &[
            base(&["N"]),
            unit(&["kN"], 1e3, 1.0),
            unit(&["kgf"], 980_665.0, 1e5),
            unit(&["lbf"], 44_482_216_152_605.0, 1e13),
        ],
    },
    Quantity {
        name: "time",
        units: &[
            base(&["s"]),
            unit(&["ns"], 1.0, 1e9),
            unit(&["us"], 1.0, 1e6),
            unit(&["ms"], 1.0, 1e3),
            unit(&["min"], 60.0, 1.0),
            unit(&["h"], 3600.0, 1.0),
            unit(&["d"], 86_400.0, 1.0),
        ],
    },
    Quantity {
        name: "frequency",
        units: &[
            base(&["Hz"]),
            unit(&["kHz"], 1e3, 1.0),
            unit(&["MHz"], 1e6, 1.0),
            unit(&["rpm", "1/min"], 1.0, 60.0),
        ],
    },
    Quantity {
        name: "speed",
        units: &[
            base(&["m/s"]),
            unit(&["mm/s"], 1.0, 1e3),
            unit(&["km/h"], 10.0, 36.0),
            unit(&["mph"], 44_704.0, 1e5),
            unit(&["kn", "knot"], 1852.0, 3600.0),
            unit(&["ft/s"], 3048.0, 1e4),
            unit(&["ft/min"], 3048.0, 6e5),
        ],
    },
    Quantity {
        name: "acceleration",
        units: &[
            base(&["m/s2"]),
            unit(&["gn", "g0"], 980_665.0, 1e5),
            unit(&["mgn"], 980_665.0, 1e8),
        ],
    },
    Quantity {
        name: "flow",
        units: &[
            base(&["l/s", "L/s"]),
            unit(&["l/min", "L/min"], 1.0, 60.0),
            unit(&["l/h", "L/h"], 1.0, 3600.0),
            unit(&["ml/min", "mL/min"], 1.0, 6e4),
            unit(&["m3/s"], 1e3, 1.0),
            unit(&["m3/h"], 1e3, 3600.0),
            unit(&["gpm", "gal/min"], 3_785_411_784.0, 6e10),
            unit(&["cfm", "ft3/min"], 28_316_846_592.0, 6e10),
        ],
    },
    Quantity {
        name: "energy",
        units: &[
            base(&["J", "Ws"]),
            unit(&["kJ"], 1e3, 1.0),
            unit(&["MJ"], 1e6, 1.0),
            unit(&["GJ"], 1e9, 1.0),
            unit(&["Wh"], 3600.0, 1.0),
            unit(&["kWh"], 3.6e6, 1.0),
            unit(&["MWh"], 3.6e9, 1.0),
            // The thermochemical calorie, and the British thermal unit of the International Table.
            unit(&["cal"], 4184.0, 1e3),
            unit(&["kcal"], 4184.0, 1.0),
            unit(&["BTU", "Btu"], 105_505_585_262.0, 1e8),
        ],
    },
    Quantity {
        name: "power",
        units: &[
            base(&["W", "J/s"]),
            unit(&["mW"], 1.0, 1e3),
            unit(&["kW"], 1e3, 1.0),
            unit(&["MW"], 1e6, 1.0),
            // 550 foot-pounds-force a second, and 75 metre-kilograms-force a second.
            unit(&["hp"], 74_569_987_158_227_022.0, 1e14),
            unit(&["PS"], 73_549_875.0, 1e5),
            unit(&["BTU/h", "Btu/h"], 105_505_585_262.0, 3.6e11),
        ],
    },
    Quantity {
        name: "voltage",
        units: &[
            base(&["V"]),
            unit(&["uV"], 1.0, 1e6),
            unit(&["mV"], 1.0, 1e3),
            unit(&["kV"], 1e3, 1.0),
        ],
    },
    Quantity {
        name: "current",
        units: &[
            base(&["A"]),
            unit(&["uA"], 1.0, 1e6),
            unit(&["mA"], 1.0, 1e3),
        ],
    },
    Quantity {
        name: "charge",
        units: &[
            base(&["Ah"]),
            unit(&["mAh"], 1.0, 1e3),
            unit(&["As", "coulomb"], 1.0, 3600.0),
        ],
    },
    Quantity {
        name: "resistance",
        units: &[
            base(&["ohm"]),
            unit(&["mohm"], 1.0, 1e3),
            unit(&["kohm"], 1e3, 1.0),
            unit(&["Mohm"], 1e6, 1.0),
        ],
    },
    Quantity {
        name: "angle",
        units: &[
            base(&["deg", "°"]),
            unit(&["rad"], 180.0, PI),
            unit(&["gon"], 9.0, 10.0),
            unit(&["turn"], 360.0, 1.0),
        ],
    },
    Quantity {
        name: "share",
        units: &[
            base(&["ratio"]),
            unit(&["percent", "%"], 1.0, 100.0),
            unit(&["permille", "‰"], 1.0, 1e3),
            unit(&["ppm"], 1.0, 1e6),
            unit(&["ppb"], 1.0, 1e9),
        ],
    },
    Quantity {
        name: "density",
        units: &[
            base(&["kg/m3", "g/l"]),
            unit(&["g/m3", "mg/l"], 1.0, 1e3),
            unit(&["mg/m3"], 1.0, 1e6),
            unit(&["ug/m3"], 1.0, 1e9),
        ],
    },
    Quantity {
        name: "data",
        units: &[
            base(&["B", "byte"]),
            unit(&["bit"], 1.0, 8.0),
            unit(&["kB"], 1e3, 1.0),
            unit(&["MB"], 1e6, 1.0),
            unit(&["GB"], 1e9, 1.0),
            unit(&["KiB"], 1024.0, 1.0),
            unit(&["MiB"], 1_048_576.0, 1.0),
            unit(&["GiB"], 1_073_741_824.0, 1.0),
        ],
    },
];

/// All spellings of all units.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let units = QUANTITIES.iter().flat_map(|quantity| quantity.units);
    units.flat_map(|unit| unit.names).copied()
}

/// The spelling of each unit that the documentation has.
#[cfg(test)]
pub(super) fn first_names() -> impl Iterator<Item = &'static str> {
    let units = QUANTITIES.iter().flat_map(|quantity| quantity.units);
    units.map(|unit| unit.names[0])
}

/// The unit of that name and its quantity. Capitals matter: `mW` is not `MW`.
pub(super) fn find(name: &str) -> Option<(&'static Quantity, &'static Unit)> {
    let name = plain(name);
    QUANTITIES.iter().find_map(|quantity| {
        let unit = quantity
            .units
            .iter()
            .find(|unit| unit.names.contains(&name.as_str()))?;
        Some((quantity, unit))
    })
}

/// A name without what typewriters lack: `µ`, `²`, `³`, `Ω`.
fn plain(name: &str) -> String {
    let name = name.trim().replace(['µ', 'μ'], "u");
    let name = name.replace('²', "2").replace('³', "3");
    name.replace(['Ω', 'Ω'], "ohm")
}

/// From one unit to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Conversion {
    zero: f64,
    times: f64,
    over: f64,
    new_zero: f64,
}

impl Conversion {
    /// Between two units of one quantity.
    pub(super) fn between(from: &Unit, to: &Unit) -> Conversion {
        let (times, over) = (from.times * to.over, from.over * to.times);
        // One rounding in place of two, and nothing overflows on the way.
        let (times, over) = if times % over == 0.0 {
            (times / over, 1.0)
        } else if over % times == 0.0 {
            (1.0, over / times)
        } else {
            (times, over)
        };
        Conversion {
            zero: from.zero,
            times,
            over,
            new_zero: to.zero,
        }
    }

    /// Whether every number stays what it is.
    pub(super) fn is_idle(self) -> bool {
        self.times == self.over && self.zero == self.new_zero
    }

    pub(super) fn apply(self, number: f64) -> f64 {
        (number - self.zero) * self.times / self.over + self.new_zero
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once_and_can_be_found() {
        let mut seen = std::collections::HashSet::new();
        for name in names() {
            assert!(seen.insert(name), "`{name}` is there twice");
            assert!(find(name).is_some(), "`{name}` cannot be found");
        }
        for quantity in QUANTITIES {
            let first = &quantity.units[0];
            assert_eq!((first.times, first.over, first.zero), (1.0, 1.0, 0.0));
        }
    }

    #[test]
    fn every_conversion_can_be_undone() {
        for quantity in QUANTITIES {
            for from in quantity.units {
                for to in quantity.units {
                    for number in [0.0, 1.0, -40.0, 123.456] {
                        let there = Conversion::between(from, to).apply(number);
                        let back = Conversion::between(to, from).apply(there);
                        let wrong = (back - number).abs();
                        // What is far from zero on the way back loses digits there.
                        let scale = number.abs().max(from.zero.abs()).max(1.0);
                        assert!(
                            wrong <= 1e-12 * scale,
                            "{number} {} -> {there} {} -> {back}",
                            from.names[0],
                            to.names[0]
                        );
                    }
                }
            }
        }
    }

    fn converted(number: f64, from: &str, to: &str) -> f64 {
        let ((quantity, from), (same, to)) = (find(from).unwrap(), find(to).unwrap());
        assert_eq!(quantity.name, same.name);
        Conversion::between(from, to).apply(number)
    }

    #[test]
    fn factors_are_those_of_the_literature() {
        // NIST SP 811, appendix B.8, to the seven digits that it gives.
        for (from, to, expected) in [
            ("psi", "Pa", 6.894757e3),
            ("mmHg", "Pa", 1.333224e2),
            ("inHg", "Pa", 3.386389e3),
            ("mmH2O", "Pa", 9.80665),
            ("inH2O", "Pa", 2.490889e2),
            ("mH2O", "Pa", 9.80665e3),
            ("atm", "Pa", 1.01325e5),
            ("Torr", "Pa", 1.333224e2),
            ("bar", "Pa", 1e5),
            ("mi", "m", 1.609344e3),
            ("nmi", "m", 1.852e3),
            ("ft", "m", 3.048e-1),
            ("yd", "m", 9.144e-1),
            ("in", "m", 2.54e-2),
            ("ft2", "m2", 9.290304e-2),
            ("in2", "m2", 6.4516e-4),
            ("acre", "m2", 4.046856e3),
            ("ha", "m2", 1e4),
            ("gal", "m3", 3.785412e-3),
            ("imp_gal", "m3", 4.54609e-3),
            ("fl_oz", "m3", 2.957353e-5),
            ("ft3", "m3", 2.831685e-2),
            ("in3", "m3", 1.638706e-5),
            ("lb", "kg", 4.535924e-1),
            ("oz", "kg", 2.834952e-2),
            ("kgf", "N", 9.80665),
            ("lbf", "N", 4.448222),
            ("mph", "m/s", 4.4704e-1),
            ("kn", "m/s", 5.144444e-1),
            ("km/h", "m/s", 2.777778e-1),
            ("ft/min", "m/s", 5.08e-3),
            ("ft/s", "m/s", 3.048e-1),
            ("gpm", "m3/s", 6.30902e-5),
            ("cfm", "m3/s", 4.719474e-4),
            ("BTU", "J", 1.055056e3),
            ("cal", "J", 4.184),
            ("kcal", "J", 4.184e3),
            ("kWh", "J", 3.6e6),
            ("hp", "W", 7.456999e2),
            ("PS", "W", 7.354988e2),
            ("BTU/h", "W", 2.930711e-1),
            ("deg", "rad", 1.745329e-2),
            ("gon", "deg", 9e-1),
            ("gn", "m/s2", 9.80665),
            ("rpm", "Hz", 1.666667e-2),
            ("coulomb", "Ah", 2.777778e-4),
        ] {
            let found = converted(1.0, from, to);
            assert!(
                (found / expected - 1.0).abs() < 5e-7,
                "1 {from} is {found} {to}, not {expected}"
            );
        }
    }

    #[test]
    fn common_conversions_come_out_exactly() {
        for (number, from, to, expected) in [
            (0.0, "degC", "degF", 32.0),
            (100.0, "°C", "°F", 212.0),
            (-40.0, "degF", "degC", -40.0),
            (98.6, "degF", "K", 310.15),
            (25.0, "C", "kelvin", 298.15),
            (0.0, "K", "degC", -273.15),
            (1013.25, "hPa", "atm", 1.0),
            (1013.25, "mbar", "kPa", 101.325),
            (1650.0, "mV", "V", 1.65),
            (4.35, "mA", "uA", 4350.0),
            (12.5, "in", "mm", 317.5),
            (30.0, "l/min", "m3/h", 1.8),
            (36.0, "km/h", "m/s", 10.0),
            (2.0, "kWh", "MJ", 7.2),
            (1500.0, "rpm", "Hz", 25.0),
            (0.5, "turn", "rad", PI),
            (412.0, "ppm", "percent", 0.0412),
            (2.0, "GiB", "bit", 17_179_869_184.0),
            (36.0, "h", "d", 1.5),
            (1e308, "kWh", "MWh", 1e305),
            (7.0, "Ω", "ohm", 7.0),
            (7.0, "µg/m³", "ug/m3", 7.0),
        ] {
            assert_eq!(
                converted(number, from, to),
                expected,
                "{number} {from} in {to}"
            );
        }
    }
}
