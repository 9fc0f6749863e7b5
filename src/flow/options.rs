//! Reads a table of a TOML file into a typed struct, and reports every mistake in it at once.
//!
//! The struct is the one definition: its fields are the options, their comments the documentation, its derived JSON Schema
//! tells what is known and required. Serde stops at the first mistake; here the offending entry is set aside and reading
//! goes on, so that a person sees all of them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use crate::flow::diagnostic::{Report, nearest};
use crate::message::Value;

/// What was read, and whether any of it had to be left out.
pub struct Options<T> {
    /// The struct, made of what was right; absent if something required is missing or wrong.
    pub read: Option<T>,
    pub complete: bool,
    /// The options that have a mistake in them.
    pub wrong: Vec<String>,
}

/// Reads `table` into `T`. `header` is where the table's name stands, `what` how messages call it.
pub fn read<T: DeserializeOwned + JsonSchema>(
    table: &DeTable<'_>,
    header: Range<usize>,
    what: &str,
    report: &mut Report,
) -> Options<T> {
    read_with_hints(table, header, what, |_| None, report)
}

/// The same; `hint` says what to tell one who writes an option that is not known.
pub fn read_with_hints<T: DeserializeOwned + JsonSchema>(
    table: &DeTable<'_>,
    header: Range<usize>,
    what: &str,
    hint: fn(&str) -> Option<&'static str>,
    report: &mut Report,
) -> Options<T> {
    read_as(
        table,
        header,
        what,
        schema_for!(T),
        hint,
        report,
        from_table,
    )
}

/// A table with its place in the file.
pub type Whole<'t> = Spanned<DeValue<'t>>;

/// Reads a table as serde does, up to the first mistake.
pub fn from_table<T: DeserializeOwned>(whole: Whole<'_>) -> Result<T, toml::de::Error> {
    T::deserialize(ValueDeserializer::from(whole))
}

/// Reads `table` into something whose options a schema tells.
pub fn read_as<T>(
    table: &DeTable<'_>,
    header: Range<usize>,
    what: &str,
    schema: Schema,
    hint: fn(&str) -> Option<&'static str>,
    report: &mut Report,
    deserialize: impl for<'t> Fn(Whole<'t>) -> Result<T, toml::de::Error>,
) -> Options<T> {
    let known = KnownOptions::new(schema);
    let mut table = table.clone();
    let mut complete = true;
    let mut wrong = Vec::new();

    let unknown: Vec<_> = table
        .keys()
        .filter(|key| !known.names.iter().any(|known| known == key.get_ref()))
        .cloned()
        .collect();
    for key in unknown {
        complete = false;
        let name = key.get_ref();
        report.error(
            key.span(),
            format!("{what} has no option `{name}`"),
            Some(hint(name).map_or_else(|| known.suggest(name), str::to_owned)),
        );
        table.remove(name.as_ref());
    }

    let mut missing = false;
    for required in &known.required {
        if table.get(required.as_str()).is_none() {
            missing = true;
            report.error(
                header.clone(),
                format!("{what} needs `{required}`"),
                known.purpose(required),
            );
        }
    }

    loop {
        let whole = Spanned::new(header.clone(), DeValue::Table(table.clone()));
        let error = match deserialize(whole) {
            Ok(read) if !missing => {
                return Options {
                    read: Some(read),
                    complete,
                    wrong,
                };
            }
            Ok(_) => {
                return Options {
                    read: None,
                    complete: false,
                    wrong,
                };
            }
            Err(error) => error,
        };
        let culprit = error.span().and_then(|span| {
            table
                .iter()
                .find(|(_, value)| holds(value, &span))
                .map(|(key, _)| key.get_ref().to_string())
        });
        let Some(culprit) = culprit else {
            // What is required and was set aside, or is missing, has been said. What is missing inside of an option has not.
            let is_said = |field: &str| known.required.iter().any(|known| known == field);
            let missing = error.message().strip_prefix("missing field `");
            if !missing
                .and_then(|rest| rest.split('`').next())
                .is_some_and(is_said)
            {
                report.error(
                    header,
                    format!("{what}: {}", in_words(error.message())),
                    None,
                );
            }
            return Options {
                read: None,
                complete: false,
                wrong,
            };
        };
        complete = false;
        let span = error.span().unwrap_or(header.clone());
        report.error(
            span,
            format!("`{culprit}`: {}", in_words(error.message())),
            known.hint(&culprit, error.message()),
        );
        let set_aside = error.span().is_some_and(|span| {
            let value = table.get_mut(culprit.as_str());
            value.is_some_and(|value| set_aside_item(value, &span))
        });
        if !set_aside {
            table.remove(culprit.as_str());
        }
        wrong.push(culprit);
    }
}

/// The names of the options that a struct has.
pub fn names<T: JsonSchema>() -> Vec<String> {
    KnownOptions::new(schema_for!(T)).names
}

/// Of a list of tables, such as rules, or of names, takes out the one that has a mistake at `span`, so that the others are read too.
fn set_aside_item(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    let DeValue::Array(items) = value.get_mut() else {
        return false;
    };
    // Not of pairs of numbers and the like, which need all of their items.
    let is_of_names = items.iter().all(|item| item.get_ref().is_str());
    let is_wrong = |item: &Spanned<DeValue<'_>>| {
        (item.get_ref().is_table() || is_of_names) && holds(item, span)
    };
    let Some(wrong) = items.iter().position(is_wrong) else {
        return false;
    };
    let mut kept = DeArray::new();
    for (place, item) in items.iter().enumerate() {
        if place != wrong {
            kept.push(item.clone());
        }
    }
    *items = kept;
    true
}

/// Whether a place is in a value. What stands below a header, as `[[nodes.NAME.rules]]`, is not in the header's own place.
fn holds(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    let is_inside = match value.get_ref() {
        DeValue::Table(table) => table
            .iter()
            .any(|(key, value)| contains(&key.span(), span) || holds(value, span)),
        DeValue::Array(items) => items.iter().any(|item| holds(item, span)),
        _ => false,
    };
    is_inside || contains(&value.span(), span)
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Serde's words for Rust types, as a person who writes a flow would say them.
fn in_words(message: &str) -> String {
    let message = message.trim();
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return match rest.split_once(", expected ") {
            Some((word, known)) => format!("{word} is not known here, {}", choice(known)),
            None => format!("{rest} is not known here"),
        };
    }
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return match rest.split_once(", ") {
            Some((word, known)) => format!("there is no {word} here, {}", choice(known)),
            None => format!("there is no {rest} here"),
        };
    }
    if let Some(field) = message.strip_prefix("missing field ") {
        return format!("{field} is missing here");
    }
    if let Some(rest) = message.strip_prefix("invalid length ")
        && let Some((length, _)) = rest.split_once(',')
    {
        return format!("a list of {length} is too long or too short");
    }
    let (got, wanted) = match message.split_once(", expected ") {
        Some((got, wanted)) => (got, wanted),
        None => return message.to_owned(),
    };
    let wanted = match wanted {
        "f64" => "a number",
        "a string" => "text in quotes",
        "a boolean" => "true or false",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, not negative",
        "i64" => "a whole number",
        "a sequence" => "a list in square brackets",
        "a map" => "a table in braces",
        "path string" => "text in quotes",
        struct_name if struct_name.starts_with("struct ") => "a table in braces",
        other => other,
    };
    let got = got
        .replace("invalid type: ", "")
        .replace("floating point ", "number ")
        .replace("sequence", "a list")
        .replace("map", "a table")
        .replace("invalid value: ", "");
    format!("{got}, expected {wanted}")
}

/// Serde's "expected `a` or `b`" and "one of `a`, `b`", with a verb before it.
fn choice(known: &str) -> String {
    let known = known.strip_prefix("expected ").unwrap_or(known);
    let known = known.strip_prefix("one of ").unwrap_or(known);
    if known.contains('`') {
        format!("there is {known}")
    } else {
        known.to_owned()
    }
}

/// What a struct's schema says of its options.
struct KnownOptions {
    schema: Schema,
    names: Vec<String>,
    required: Vec<String>,
}

impl KnownOptions {
    fn new(schema: Schema) -> KnownOptions {
        let names = schema
            .get("properties")
            .and_then(|properties| properties.as_object())
            .map(|properties| properties.keys().cloned().collect())
            .unwrap_or_default();
        let required = schema
            .get("required")
            .and_then(|required| required.as_array())
            .map(|required| {
                required
                    .iter()
                    .filter_map(|name| name.as_str().map(str::to_owned))
                    .collect()
            })
            .unwrap_or_default();
        KnownOptions {
            schema,
            names,
            required,
        }
    }

    fn suggest(&self, name: &str) -> String {
        let names = self.names.iter().map(String::as_str);
        match nearest(name, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.names.is_empty() => "it has no options".into(),
            None => format!(
                "it has {}",
                names
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }

    /// The first sentence of an option's documentation.
    fn purpose(&self, name: &str) -> Option<String> {
        let text = self
            .schema
            .pointer(&format!("/properties/{name}/description"))?
            .as_str()?;
        let text = text.replace('\n', " ");
        let sentence = text
            .split_once(". ")
            .map_or(text.as_str(), |(first, _)| first)
            .trim_end_matches('.');
        Some(format!("`{name}`: {sentence}"))
    }

    /// The nearest of the words that serde says it expected; else what the option is for.
    fn hint(&self, name: &str, message: &str) -> Option<String> {
        let slip = message
            .strip_prefix("unknown variant `")
            .or_else(|| message.strip_prefix("unknown field `"))
            .and_then(|rest| rest.split_once('`'));
        if let Some((word, rest)) = slip {
            return nearest(word, rest.split('`').skip(1).step_by(2))
                .map(|near| format!("did you mean `{near}`?"));
        }
        self.purpose(name)
    }
}

/// A length of time as text: `"250ms"`, `"10s"`, `"1m 30s"`, `"2h"`, `"7d"`; to the nanosecond, at most 10,000 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    pub fn parse(text: &str) -> Result<Span, String> {
        const LONGEST: Duration = Duration::from_secs(10_000 * 86_400);
        let mut units = text.split(|c: char| !c.is_ascii_alphabetic());
        if let Some(unit) = units.find(|unit| CALENDAR.contains(unit)) {
            return Err(format!(
                "`{text}` is no length of time: `{unit}` stands for months or years, which are not all of one length; a minute \
                 is `m`, and {SPAN_FORM}"
            ));
        }
        let span = humantime::parse_duration(text)
            .map_err(|_| format!("`{text}` is no length of time; {SPAN_FORM}"))?;
        if span > LONGEST {
            return Err("a length of time must not be longer than 10,000 days".into());
        }
        Ok(Span(span))
    }
}

/// What humantime takes for 30.44 or 365.25 days.
const CALENDAR: [&str; 7] = ["M", "month", "months", "y", "yr", "year", "years"];

const SPAN_FORM: &str =
    "one is written as text, like \"250ms\", \"10s\", \"1m 30s\", \"2h\" or \"7d\"";

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Text(text) => Span::parse(&text).map_err(D::Error::custom),
            other => Err(D::Error::custom(format!(
                "`{other}` is no length of time; {SPAN_FORM}"
            ))),
        }
    }
}

impl serde::Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "read for its mistakes only")]
    struct Example {
        /// How often.
        every: Span,
        /// How much.
        amount: f64,
        #[serde(default)]
        retries: u8,
        #[serde(default)]
        mode: Mode,
        #[serde(default)]
        rules: Vec<Rule>,
        #[serde(default)]
        modes: Vec<Mode>,
    }

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read for its mistakes only")]
    struct Rule {
        top: f64,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        #[default]
        Fast,
        Slow,
    }

    fn check(text: &str, expected: &[&str]) {
        let mut report = Report::new("x.toml", text);
        let table = DeTable::parse(text).expect("valid TOML").into_inner();
        let options = read::<Example>(&table, 0..0, "node `n`", &mut report);
        let found: Vec<String> = report
            .into_diagnostics()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expected);
        assert_eq!(
            options.complete && options.read.is_some(),
            expected.is_empty()
        );
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        check("every = '1s'\namount = 2", &[]);
        check(
            "evry = '1s'\namount = 'x'\nretries = 300\nmode = 'slwo'",
            &[
                "x.toml:1:1: error: node `n` has no option `evry` (did you mean `every`?)",
                "x.toml:1:1: error: node `n` needs `every` (`every`: How often)",
                "x.toml:2:10: error: `amount`: string \"x\", expected a number (`amount`: How much)",
                "x.toml:3:11: error: `retries`: integer `300`, expected a whole number from 0 to 255",
                "x.toml:4:8: error: `mode`: `slwo` is not known here, there is `fast` or `slow` (did you mean `slow`?)",
            ],
        );
        const FORM: &str = "is no length of time; one is written as text, like \"250ms\", \"10s\", \"1m 30s\", \"2h\" or \"7d\"";
        check(
            "every = '1 parsec'\namount = 1",
            &[&format!(
                "x.toml:1:9: error: `every`: `1 parsec` {FORM} (`every`: How often)"
            )],
        );
        check(
            "every = 15\namount = 1",
            &[&format!(
                "x.toml:1:9: error: `every`: `15` {FORM} (`every`: How often)"
            )],
        );
    }

    #[test]
    fn each_table_of_a_list_is_read() {
        check(
            "every = '1s'\namount = 2\nrules = [{ top = 1 }, { tpo = 1 }, { top = 'x' }, {}]",
            &[
                "x.toml:3:25: error: `rules`: there is no `tpo` here, there is `top` (did you mean `top`?)",
                "x.toml:3:44: error: `rules`: string \"x\", expected a number",
                "x.toml:3:51: error: `rules`: `top` is missing here",
            ],
        );
    }

    #[test]
    fn tables_with_headers_of_their_own_are_read_as_well() {
        check(
            "every = '1s'\namount = 'x'\n[[rules]]\ntop = 1\n[[rules]]\ntpo = 1\n[[rules]]\ntop = 'x'\n[[rules]]\n",
            &[
                "x.toml:2:10: error: `amount`: string \"x\", expected a number (`amount`: How much)",
                "x.toml:6:1: error: `rules`: there is no `tpo` here, there is `top` (did you mean `top`?)",
                "x.toml:8:7: error: `rules`: string \"x\", expected a number",
                "x.toml:9:1: error: `rules`: `top` is missing here",
            ],
        );
    }

    #[test]
    fn each_name_of_a_list_is_read() {
        check(
            "every = '1s'\namount = 2\nmodes = ['fast', 'fsat', 'slow', 'slwo']",
            &[
                "x.toml:3:18: error: `modes`: `fsat` is not known here, there is `fast` or `slow` (did you mean `fast`?)",
                "x.toml:3:34: error: `modes`: `slwo` is not known here, there is `fast` or `slow` (did you mean `slow`?)",
            ],
        );
    }

    #[test]
    fn what_is_missing_inside_of_an_option_is_said() {
        #[derive(Debug, serde::Deserialize, JsonSchema)]
        #[expect(dead_code, reason = "read for its mistakes only")]
        struct Outer {
            inputs: std::collections::BTreeMap<String, Inner>,
        }
        #[derive(Debug, serde::Deserialize, JsonSchema)]
        #[serde(tag = "kind", rename_all = "lowercase")]
        #[expect(dead_code, reason = "read for its mistakes only")]
        enum Inner {
            Contact { closed_s: f64, open_s: f64 },
        }
        let text = "inputs.6 = { kind = 'contact', closed_s = 0.5 }";
        let mut report = Report::new("x.toml", text);
        let table = DeTable::parse(text).expect("valid TOML").into_inner();
        let options = read::<Outer>(&table, 0..0, "[outer]", &mut report);
        assert!(!options.complete);
        let found: Vec<String> = report
            .into_diagnostics()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("`open_s` is missing here"), "{found:?}");
    }

    #[test]
    fn spans_are_bounded() {
        assert_eq!(Span::parse("1m 30s"), Ok(Span(Duration::from_secs(90))));
        assert!(Span::parse("10000d").is_ok());
        assert!(Span::parse("10001d").is_err());
        assert!(Span::parse("").is_err());
        for text in ["1M", "5M", "1 month", "2months", "1h 1y", "1year"] {
            let error = Span::parse(text).expect_err(text);
            assert!(error.contains("months or years"), "{error}");
        }
        assert_eq!(
            Span::parse("1ms 1m"),
            Ok(Span(Duration::from_millis(60_001)))
        );
        assert!(Span::parse("-1s").is_err());
        assert!(Span::parse("99999999999999999999s").is_err());
    }
}
