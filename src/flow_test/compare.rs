//! Whether a payload is what is expected, and in what it differs.

use crate::message::Value;

/// Numbers that differ by less than this share of them are equal: a mean of tenths is seldom exact to the last bit.
const ROUNDING: f64 = 1e-9;

/// One place in which a payload is not what is expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// As `a.b` or `2.a`; empty for the payload itself.
    pub path: String,
    pub expected: String,
    pub found: String,
}

/// Where a payload is not what is expected; nothing if it is. Of an object the fields that are named are looked at.
pub(super) fn differences(expected: &Value, found: &Value, within: f64) -> Vec<Difference> {
    let mut differences = Vec::new();
    compare("", expected, found, within, &mut differences);
    differences
}

/// Where numbers of a payload are beyond a limit. `limit` is a number, or has numbers where the payload has them.
pub(super) fn beyond(limit: &Value, found: &Value, limits: Limit) -> Vec<Difference> {
    let mut differences = Vec::new();
    compare_limit("", limit, found, limits, &mut differences);
    differences
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Min,
    Max,
}

pub(super) fn equal_numbers(a: f64, b: f64, within: f64) -> bool {
    let rounding = ROUNDING * a.abs().max(b.abs());
    let is_near = (a - b).is_finite() && (a - b).abs() <= within + rounding;
    is_near || a == b || (a.is_nan() && b.is_nan())
}

fn compare(
    path: &str,
    expected: &Value,
    found: &Value,
    within: f64,
    differences: &mut Vec<Difference>,
) {
    let is_equal = match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, expected) in expected.iter() {
                let path = join(path, name);
                match found.get(name) {
                    Some(found) => compare(&path, expected, found, within, differences),
                    None => differences.push(Difference {
                        path,
                        expected: show(expected),
                        found: "not there".into(),
                    }),
                }
            }
            return;
        }
        (Value::List(expected), Value::List(found)) if expected.len() == found.len() => {
            for (place, (expected, found)) in expected.iter().zip(found.iter()).enumerate() {
                let path = join(path, &place.to_string());
                compare(&path, expected, found, within, differences);
            }
            return;
        }
        (Value::Number(expected), Value::Number(found)) => equal_numbers(*expected, *found, within),
        (expected, found) => expected == found,
    };
    if !is_equal {
        let tolerance = match expected {
            Value::Number(_) if within > 0.0 => format!(" (within {within})"),
            _ => String::new(),
        };
        differences.push(Difference {
            path: path.to_owned(),
            expected: show(expected) + &tolerance,
            found: show(found),
        });
    }
}

fn compare_limit(
    path: &str,
    limit: &Value,
    found: &Value,
    which: Limit,
    differences: &mut Vec<Difference>,
) {
    let word = match which {
        Limit::Min => "at least",
        Limit::Max => "at most",
    };
    match (limit, found) {
        (Value::Object(limits), found) => {
            for (name, limit) in limits.iter() {
                let path = join(path, name);
                match found.get(name) {
                    Some(found) => compare_limit(&path, limit, found, which, differences),
                    None => differences.push(Difference {
                        path,
                        expected: format!("{word} {}", show(limit)),
                        found: "not there".into(),
                    }),
                }
            }
        }
        (Value::Number(limit), Value::Number(found)) => {
            let is_kept = match which {
                Limit::Min => found >= limit,
                Limit::Max => found <= limit,
            };
            if !is_kept {
                differences.push(Difference {
                    path: path.to_owned(),
                    expected: format!("{word} {limit}"),
                    found: found.to_string(),
                });
            }
        }
        (limit, found) => differences.push(Difference {
            path: path.to_owned(),
            expected: format!("{word} {}", show(limit)),
            found: show(found),
        }),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// A value as JSON, or as numbers that have no JSON form are called.
fn show(value: &Value) -> String {
    match value {
        Value::Number(number) if !number.is_finite() => number.to_string(),
        other => other.to_json(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        serde_json::from_str(json).expect("JSON")
    }

    #[test]
    fn numbers_are_equal_within_their_tolerance_and_rounding() {
        let check = |expected: f64, found: f64, within: f64, is_equal: bool| {
            let differences = differences(&expected.into(), &found.into(), within);
            assert_eq!(
                differences.is_empty(),
                is_equal,
                "{expected} {found} {within}"
            );
        };
        check(0.3, 0.1 + 0.2, 0.0, true);
        check(1e20, 1e20 + 1e5, 0.0, true);
        check(4.5, 4.500001, 0.0, false);
        check(4.5, 4.6, 0.1, true);
        check(4.5, 4.6001, 0.1, false);
        check(f64::NAN, f64::NAN, 0.0, true);
        check(f64::NAN, 1.0, 1e9, false);
        check(f64::INFINITY, f64::INFINITY, 0.0, true);
        check(f64::INFINITY, f64::NEG_INFINITY, 1.0, false);
    }

    #[test]
    fn of_objects_the_named_fields_count_and_all_that_differs_is_told() {
        let found = value(r#"{"mean":4.6,"count":60,"deep":{"a":[1,2]},"more":true}"#);
        let check = |expected: &str, paths: &[&str]| {
            let found = differences(&value(expected), &found, 0.0);
            let found: Vec<&str> = found.iter().map(|it| &*it.path).collect();
            assert_eq!(found, paths, "{expected}");
        };
        check(r#"{"mean":4.6}"#, &[]);
        check(r#"{"deep":{"a":[1,2]}}"#, &[]);
        check(r#"{"deep":{"a":[1,3]}}"#, &["deep.a.1"]);
        check(r#"{"deep":{"a":[1]}}"#, &["deep.a"]);
        check(
            r#"{"mean":4.5,"count":61,"none":1}"#,
            &["mean", "count", "none"],
        );
        check("4.6", &[""]);
    }

    #[test]
    fn limits_are_for_numbers_and_for_fields_of_that_name() {
        let check = |limit: &str, found: &str, which, expected: usize| {
            let differences = beyond(&value(limit), &value(found), which);
            assert_eq!(
                differences.len(),
                expected,
                "{limit} {found}: {differences:?}"
            );
        };
        check("3", "3", Limit::Min, 0);
        check("3", "2.9", Limit::Min, 1);
        check("3", "3", Limit::Max, 0);
        check("3", "3.1", Limit::Max, 1);
        check("3", "true", Limit::Max, 1);
        check(r#"{"mean":3}"#, r#"{"mean":4}"#, Limit::Min, 0);
        check(r#"{"mean":3,"max":9}"#, r#"{"mean":2}"#, Limit::Min, 2);
        check(r#"{"mean":3}"#, "4", Limit::Min, 1);
    }
}
