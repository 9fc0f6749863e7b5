use super::*;
use crate::nodes::testing::{node_mistakes, run_node};

fn check(options: &str, raw: &[f64], expected: &[&str]) {
    let sent = run_node(
        &format!("type = 'calibrate'\n{options}"),
        raw.iter().map(|raw| (*raw).into()),
    );
    assert_eq!(sent, expected, "{options} {raw:?}");
}

#[test]
fn a_line_has_a_gain_and_an_offset() {
    check("linear = { gain = 2, offset = -1 }", &[], &[]);
    check(
        "linear = { gain = 2, offset = -1 }",
        &[0.0, 3.0, -0.5],
        &["-1", "5", "-2"],
    );
    check("linear = { gain = 2 }", &[3.0], &["6"]);
    check("linear = { offset = 2 }", &[3.0], &["5"]);
}

#[test]
fn a_polynomial_has_rising_powers() {
    check("polynomial = [1, 2]", &[0.0, 3.0], &["1", "7"]);
    check(
        "polynomial = [1, 0, -2, 0.5]",
        &[2.0, -1.0],
        &["-3", "-1.5"],
    );
}

#[test]
fn a_table_has_lines_between_its_points() {
    let table = "table = [[0, 10], [1, 20], [3, 0]]";
    let raw = [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0];
    let with = |outside: &str| format!("{table}\noutside = '{outside}'");
    check(table, &raw, &["10", "10", "15", "20", "10", "0", "0"]);
    check(
        &with("hold"),
        &raw,
        &["10", "10", "15", "20", "10", "0", "0"],
    );
    check(
        &with("extend"),
        &raw,
        &["0", "10", "15", "20", "10", "0", "-10"],
    );
    check(
        &with("fail"),
        &raw,
        &[
            "failed: -1 is outside of the table, which is from 0 to 3",
            "10",
            "15",
            "20",
            "10",
            "0",
            "failed: 4 is outside of the table, which is from 0 to 3",
        ],
    );
}

#[test]
fn a_table_is_exact_at_its_points() {
    let points = [(0.1, 0.3), (0.7, 1.1), (1.3, 0.9), (3.1, 7.7)];
    for (raw, real) in points {
        assert_eq!(along(&points, raw), real);
    }
}

#[test]
fn a_table_may_be_long() {
    let points: Vec<String> = (0..1000).map(|at| format!("[{at}, {}]", 2 * at)).collect();
    let table = format!("table = [{}]", points.join(", "));
    check(&table, &[0.0, 417.25, 999.0], &["0", "834.5", "1998"]);
}

/// Degrees Celsius to a hundredth.
fn check_degc(options: &str, raw: &[f64], expected: &[&str]) {
    let sent = run_node(
        &format!("type = 'calibrate'\n{options}"),
        raw.iter().map(|raw| (*raw).into()),
    );
    let rounded: Vec<String> = sent
        .iter()
        .map(|text| {
            text.parse::<f64>()
                .map_or_else(|_| text.clone(), |it| format!("{it:.2}"))
        })
        .collect();
    assert_eq!(rounded, expected, "{options} {raw:?}");
}

#[test]
fn steinhart_and_hart_agree_with_a_published_table() {
    // Thermistors of 10 kohm with the curve "10K type 2": the makers' tables have these resistances at 0, 25 and 50 degC.
    check_degc(
        "steinhart_hart = { a = 1.129148e-3, b = 2.34125e-4, c = 8.76741e-8 }",
        &[32_650.0, 10_000.0, 3_602.0],
        &["0.00", "25.00", "49.99"],
    );
}

#[test]
fn beta_is_given_with_a_resistance_at_a_temperature() {
    // From the definition beta = ln(R1 / R2) / (1/T1 - 1/T2): at 50 degC, 10000 exp(3950 (1/323.15 - 1/298.15)) ohms.
    let at_50 = 10_000.0 * (3950.0_f64 * (1.0 / 323.15 - 1.0 / 298.15)).exp();
    let thermistor = "thermistor = { beta = 3950, r0 = 10000 }";
    check_degc(thermistor, &[10_000.0, at_50], &["25.00", "50.00"]);
    check_degc(
        "thermistor = { beta = 3435, r0 = 5000, t0 = 37 }",
        &[5000.0],
        &["37.00"],
    );
}

#[test]
fn a_resistance_is_above_0_and_has_a_temperature() {
    check_degc(
        "thermistor = { beta = 3950, r0 = 10000 }",
        &[0.0, -1.0, f64::NAN],
        &[
            "failed: a resistance is above 0 ohms, not 0",
            "failed: a resistance is above 0 ohms, not -1",
            "failed: needs a finite number, but the payload is a number: NaN",
        ],
    );
    // With resistances as small as this, 1/T is not above 0.
    check_degc(
        "thermistor = { beta = 3950, r0 = 10000 }",
        &[1e-5, 1e-300],
        &["failed: the result is not a finite number: NaN"; 2],
    );
}

#[test]
fn a_divider_gives_the_resistance() {
    let thermistor = "thermistor = { beta = 3950, r0 = 10000 }";
    let side = |side: &str| {
        format!("{thermistor}\ndivider = {{ resistor = 30000, supply = 4, side = '{side}' }}")
    };
    // 10 kohm of 40 kohm have a quarter of the supply.
    check_degc(&side("bottom"), &[1.0], &["25.00"]);
    check_degc(&side("top"), &[3.0], &["25.00"]);
    for volts in ["0", "4", "4.1", "-1"] {
        for at in ["top", "bottom"] {
            let expected = format!(
                "failed: {volts} V is not between 0 and the 4 V of the supply: is the thermistor connected?"
            );
            let raw = volts.parse().unwrap();
            check_degc(&side(at), &[raw], &[expected.as_str()]);
        }
    }
}

#[test]
fn what_is_no_finite_number_fails_before_and_after() {
    check(
        "linear = { gain = 10 }",
        &[1e308, f64::INFINITY, f64::NAN, 1.0],
        &[
            "failed: the result is not a finite number: inf",
            "failed: needs a finite number, but the payload is a number: inf",
            "failed: needs a finite number, but the payload is a number: NaN",
            "10",
        ],
    );
    check(
        "polynomial = [0, -1, 1e300]",
        &[1e308],
        &["failed: the result is not a finite number: inf"],
    );
    check(
        "table = [[0, 0], [1, 10]]\noutside = 'extend'",
        &[1e308],
        &["failed: the result is not a finite number: inf"],
    );
}

#[test]
fn options_fit_each_other() {
    let check = |options: &str, expected: &[&str]| {
        let found = node_mistakes(&format!("type = 'calibrate'\n{options}"));
        assert_eq!(found, expected, "{options}");
    };
    check(
        "",
        &[
            "`linear`: is missing; give it, or `polynomial`, `table`, `steinhart_hart` or `thermistor`",
        ],
    );
    check(
        "linear = {}\npolynomial = [0, 1]\ntable = [[0, 0], [1, 1]]",
        &[
            "`polynomial`: cannot be given beside `linear`",
            "`table`: cannot be given beside `linear`",
        ],
    );
    check(
        "steinhart_hart = { a = 1, b = 1, c = 1 }\nthermistor = { beta = 1, r0 = 1 }",
        &["`thermistor`: cannot be given beside `steinhart_hart`"],
    );
    check(
        "linear = {}\noutside = 'hold'\ndivider = { resistor = 1, supply = 1 }",
        &[
            "`outside`: has a meaning only with `table`",
            "`divider`: has a meaning only with `thermistor` or `steinhart_hart`",
        ],
    );
}

#[test]
fn numbers_in_options_have_limits() {
    let check = |options: &str, expected: &str| {
        let found = node_mistakes(&format!("type = 'calibrate'\n{options}"));
        assert_eq!(found, [expected], "{options}");
    };
    for gain in ["0", "nan", "inf"] {
        check(
            &format!("linear = {{ gain = {gain} }}"),
            "`linear.gain`: must be a finite number other than 0",
        );
    }
    check(
        "linear = { offset = inf }",
        "`linear.offset`: must be a finite number",
    );
    const COEFFICIENTS: &str = "`polynomial`: must have from 2 to 10 coefficients";
    check("polynomial = [1]", COEFFICIENTS);
    check(
        "polynomial = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]",
        COEFFICIENTS,
    );
    check(
        "polynomial = [0, nan]",
        "`polynomial.1`: must be a finite number",
    );
    check(
        "table = [[0, 0]]",
        "`table`: must have from 2 to 1000 points",
    );
    let points: Vec<String> = (0..1001).map(|at| format!("[{at}, 0]")).collect();
    check(
        &format!("table = [{}]", points.join(", ")),
        "`table`: must have from 2 to 1000 points",
    );
    check(
        "table = [[0, 0], [1, inf]]",
        "`table.1`: must be two finite numbers",
    );
    check(
        "table = [[0, 0], [2, 1], [2, 3]]",
        "`table.2`: its raw value must be greater than that before it, 2",
    );
    const TOO_FAR: &str = "`table.1`: is too far from the point before it";
    check("table = [[-1e308, 0], [1e308, 1]]", TOO_FAR);
    check("table = [[0, -1e308], [1, 1e308]]", TOO_FAR);
    check(
        "steinhart_hart = { a = 1e-3, b = nan, c = 0 }",
        "`steinhart_hart.b`: must be a finite number",
    );
    for (thermistor, expected) in [
        (
            "beta = 0, r0 = 1",
            "`thermistor.beta`: must be a finite number above 0",
        ),
        (
            "beta = 1, r0 = -1",
            "`thermistor.r0`: must be a finite number above 0",
        ),
        (
            "beta = 1, r0 = 1, t0 = -273.15",
            "`thermistor.t0`: must be a temperature in degrees Celsius, above -273.15",
        ),
    ] {
        check(&format!("thermistor = {{ {thermistor} }}"), expected);
    }
    let thermistor = "thermistor = { beta = 1, r0 = 1 }";
    for (divider, option) in [
        ("resistor = 0, supply = 1", "resistor"),
        ("resistor = 1, supply = inf", "supply"),
    ] {
        check(
            &format!("{thermistor}\ndivider = {{ {divider} }}"),
            &format!("`divider.{option}`: must be a finite number above 0"),
        );
    }
}
