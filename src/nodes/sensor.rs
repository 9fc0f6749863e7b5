//! The node types of sensors: one for each part, from its definition.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::Value as Json;
use toml::de::DeTable;

use super::definition::Spec;
use super::node_type::place_of;
use super::sampler::{Sampler, too_fast};
use super::{BuildError, NodeType, Problem, Surroundings, Use};
use crate::flow::diagnostic::{Report, nearest};
use crate::flow::estimate::Load;
use crate::flow::options::{self, Span, Whole};
use crate::runtime::node::Node;
use crate::sensors::{Part, Place, SensorSpec};

/// What all sensors have.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
struct Reading {
    /// How often to read it, at least 1 ms apart. Default: `1s`, or as often as it can be read if that takes longer.
    every: Option<Span>,
    /// Only this quantity, as a number. Default: all that it measures, as an object with a field for each, or a number if it is one.
    quantity: Option<String>,
    /// The topic of its messages. Default: the flow's and the node's name.
    topic: Option<String>,
}

/// A sensor of a flow.
#[derive(Debug)]
struct SensorNode<P: Part> {
    reading: Reading,
    part: P,
    place: P::Place,
}

/// The node type of a part.
pub(super) const fn of<P: Part>() -> NodeType {
    NodeType {
        name: P::NAME,
        has_input: false,
        ports: &["out"],
        names_ports: false,
        example: P::EXAMPLE,
        part: Some(&P::ABOUT),
        by: <P::Place as Place>::BY,
        schema: schema::<P>,
        read: read::<P>,
    }
}

/// The options of the part, those of its place, and those of all sensors, in this order.
fn schema<P: Part>(generator: &mut SchemaGenerator) -> Schema {
    let mut whole = generator.root_schema_for::<P>();
    for more in [
        generator.root_schema_for::<P::Place>(),
        generator.root_schema_for::<Reading>(),
    ] {
        merge(&mut whole, &more, "properties");
        merge(&mut whole, &more, "$defs");
        let required = more.get("required").and_then(Json::as_array);
        let all = whole
            .ensure_object()
            .entry("required")
            .or_insert_with(|| Json::Array(Vec::new()));
        if let (Some(all), Some(required)) = (all.as_array_mut(), required) {
            all.extend(required.iter().cloned());
        }
    }
    if whole
        .get("required")
        .and_then(Json::as_array)
        .is_some_and(Vec::is_empty)
    {
        whole.remove("required");
    }
    whole
}

fn merge(whole: &mut Schema, more: &Schema, key: &str) {
    let Some(more) = more.get(key).and_then(Json::as_object) else {
        return;
    };
    let all = whole
        .ensure_object()
        .entry(key)
        .or_insert_with(|| Json::Object(Default::default()));
    if let Some(all) = all.as_object_mut() {
        all.extend(
            more.iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }
}

fn read<P: Part>(
    table: &DeTable<'_>,
    header: Range<usize>,
    node: &str,
    report: &mut Report,
) -> Option<Arc<dyn Spec>> {
    let what = format!("node `{node}` ({})", P::NAME);
    let schema = schema::<P>(&mut SchemaGenerator::default());
    let parse = |whole: Whole<'_>| {
        Ok(SensorNode {
            reading: options::from_table(whole.clone())?,
            place: options::from_table(whole.clone())?,
            part: options::from_table(whole)?,
        })
    };
    let options = options::read_as(
        table,
        header.clone(),
        &what,
        schema,
        |_| None,
        report,
        parse,
    );
    let read: SensorNode<P> = options.read?;
    let problems = read.problems();
    let is_valid = options.complete && problems.is_empty();
    if is_valid && let Some(message) = read.haste() {
        let span = place_of(table, "every").unwrap_or(header.clone());
        report.warning(span, format!("`every`: {message}"), None);
    }
    for problem in problems {
        if options.wrong.contains(&problem.at) {
            continue;
        }
        let span = place_of(table, &problem.at).unwrap_or(header.clone());
        report.error(span, format!("`{}`: {}", problem.at, problem.message), None);
    }
    is_valid.then(|| Arc::new(read) as Arc<dyn Spec>)
}

impl<P: Part> SensorNode<P> {
    fn problems(&self) -> Vec<Problem> {
        let of_place = self.place.problems(&P::ABOUT);
        let problems = of_place.into_iter().chain(self.part.problems());
        let mut problems: Vec<Problem> = problems
            .map(|(option, message)| Problem::new(option, message))
            .collect();
        problems.extend(self.reading.every.and_then(too_fast));
        if let Some(wanted) = &self.reading.quantity {
            let quantities = self.part.quantities();
            let names = quantities.iter().map(|quantity| &*quantity.name);
            if !names.clone().any(|name| name == wanted) {
                let help = match nearest(wanted, names.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("it measures {}", names.collect::<Vec<_>>().join(", ")),
                };
                problems.push(Problem::new(
                    "quantity",
                    format!("there is no `{wanted}`; {help}"),
                ));
            }
        }
        problems
    }

    /// What is to be said of a pace that the part cannot keep.
    fn haste(&self) -> Option<String> {
        let least = Duration::from_millis(self.part.takes_ms());
        let is_hasty = self.every().0 < least;
        is_hasty.then(|| format!("a reading may take {least:?}, so it will be read less often"))
    }

    fn every(&self) -> Span {
        const USUAL: Duration = Duration::from_secs(1);
        let least = Duration::from_millis(self.part.takes_ms());
        self.reading.every.unwrap_or(Span(USUAL.max(least)))
    }
}

impl<P: Part> Spec for SensorNode<P> {
    fn uses(&self) -> Vec<Use> {
        let spec = SensorSpec::new(self.part.clone(), self.place.clone());
        vec![Use::Sensor(spec)]
    }

    fn load(&self, _: Load) -> Load {
        let numbers = match self.reading.quantity {
            Some(_) => 1,
            None => self.part.quantities().len(),
        };
        Load::every(self.every().0, Load::NUMBER_BYTES * numbers as f64)
    }

    fn build(&self, surroundings: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let topic = self.reading.topic.as_deref();
        let topic = topic.map_or_else(|| surroundings.own_topic(), Into::into);
        let quantities = self.part.quantities();
        let quantity = self.reading.quantity.as_deref();
        Ok(Box::new(Sampler::new(
            topic,
            self.every(),
            &quantities,
            quantity,
        )))
    }
}

#[cfg(test)]
mod tests {
    use crate::nodes::testing::problems;

    #[test]
    fn the_mistakes_of_part_place_and_reading_are_all_told() {
        let found = problems(
            "[nodes.air]\ntype = 'bme280'\nadress = 0x76\naddress = 0x10\nevery = '1us'\nquantity = 'presure'\n\
             [nodes.show]\ntype = 'debug'\nfrom = 'air'",
        );
        for expected in [
            "has no option `adress` (did you mean `address`?)",
            "`address`: 0x10 is not an address of this part; it has 0x76, 0x77",
            "`every`: must be at least",
            "there is no `presure`; did you mean `pressure`?",
        ] {
            let is_told = found.iter().any(|found| found.contains(expected));
            assert!(is_told, "{expected}: {found:#?}");
        }
        assert_eq!(found.len(), 4, "{found:#?}");
    }
}
