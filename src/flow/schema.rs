//! Finds what a JSON Schema says of a part of a value: of an object's field, of a list's item.

use serde_json::Value;

/// A place in a schema; knows nothing where the schema says nothing.
#[derive(Clone, Copy)]
pub(super) struct SchemaPlace<'a> {
    /// Where `$ref` leads to.
    root: &'a Value,
    here: Option<&'a Value>,
}

impl<'a> SchemaPlace<'a> {
    pub(super) fn new(schema: &'a schemars::Schema) -> SchemaPlace<'a> {
        SchemaPlace {
            root: schema.as_value(),
            here: Some(schema.as_value()),
        }
    }

    pub(super) fn field(self, name: &str) -> SchemaPlace<'a> {
        self.step(|schema| {
            let properties = schema.get("properties");
            let known = properties.and_then(|properties| properties.get(name));
            known.or_else(|| schema.get("additionalProperties"))
        })
    }

    pub(super) fn item(self) -> SchemaPlace<'a> {
        self.step(|schema| schema.get("items"))
    }

    pub(super) fn format(self) -> Option<&'a str> {
        self.step(|schema| schema.get("format")).here?.as_str()
    }

    /// An option that may be absent is written as a choice between its schema and `null`; the first that knows counts.
    fn step(self, pick: impl Fn(&'a Value) -> Option<&'a Value>) -> SchemaPlace<'a> {
        let here = self.here.map(|here| self.resolved(here));
        let choices = here.and_then(|here| here.get("anyOf")?.as_array());
        let found = here.and_then(&pick).or_else(|| {
            let choices = choices.into_iter().flatten();
            choices.map(|choice| self.resolved(choice)).find_map(&pick)
        });
        SchemaPlace {
            here: found,
            ..self
        }
    }

    fn resolved(self, schema: &'a Value) -> &'a Value {
        let target = schema.get("$ref").and_then(Value::as_str);
        target
            .and_then(|target| self.root.pointer(target.strip_prefix('#')?))
            .unwrap_or(schema)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::{JsonSchema, schema_for};

    use super::*;
    use crate::flow::options::Span;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Outer {
        every: Span,
        rules: Vec<Inner>,
        first: Option<Inner>,
        named: BTreeMap<String, Inner>,
        list: Option<Vec<Span>>,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Inner {
        wait: Option<Span>,
        text: String,
    }

    #[test]
    fn parts_are_found_wherever_they_are() {
        let schema = schema_for!(Outer);
        let outer = SchemaPlace::new(&schema);
        let check = |place: SchemaPlace<'_>, expected: Option<&str>| {
            assert_eq!(place.format(), expected, "{:?}", place.here);
        };
        const SPAN: Option<&str> = Some("duration");
        check(outer.field("every"), SPAN);
        check(outer.field("rules").item().field("wait"), SPAN);
        check(outer.field("rules").item().field("text"), None);
        check(outer.field("first").field("wait"), SPAN);
        check(outer.field("named").field("any").field("wait"), SPAN);
        check(outer.field("list").item(), SPAN);
        check(outer.field("none").item().field("wait"), None);
        check(outer, None);
    }
}
