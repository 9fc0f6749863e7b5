//! The rules of `switch`: each one test of a value.

use std::borrow::Cow;
use std::cmp::Ordering;

use regex_lite::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::message::{Text, Value};
use crate::nodes::bounds;

/// A rule as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = add_signs)]
pub(super) struct Rule {
    /// Is this value.
    #[serde(alias = "==")]
    eq: Option<Value>,
    /// Is another value.
    #[serde(alias = "!=")]
    ne: Option<Value>,
    /// Is less than this number or text.
    #[serde(alias = "<")]
    lt: Option<Value>,
    /// Is this number or text, or less.
    #[serde(alias = "<=")]
    le: Option<Value>,
    /// Is greater than this number or text.
    #[serde(alias = ">")]
    gt: Option<Value>,
    /// Is this number or text, or greater.
    #[serde(alias = ">=")]
    ge: Option<Value>,
    /// Is one of these two numbers or texts, or lies between them.
    between: Option<Vec<Value>>,
    /// A text that has this text in it, or a list that has this item.
    contains: Option<Value>,
    /// An object that has this field.
    has: Option<String>,
    /// A text in which this regular expression is found.
    matches: Option<Pattern>,
    /// Is of this type.
    is: Option<Kind>,
    /// Is null (`true`), or is not (`false`).
    null: Option<bool>,
    /// No other rule was met: `true`.
    pub(super) r#else: Option<bool>,
    /// The port. Default: the rule's number, from `1`.
    pub(super) to: Option<String>,
}

/// The other spellings of tests, for editors that read the schema.
fn add_signs(schema: &mut Schema) {
    const SIGNS: [(&str, &str); 6] = [
        ("eq", "=="),
        ("ne", "!="),
        ("lt", "<"),
        ("le", "<="),
        ("gt", ">"),
        ("ge", ">="),
    ];
    let properties = schema
        .get_mut("properties")
        .and_then(|it| it.as_object_mut());
    if let Some(properties) = properties {
        for (name, sign) in SIGNS {
            if let Some(test) = properties.get(name).cloned() {
                properties.insert(sign.into(), test);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    Nan,
    Text,
    List,
    Object,
}

/// A regular expression whose size is bounded, so that what it takes to search a text is too.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

/// Bytes that a regular expression may take when it is compiled.
const LARGEST_PATTERN: usize = 64 * 1024;
/// Bytes of a text that are searched.
const LONGEST_SEARCHED: usize = 64 * 1024;

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        regex_lite::RegexBuilder::new(&text)
            .size_limit(LARGEST_PATTERN)
            .build()
            .map(Pattern)
            .map_err(|error| {
                D::Error::custom(format!("`{text}` is no regular expression: {error}"))
            })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "regex" })
    }
}

/// A valid test.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Equal(Value),
    NotEqual(Value),
    Order(Side, Value),
    Between(Value, Value),
    Contains(Value),
    Has(Text),
    Matches(Pattern),
    Is(Kind),
    Null(bool),
    Else,
}

/// On which side of a limit a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// Which option of a rule is wrong, and why.
pub(super) type Flaw = (&'static str, String);

impl Rule {
    /// The name of the port of a rule at this place.
    pub(super) fn port(&self, place: usize) -> String {
        self.to.clone().unwrap_or_else(|| (place + 1).to_string())
    }

    /// The one test of the rule.
    pub(super) fn test(&self) -> Result<Test, Flaw> {
        let order = |limit: &Option<Value>, name: &'static str, side: Side| {
            let limit = limit.clone()?;
            Some((name, ordered(&limit).map(|()| Test::Order(side, limit))))
        };
        let equal = |value: &Value| match bounds::is_finite(value) {
            true => Ok(value.clone()),
            false => Err("must be finite; `is = \"nan\"` finds what is not".to_owned()),
        };
        let written = [
            self.eq
                .as_ref()
                .map(|value| (".eq", equal(value).map(Test::Equal))),
            self.ne
                .as_ref()
                .map(|value| (".ne", equal(value).map(Test::NotEqual))),
            order(&self.lt, ".lt", Side::Less),
            order(&self.le, ".le", Side::AtMost),
            order(&self.gt, ".gt", Side::Greater),
            order(&self.ge, ".ge", Side::AtLeast),
            self.between
                .as_ref()
                .map(|ends| (".between", between(ends))),
            self.contains
                .as_ref()
                .map(|item| (".contains", equal(item).map(Test::Contains))),
            self.has
                .as_deref()
                .map(|field| (".has", Ok(Test::Has(field.into())))),
            self.matches
                .clone()
                .map(|pattern| (".matches", Ok(Test::Matches(pattern)))),
            self.is.map(|kind| (".is", Ok(Test::Is(kind)))),
            self.null.map(|is_null| (".null", Ok(Test::Null(is_null)))),
            self.r#else.map(|is_else| match is_else {
                true => (".else", Ok(Test::Else)),
                false => (".else", Err("can only be `true`".to_owned())),
            }),
        ];
        let mut written = written.into_iter().flatten();
        match (written.next(), written.next()) {
            (Some((option, test)), None) => test.map_err(|wrong| (option, wrong)),
            (None, _) => Err(("", "needs a test, such as `gt = 5` or `else = true`".into())),
            (Some((one, _)), Some((other, _))) => Err((
                "",
                format!(
                    "has two tests, `{}` and `{}`; a rule has one",
                    &one[1..],
                    &other[1..]
                ),
            )),
        }
    }
}

/// Refuses what nothing can be compared with by size.
fn ordered(limit: &Value) -> Result<(), String> {
    match limit {
        Value::Number(number) if number.is_finite() => Ok(()),
        Value::Text(_) => Ok(()),
        other => Err(format!(
            "must be a finite number or text, not {}",
            match other {
                Value::Number(number) => number.to_string(),
                other => other.kind().to_owned(),
            }
        )),
    }
}

fn between(ends: &[Value]) -> Result<Test, String> {
    let [low, high] = ends else {
        return Err("needs two ends, like [2, 8]".into());
    };
    ordered(low).and_then(|()| ordered(high))?;
    match compare(low, high) {
        None => Err("must have two numbers or two texts as its ends".into()),
        Some(Ordering::Greater) => Err(format!("is empty: write it [{high}, {low}]")),
        Some(_) => Ok(Test::Between(low.clone(), high.clone())),
    }
}

/// The order of two numbers or two texts; nothing else has one here.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.partial_cmp(b),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

impl Test {
    pub(super) fn is_met(&self, value: &Value) -> Result<bool, String> {
        Ok(match self {
            Test::Equal(other) => value == other,
            Test::NotEqual(other) => value != other,
            Test::Order(side, limit) => {
                compare(value, limit).is_some_and(|order| side.is_there(order))
            }
            Test::Between(low, high) => {
                compare(value, low).is_some_and(Ordering::is_ge)
                    && compare(value, high).is_some_and(Ordering::is_le)
            }
            Test::Contains(item) => match (value, item) {
                (Value::Text(text), Value::Text(part)) => text.contains(&**part),
                (Value::List(items), item) => items.contains(item),
                _ => false,
            },
            Test::Has(field) => value.get(field).is_some(),
            Test::Matches(pattern) => match value {
                Value::Text(text) if text.len() > LONGEST_SEARCHED => {
                    return Err(format!(
                        "a text of {} bytes is too long to look in for `{}`",
                        text.len(),
                        pattern.0.as_str()
                    ));
                }
                Value::Text(text) => pattern.0.is_match(text),
                _ => false,
            },
            Test::Is(kind) => *kind == Kind::of(value),
            Test::Null(is_null) => (*value == Value::Null) == *is_null,
            // It is asked last: the router looks whether another was met.
            Test::Else => true,
        })
    }
}

impl Side {
    /// Whether a value that compares so with the limit lies on this side.
    fn is_there(self, order: Ordering) -> bool {
        match self {
            Side::Less => order.is_lt(),
            Side::AtMost => order.is_le(),
            Side::Greater => order.is_gt(),
            Side::AtLeast => order.is_ge(),
        }
    }
}

impl Kind {
    fn of(value: &Value) -> Kind {
        match value {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Boolean,
            Value::Number(number) if !number.is_finite() => Kind::Nan,
            Value::Number(_) => Kind::Number,
            Value::Text(_) => Kind::Text,
            Value::List(_) => Kind::List,
            Value::Object(_) => Kind::Object,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::message::Value;
    use crate::nodes::NodeType;
    use crate::nodes::testing::run_node;

    /// What one rule lets through, of a JSON list.
    fn check(test: &str, payloads: &str, expected: &[&str]) {
        let payloads: Vec<Value> = serde_json::from_str(payloads).expect("JSON");
        let sent = run_node(
            &format!("type = 'switch'\nrules = [{{ {test} }}]"),
            payloads,
        );
        assert_eq!(sent, expected, "{test}");
    }

    const ALL_KINDS: &str = r#"[null, true, false, 0, 5, "", "5", "b", [], [5], {}, {"a":5}]"#;

    #[test]
    fn equality_is_of_type_and_value() {
        check("eq = 5", ALL_KINDS, &["5"]);
        check("'==' = '5'", ALL_KINDS, &["\"5\""]);
        check("eq = [5]", ALL_KINDS, &["[5]"]);
        check("eq = { a = 5 }", ALL_KINDS, &[r#"{"a":5}"#]);
        check("eq = false", ALL_KINDS, &["false"]);
        check("ne = 5", "[5, 4, \"5\", null]", &["4", "\"5\"", "null"]);
        check("'!=' = 5", "[5, 4]", &["4"]);
    }

    #[test]
    fn order_is_of_numbers_and_of_text() {
        check("lt = 5", "[4.9, 5, 5.1]", &["4.9"]);
        check("'<' = 5", "[4.9, 5, 5.1]", &["4.9"]);
        check("le = 5", "[4.9, 5, 5.1]", &["4.9", "5"]);
        check("'<=' = 5", "[4.9, 5, 5.1]", &["4.9", "5"]);
        check("gt = 5", "[4.9, 5, 5.1]", &["5.1"]);
        check("'>' = 5", "[4.9, 5, 5.1]", &["5.1"]);
        check("ge = 5", "[4.9, 5, 5.1]", &["5", "5.1"]);
        check("'>=' = 5", "[4.9, 5, 5.1]", &["5", "5.1"]);
        check("between = [2, 8]", "[1.9, 2, 8, 8.1, \"5\"]", &["2", "8"]);
        check("between = [5, 5]", "[4.9, 5, 5.1]", &["5"]);
        check(
            "between = ['b', 'd']",
            r#"["a","b","c","d","da",3]"#,
            &["\"b\"", "\"c\"", "\"d\""],
        );
        check("gt = ''", ALL_KINDS, &["\"5\"", "\"b\""]);
        check("lt = 1", ALL_KINDS, &["0"]);
    }

    #[test]
    fn parts_and_patterns_are_found() {
        check(
            "contains = 'b'",
            r#"["abc", "B", ["b"], ["ab"], {"b":1}, null]"#,
            &["\"abc\"", "[\"b\"]"],
        );
        check("contains = 5", r#"["5", [1,5], 5]"#, &["[1,5]"]);
        check(
            "has = 'a'",
            r#"[{"a":null}, {"b":1}, "a", ["a"]]"#,
            &[r#"{"a":null}"#],
        );
        check(
            "matches = '^pump-[0-9]+$'",
            r#"["pump-12", "pump-", "a pump-1", 5]"#,
            &["\"pump-12\""],
        );
        check(
            "matches = '(?i)ALARM'",
            r#"["an alarm!", "calm"]"#,
            &["\"an alarm!\""],
        );
    }

    #[test]
    fn types_are_told_apart() {
        for (kind, expected) in [
            ("null", &["null"][..]),
            ("boolean", &["true", "false"]),
            ("number", &["0", "5"]),
            ("text", &["\"\"", "\"5\"", "\"b\""]),
            ("list", &["[]", "[5]"]),
            ("object", &["{}", r#"{"a":5}"#]),
            ("nan", &[]),
        ] {
            check(&format!("is = '{kind}'"), ALL_KINDS, expected);
        }
        check("null = true", ALL_KINDS, &["null"]);
        check("null = false", "[null, 0]", &["0"]);
        check("else = true", "[null, 0]", &["null", "0"]);
    }

    #[test]
    fn what_is_no_number_is_met_by_no_comparison() {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Value::Number);
        let check = |test: &str, expected: usize| {
            let sent = run_node(
                &format!("type = 'switch'\nrules = [{{ {test} }}]"),
                odd.clone(),
            );
            assert_eq!(sent.len(), expected, "{test}: {sent:?}");
        };
        check("is = 'nan'", 3);
        check("is = 'number'", 0);
        check("gt = 5", 1);
        check("lt = 5", 1);
        check("between = [-1e308, 1e308]", 0);
        check("eq = 0", 0);
        check("ne = 0", 3);
    }

    #[test]
    fn long_text_is_not_searched() {
        let text = |bytes: usize| Value::from("x".repeat(bytes).as_str());
        let options = "type = 'switch'\nrules = [{ matches = 'y' }, { else = true }]";
        let check = |bytes: usize, expected: &[&str]| {
            assert_eq!(run_node(options, [text(bytes)]), expected);
        };
        check(65_536, &[]);
        check(
            65_537,
            &["failed: a text of 65537 bytes is too long to look in for `y`"],
        );
    }

    #[test]
    fn the_schema_knows_the_signs() {
        let schema = NodeType::find("switch").expect("it is there").schema();
        let rule = schema
            .pointer("/$defs/Rule/properties")
            .expect("a rule's options");
        assert_eq!(rule.get("<="), rule.get("le"));
        assert!(rule.get("<=").is_some());
    }
}
