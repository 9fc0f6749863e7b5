//! What `compute` can name, and how it is written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Something to compute of the readings of a window.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statistic {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    /// The greatest less the least.
    Range,
    /// The value with the earliest time.
    First,
    Last,
    /// Of the sample: divided by n - 1.
    Stddev,
    Variance,
    /// The least-squares line's, per second.
    Slope,
    /// Greater than 0 and less than 100.
    Percentile(f64),
    TimeWeightedMean,
    /// Seconds.
    DurationAbove(f64),
    DurationBelow(f64),
    Distinct,
    /// Counts between edges, which rise.
    Histogram(Vec<f64>),
}

/// An entry of `compute`. The result has it under its name, which is its text as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) statistic: Statistic,
}

const NAMES: &[&str] = &[
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "range",
    "first",
    "last",
    "stddev",
    "variance",
    "slope",
    "median",
    "p95",
    "time_weighted_mean",
    "duration_above(25)",
    "duration_below(3)",
    "distinct",
    "histogram(0, 10, 20)",
];

/// Edges that one histogram may have.
const MOST_EDGES: usize = 100;

impl Entry {
    fn parse<E: Error>(text: &str) -> Result<Entry, E> {
        let statistic = match text {
            "count" => Statistic::Count,
            "sum" => Statistic::Sum,
            "mean" => Statistic::Mean,
            "min" => Statistic::Min,
            "max" => Statistic::Max,
            "range" => Statistic::Range,
            "first" => Statistic::First,
            "last" => Statistic::Last,
            "stddev" => Statistic::Stddev,
            "variance" => Statistic::Variance,
            "slope" => Statistic::Slope,
            "median" => Statistic::Percentile(50.0),
            "time_weighted_mean" => Statistic::TimeWeightedMean,
            "distinct" => Statistic::Distinct,
            "avg" | "average" => return Err(E::custom(format!("`{text}` is called `mean` here"))),
            "std" | "stdev" => return Err(E::custom(format!("`{text}` is called `stddev` here"))),
            _ => match with_numbers(text).or_else(|| percentile(text)) {
                Some(read) => read.map_err(E::custom)?,
                None => return Err(E::unknown_variant(text, NAMES)),
            },
        };
        Ok(Entry {
            name: text.to_owned(),
            statistic,
        })
    }
}

/// `p95`, `p99.9`; none if the text does not look like a percentile.
fn percentile(text: &str) -> Option<Result<Statistic, String>> {
    let digits = text.strip_prefix('p')?;
    let looks_so = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    if !looks_so {
        return None;
    }
    Some(match digits.parse() {
        Ok(percent) if percent > 0.0 && percent < 100.0 => Ok(Statistic::Percentile(percent)),
        _ => Err(format!(
            "`{text}` is no percentile: one lies between p0 and p100, like `p95` or `p99.9`"
        )),
    })
}

/// `duration_above(25)`, `duration_below(3)`, `histogram(0, 10, 20)`; none if the text has another name.
fn with_numbers(text: &str) -> Option<Result<Statistic, String>> {
    let (name, rest) = text.split_once('(').unwrap_or((text, ""));
    let form = match name {
        "duration_above" => "`duration_above(25)`: a finite number in brackets",
        "duration_below" => "`duration_below(3)`: a finite number in brackets",
        "histogram" => {
            "`histogram(0, 10, 20)`: in brackets the edges, from 1 to 100 finite numbers that rise"
        }
        _ => return None,
    };
    let numbers: Option<Vec<f64>> = rest.strip_suffix(')').and_then(|numbers| {
        let numbers = numbers.split(',').map(|number| number.trim().parse().ok());
        numbers.collect()
    });
    let statistic = match (name, numbers.as_deref()) {
        ("duration_above", Some([limit])) if limit.is_finite() => Statistic::DurationAbove(*limit),
        ("duration_below", Some([limit])) if limit.is_finite() => Statistic::DurationBelow(*limit),
        ("histogram", Some(edges))
            if edges.len() <= MOST_EDGES
                && edges.iter().all(|edge| edge.is_finite())
                && edges.is_sorted_by(|a, b| a < b) =>
        {
            Statistic::Histogram(edges.to_vec())
        }
        _ => return Some(Err(format!("`{text}` is not written like {form}"))),
    };
    Some(Ok(statistic))
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        /// Errors of a visitor are placed at the entry, not at the whole list.
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Entry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a statistic in quotes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Entry, E> {
                Entry::parse(text)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

impl JsonSchema for Entry {
    fn schema_name() -> Cow<'static, str> {
        "Statistic".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": NAMES })
    }
}

/// What is computed if nothing is named.
pub(super) fn default_entries() -> Vec<Entry> {
    let entry = |name: &str, statistic| Entry {
        name: name.to_owned(),
        statistic,
    };
    vec![
        entry("count", Statistic::Count),
        entry("mean", Statistic::Mean),
        entry("min", Statistic::Min),
        entry("max", Statistic::Max),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Statistic, String> {
        Entry::parse::<serde::de::value::Error>(text)
            .map(|entry| entry.statistic)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_name_is_read_and_the_default_is_among_them() {
        for name in NAMES {
            assert!(parse(name).is_ok(), "{name}");
        }
        for entry in default_entries() {
            assert_eq!(parse(&entry.name), Ok(entry.statistic));
        }
    }

    #[test]
    fn percentiles_lie_between_0_and_100() {
        assert_eq!(parse("p1"), Ok(Statistic::Percentile(1.0)));
        assert_eq!(parse("p99.9"), Ok(Statistic::Percentile(99.9)));
        assert_eq!(parse("median"), parse("p50"));
        for text in ["p0", "p100", "p99.9.9", "p9999999999999"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("no percentile"), "{error}");
        }
        for text in ["p", "p-1", "p1e1", "pinf", "p 5"] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with("unknown variant"), "{error}");
        }
    }

    #[test]
    fn numbers_stand_in_brackets() {
        assert_eq!(
            parse("duration_above(25)"),
            Ok(Statistic::DurationAbove(25.0))
        );
        assert_eq!(
            parse("duration_below( -2.5 )"),
            Ok(Statistic::DurationBelow(-2.5))
        );
        assert_eq!(
            parse("histogram(0,10, 20)"),
            Ok(Statistic::Histogram(vec![0.0, 10.0, 20.0]))
        );
        assert_eq!(parse("histogram(5)"), Ok(Statistic::Histogram(vec![5.0])));
        let hundred_and_one: Vec<String> = (0..=100).map(|edge| edge.to_string()).collect();
        for text in [
            "duration_above",
            "duration_above()",
            "duration_above(1",
            "duration_above(1, 2)",
            "duration_above(inf)",
            "duration_below(nan)",
            "histogram",
            "histogram()",
            "histogram(1, 1)",
            "histogram(2, 1)",
            "histogram(1, inf)",
            "histogram(1,)",
            &format!("histogram({})", hundred_and_one.join(",")),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("is not written like"), "{error}");
        }
        assert!(parse("mean(1)").is_err());
    }

    #[test]
    fn names_from_elsewhere_are_translated() {
        assert_eq!(parse("avg"), Err("`avg` is called `mean` here".into()));
        assert_eq!(
            parse("stdev"),
            Err("`stdev` is called `stddev` here".into())
        );
    }
}
