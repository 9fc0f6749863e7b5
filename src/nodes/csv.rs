//! `csv`: between CSV text and values.

mod read;
mod write;

use std::collections::HashSet;
use std::hash::Hash;

use schemars::JsonSchema;
use serde::Deserialize;

use self::read::Reader;
use self::write::Writer;
use super::bounds::MOST_PARTS;
use super::json::Action;
use super::parts::{self, Kind, Series};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::message::{Message, Text, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Makes objects of CSV text, one for each row, and CSV text of objects (RFC 4180).
///
/// Reading: a row becomes an object with the columns as its fields, or a list where no columns are known. An empty field is
/// null. A field in quotes may have separators, line ends and doubled quotes in it. Empty lines are left out. A row with more
/// or fewer fields than there are columns fails the whole message, as does text of more than 1 MiB, 10,000 rows or 100,000
/// fields.
///
/// Writing: an object is a row, a list of objects or lists several, any other list is a row. Each row ends with a line
/// feed. Null, what is missing, NaN and infinities are empty; lists and objects in a field are JSON. Text of more than 1 MiB
/// fails.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Csv {
    /// `parse` reads, `stringify` writes, `auto` reads text and writes everything else. What is not text cannot be read.
    /// Default: `auto`.
    #[serde(default)]
    action: Action,
    /// The names of the columns. Where they are not given, reading takes them from the header, and writing takes the fields
    /// of the objects in the order in which they appear. Fields that are not named here are not written.
    columns: Option<Vec<String>>,
    /// Whether the first line has the names of the columns, when it is read and when it is written. Default: `true` without
    /// `columns`, else `false`.
    header: Option<bool>,
    /// What stands between fields: one ASCII character, such as `";"` or `"\t"`. Default: `","`.
    #[serde(default)]
    separator: Separator,
    /// Whether a field that is a number becomes one. What begins with `+`, or with a zero before another digit (`007`), is
    /// text in any case. Default: `true`.
    #[serde(default = "yes")]
    numbers: bool,
    /// What reading sends: `rows`, a message for each, with the `headers.parts` that `join` needs; or a `list`, in one message.
    /// Default: `rows`.
    #[serde(default)]
    output: Output,
    /// How many rows a text may have, up to 10,000; from this `check` can tell the load. Default: 10,000.
    most: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Output {
    #[default]
    Rows,
    List,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(inline)]
struct Separator(#[schemars(with = "String")] u8);

impl Default for Separator {
    fn default() -> Separator {
        Separator(b',')
    }
}

impl TryFrom<String> for Separator {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Separator, &'static str> {
        match text.as_bytes() {
            [byte] if byte.is_ascii() && !b"\"\r\n".contains(byte) => Ok(Separator(*byte)),
            _ => Err("a separator is one ASCII character, no quote and no line end"),
        }
    }
}

fn yes() -> bool {
    true
}

impl Definition for Csv {
    const NAME: &'static str = "csv";
    const EXAMPLE: &'static str = r#"
[nodes.logger]
type = "inject"
every = "10s"
payload = "north,71.5,4.2\nsouth,34.0,4.6\n"

[nodes.tanks]
type = "csv"
from = "logger"
columns = ["tank", "level", "temperature"]
most = 10

[nodes.show]
type = "debug"
from = "tanks"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(columns) = &self.columns {
            if columns.is_empty() {
                problems.push(Problem::new("columns", "must name at least one column"));
            }
            if let Some(twice) = first_repeated(columns) {
                problems.push(Problem::new("columns", format!("names `{twice}` twice")));
            }
        }
        if self
            .most
            .is_some_and(|most| !(1..=MOST_PARTS).contains(&most))
        {
            problems.push(Problem::new("most", "must be from 1 to 10,000"));
        }
        problems
    }

    fn load(&self, input: Load) -> Load {
        match (self.action, self.output) {
            (Action::Stringify, _) | (_, Output::List) => input,
            (Action::Auto | Action::Parse, Output::Rows) => parts::load_apart(input, self.most),
        }
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let columns = self.columns.as_ref();
        let columns: Option<Vec<Text>> =
            columns.map(|columns| columns.iter().map(|name| name.as_str().into()).collect());
        let has_header = self.header.unwrap_or(columns.is_none());
        let separator = self.separator.0;
        Ok(Box::new(Converter {
            name: site.own_topic(),
            action: self.action,
            reader: Reader {
                columns: columns.clone(),
                has_header,
                separator,
                numbers: self.numbers,
                most: self.most.unwrap_or(MOST_PARTS),
            },
            writer: Writer {
                columns,
                has_header,
                separator,
            },
            output: self.output,
            texts_read: 0,
        }))
    }
}

fn first_repeated<T: Eq + Hash>(names: &[T]) -> Option<&T> {
    let mut seen = HashSet::new();
    names.iter().find(|name| !seen.insert(*name))
}

fn check_columns(columns: usize) -> Result<(), String> {
    if columns > MOST_PARTS {
        return Err(format!("more than {MOST_PARTS} columns"));
    }
    Ok(())
}

struct Converter {
    /// Begins the ids of `headers.parts`.
    name: Text,
    action: Action,
    reader: Reader,
    writer: Writer,
    output: Output,
    texts_read: u64,
}

impl Node for Converter {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.texts_read))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.texts_read = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let outcome = match (&message.payload, self.action) {
            (Value::Text(text), Action::Auto | Action::Parse) => {
                let rows = self.reader.read(text);
                rows.and_then(|rows| self.send(rows, message, cx))
            }
            (other, Action::Parse) => Err(format!(
                "needs CSV text, but the payload is {}",
                other.kind()
            )),
            (value, Action::Auto | Action::Stringify) => self.writer.write(value).map(|text| {
                message.payload = Value::Text(text.into());
                cx.pass(0);
            }),
        };
        if let Err(reason) = outcome {
            cx.fail(reason);
        }
    }
}

impl Converter {
    fn send(
        &mut self,
        rows: Vec<Value>,
        message: &mut Message,
        cx: &mut Context<'_>,
    ) -> Result<(), String> {
        if self.output == Output::List {
            message.payload = Value::List(rows.into());
            cx.pass(0);
            return Ok(());
        }
        self.texts_read = self.texts_read.wrapping_add(1);
        let id = format!("{}/{}", self.name, self.texts_read);
        let series = Series::new(message, &id, Kind::List, rows.len())?;
        for (index, payload) in rows.into_iter().enumerate() {
            let row = Message {
                topic: message.topic.clone(),
                payload,
                time: message.time,
                source: message.source,
                headers: Some(series.headers(index, None)),
            };
            cx.emit(0, row);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, node_problems, run_node, run_node_json};

    fn check(options: &str, payloads: &str, expected: &[&str]) {
        let sent = run_node_json(&format!("type = 'csv'\n{options}"), payloads);
        assert_eq!(sent, expected, "{options}");
    }

    #[test]
    fn text_is_read_row_by_row() {
        check(
            "",
            r#"["name,t\nnorth,4.5\r\n\nsouth,-3\n", "name,t", ""]"#,
            &[r#"{"name":"north","t":4.5}"#, r#"{"name":"south","t":-3}"#],
        );
        check(
            "columns = ['a', 'b']",
            r#"["1,2\n3,4"]"#,
            &[r#"{"a":1,"b":2}"#, r#"{"a":3,"b":4}"#],
        );
        check(
            "columns = ['a', 'b']\nheader = true\noutput = 'list'",
            r#"["x,y\n1,2\n3,4", "x,y\n"]"#,
            &[r#"[{"a":1,"b":2},{"a":3,"b":4}]"#, "[]"],
        );
        check("header = false", r#"["1,x\n2"]"#, &[r#"[1,"x"]"#, "[2]"]);
        check(
            "header = false\nseparator = ';'",
            r#"["1,5;x"]"#,
            &[r#"["1,5","x"]"#],
        );
        check(
            "header = false\nseparator = \"\\t\"",
            r#"["1\tx"]"#,
            &[r#"[1,"x"]"#],
        );
    }

    #[test]
    fn quotes_are_rfc_4180s() {
        check(
            "header = false\noutput = 'list'",
            r#"["\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\",\"\"\r\n1,2,3,4\r\n"]"#,
            &[r#"[["a,b","say \"hi\"","two\nlines",null],[1,2,3,4]]"#],
        );
        check("", "[\"\u{feff}t\\n5\"]", &[r#"{"t":5}"#]);
    }

    #[test]
    fn numbers_are_told_from_text() {
        check(
            "header = false",
            r#"["5,-5,0,0.5,-0.25,.5,1e3,2E-2, 7 ,"]"#,
            &["[5,-5,0,0.5,-0.25,0.5,1000,0.02,7,null]"],
        );
        check(
            "header = false",
            r#"["007,+5,1.2.3,-,.,e5,inf,nan,1e999,0x10,5 m,1-2"]"#,
            &[r#"["007","+5","1.2.3","-",".","e5","inf","nan","1e999","0x10","5 m","1-2"]"#],
        );
        check(
            "header = false\nnumbers = false",
            r#"["5,x"]"#,
            &[r#"["5","x"]"#],
        );
    }

    #[test]
    fn what_does_not_fit_fails_as_a_whole() {
        check(
            "",
            r#"["a,b\n1,2\n3", "a,b\n\n1,2,3", "a, a\n1,2"]"#,
            &[
                "failed: row 2: 1 fields, where there are 2 columns",
                "failed: row 1: 3 fields, where there are 2 columns",
                "failed: the header names `a` twice",
            ],
        );
        check(
            "action = 'parse'",
            "[5, null]",
            &[
                "failed: needs CSV text, but the payload is a number",
                "failed: needs CSV text, but the payload is null",
            ],
        );
    }

    #[test]
    fn rows_are_parts_of_their_text() {
        let mut run = Run::new("type = 'csv'\ncolumns = ['a']");
        run.deliver(Timestamp::from_millis(7), "1\n2".into());
        let headers = run.messages[1].headers.as_ref().expect("parts");
        assert_eq!(
            headers["parts"].to_json(),
            r#"{"id":"test/tested/1","index":1,"count":2,"kind":"list"}"#
        );
        assert_eq!(run.messages[1].time, Timestamp::from_millis(7));
    }

    #[test]
    fn what_is_read_is_bounded() {
        let text = |text: String| Value::from(text.as_str());
        let sent = run_node(
            "type = 'csv'\nheader = false\noutput = 'list'",
            [
                text("1\n".repeat(10_001)),
                text(",".repeat(100_000)),
                text("x".repeat(1_048_577)),
            ],
        );
        assert_eq!(
            sent,
            [
                "failed: the text has more than 10000 rows",
                "failed: the text has more than 100000 fields",
                "failed: a text of 1048577 bytes is too long: 1 MiB is the most",
            ]
        );
        let sent = run_node("type = 'csv'\nheader = false", [text("1\n".repeat(10_000))]);
        assert_eq!(sent.len(), 10_000);
        let sent = run_node("type = 'csv'", [text(",".repeat(10_000))]);
        assert_eq!(sent, ["failed: more than 10000 columns"]);
        check(
            "most = 1\nheader = false",
            r#"["1\n2", "1"]"#,
            &["failed: the text has more than 1 rows", "[1]"],
        );
    }

    #[test]
    fn text_is_written() {
        check(
            "",
            r#"[{"name":"north","t":4.5}, [{"a":1},{"b":true,"a":null}]]"#,
            &[r#""name,t\nnorth,4.5\n""#, r#""a,b\n1,\n,true\n""#],
        );
        check(
            "columns = ['b', 'a']",
            r#"[{"a":1,"b":"x","c":3}, {"a":2}, [{"a":1},[8,9,10]], [1,"x"]]"#,
            &[
                "\"x,1\\n\"",
                "\",2\\n\"",
                "\",1\\n8,9,10\\n\"",
                "\"1,x\\n\"",
            ],
        );
        check(
            "columns = ['a']\nheader = true",
            r#"[[], {"a":1}]"#,
            &["\"a\\n\"", "\"a\\n1\\n\""],
        );
        check(
            "separator = ';'\nheader = false",
            r#"[{"a":"a;b", "b":"say \"hi\"", "c":"two\nlines", "d":"1,5", "e":[1,"x"]}]"#,
            &[r#""\"a;b\";\"say \"\"hi\"\"\";\"two\nlines\";1,5;\"[1,\"\"x\"\"]\"\n""#],
        );
        let odd = Value::List(vec![f64::NAN.into(), 1.0.into(), f64::INFINITY.into()].into());
        assert_eq!(run_node("type = 'csv'", [odd]), ["\",1,\\n\""]);
    }

    #[test]
    fn what_cannot_be_written_fails() {
        check(
            "",
            r#"[5, null, [{"a":1}, 5]]"#,
            &[
                "failed: needs an object or a list, but the payload is a number",
                "failed: needs an object or a list, but the payload is null",
                "failed: a row must be an object or a list, and item 1 is a number",
            ],
        );
        check(
            "action = 'stringify'",
            r#"["a"]"#,
            &["failed: needs an object or a list, but the payload is text"],
        );
        let long = Value::from("x".repeat(600_000).as_str());
        let sent = run_node("type = 'csv'", [Value::List(vec![long; 2].into())]);
        assert_eq!(sent, ["failed: the text would be longer than 1 MiB"]);
    }

    #[test]
    fn mistakes_are_said() {
        let check = |options: &str, expected: &str| {
            let found = node_problems(&format!("type = 'csv'\n{options}"));
            assert!(found[0].contains(expected), "{options}: {found:?}");
        };
        check("columns = []", "`columns`: must name at least one column");
        check("columns = ['a', 'b', 'a']", "`columns`: names `a` twice");
        check("most = 0", "`most`: must be from 1 to 10,000");
        for separator in ["", ";;", "ä", "\"", "\\n"] {
            check(
                &format!("separator = {}", Value::from(separator)),
                "a separator is one ASCII character",
            );
        }
    }
}
