//! `sort`: puts a list in order.

use std::cmp::Ordering;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::path::Steps;
use super::{BuildError, Definition, Surroundings};
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};

/// Sorts the list in the payload, by its items or by a part of each.
///
/// Numbers go by size and text by code point. Where types are mixed, booleans (`false`, `true`) come before numbers, these
/// before text, then lists, then objects. Items that compare as equal stay in their order; lists are equal to each other,
/// and so are objects. What has no value to sort by (NaN, null, no such part) comes last, whichever the order. A payload
/// that is no list fails.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Sort {
    /// The part of each item to sort by, such as `temp` or `reading.values[0]`. Default: the item itself.
    by: Option<Steps>,
    /// `ascending` or `descending`. Default: `ascending`.
    #[serde(default)]
    order: Order,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    Ascending,
    Descending,
}

impl Definition for Sort {
    const NAME: &'static str = "sort";
    const EXAMPLE: &'static str = r#"
[nodes.tanks]
type = "inject"
every = "1m"
payload = [{ tank = "north", level = 71 }, { tank = "south", level = 34 }]

[nodes.emptiest-first]
type = "sort"
from = "tanks"
by = "level"

[nodes.show]
type = "debug"
from = "emptiest-first"
"#;

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Sorter {
            by: self.by.clone(),
            order: self.order,
        }))
    }
}

struct Sorter {
    by: Option<Steps>,
    order: Order,
}

impl Node for Sorter {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Value::List(items) = &mut message.payload else {
            return cx.fail(format!(
                "needs a list, but the payload is {}",
                message.payload.kind()
            ));
        };
        Arc::make_mut(items).sort_by(|a, b| self.compare(self.key(a), self.key(b)));
        cx.pass(0);
    }
}

impl Sorter {
    /// What to sort an item by, if it has that.
    fn key<'a>(&self, item: &'a Value) -> Option<&'a Value> {
        let key = match &self.by {
            Some(steps) => steps.get(item)?,
            None => item,
        };
        let is_known = match key {
            Value::Null => false,
            Value::Number(number) => !number.is_nan(),
            _ => true,
        };
        is_known.then_some(key)
    }

    fn compare(&self, a: Option<&Value>, b: Option<&Value>) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) => match self.order {
                Order::Ascending => ascending(a, b),
                Order::Descending => ascending(b, a),
            },
            (None, None) => Ordering::Equal,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        }
    }
}

/// The order of two values, none of them null or NaN.
fn ascending(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

/// The place of a type where types are mixed.
fn rank(value: &Value) -> u8 {
    match value {
        Value::Bool(_) => 0,
        Value::Number(_) => 1,
        Value::Text(_) => 2,
        Value::List(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

#[cfg(test)]
mod tests {
    use crate::message::Value;
    use crate::nodes::testing::{node_problems, run_node, run_node_json};

    fn check(options: &str, list: &str, expected: &str) {
        let sent = run_node_json(&format!("type = 'sort'\n{options}"), &format!("[{list}]"));
        assert_eq!(sent, [expected], "{options}");
    }

    #[test]
    fn numbers_go_by_size_and_text_by_code_point() {
        check("", "[10, 9, -1, 9.5, 0]", "[-1,0,9,9.5,10]");
        check("order = 'descending'", "[10, 9, -1]", "[10,9,-1]");
        check(
            "",
            r#"["b", "a", "Z", "ä", "10", "9"]"#,
            r#"["10","9","Z","a","b","ä"]"#,
        );
        check("", "[]", "[]");
        check("", "[5]", "[5]");
    }

    #[test]
    fn mixed_types_have_an_order() {
        const MIXED: &str = r#"[null, {"a":1}, [2], "x", null, 5, true, false, [1]]"#;
        check("", MIXED, r#"[false,true,5,"x",[2],[1],{"a":1},null,null]"#);
        check(
            "order = 'descending'",
            MIXED,
            r#"[{"a":1},[2],[1],"x",5,true,false,null,null]"#,
        );
    }

    #[test]
    fn what_cannot_be_compared_comes_last_in_both_orders() {
        let numbers = [f64::NAN, 1.0, f64::INFINITY, f64::NEG_INFINITY, 2.0].map(Value::Number);
        let sorted = |order: &str| {
            let list = Value::List(numbers.to_vec().into());
            run_node(&format!("type = 'sort'\norder = '{order}'"), [list])
        };
        // In JSON all three are `null`; the infinities are at their ends.
        assert_eq!(sorted("ascending"), ["[null,1,2,null,null]"]);
        assert_eq!(sorted("descending"), ["[null,2,1,null,null]"]);
        check("", "[2, null, 1]", "[1,2,null]");
        check(
            "by = 't'\norder = 'descending'",
            r#"[{"t":null}, {"t":1}, {}, 7, {"t":2}]"#,
            r#"[{"t":2},{"t":1},{"t":null},{},7]"#,
        );
    }

    #[test]
    fn a_part_of_each_item_decides_and_ties_keep_their_order() {
        check(
            "by = 'r.values[1]'",
            r#"[{"n":1,"r":{"values":[0,9]}}, {"n":2,"r":{"values":[0,8]}}, {"n":3,"r":{"values":[0,9]}}]"#,
            r#"[{"n":2,"r":{"values":[0,8]}},{"n":1,"r":{"values":[0,9]}},{"n":3,"r":{"values":[0,9]}}]"#,
        );
        check(
            "by = '[0]'",
            "[[2,\"a\"],[1,\"b\"]]",
            r#"[[1,"b"],[2,"a"]]"#,
        );
    }

    #[test]
    fn what_is_no_list_fails() {
        let sent = run_node_json("type = 'sort'", r#"[5, {"a":[1]}, null, "ba"]"#);
        assert_eq!(
            sent,
            ["a number", "an object", "null", "text"]
                .map(|kind| format!("failed: needs a list, but the payload is {kind}"))
        );
    }

    #[test]
    fn mistakes_are_said() {
        let found = node_problems("type = 'sort'\nby = ''");
        assert!(found[0].contains("a name is missing"), "{found:?}");
        let found = node_problems("type = 'sort'\norder = 'down'");
        assert!(found[0].contains("`down` is not known here"), "{found:?}");
    }
}
