//! A node type as the rest of Tidegate sees it, and how its options are read.

use std::sync::Arc;

use schemars::{Schema, SchemaGenerator};
use toml::de::{DeTable, DeValue};

use super::definition::{Definition, Spec};
use super::node_types;
use crate::flow::diagnostic::Report;
use crate::flow::options;
use crate::sensors::About;

/// A node type, the types of its options erased.
#[derive(Debug)]
pub struct NodeType {
    pub name: &'static str,
    pub has_input: bool,
    /// The ports that every node of the type has.
    pub ports: &'static [&'static str],
    /// Whether a node's options name its ports.
    pub names_ports: bool,
    pub example: &'static str,
    /// What is known of the part, if it is a sensor.
    pub part: Option<&'static About>,
    /// What it is connected by, if it is.
    pub by: &'static str,
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
    pub(super) read: ReadOptions,
}

/// Reads a node's options: the table, where the node's name stands, the name, the report.
type ReadOptions =
    fn(&DeTable<'_>, std::ops::Range<usize>, &str, &mut Report) -> Option<Arc<dyn Spec>>;

impl NodeType {
    pub(super) const fn of<D: Definition>() -> NodeType {
        NodeType {
            name: D::NAME,
            has_input: D::HAS_INPUT,
            ports: D::PORTS,
            names_ports: D::NAMES_PORTS,
            example: D::EXAMPLE,
            part: None,
            by: "",
            schema: SchemaGenerator::root_schema_for::<D>,
            read: read::<D>,
        }
    }

    /// The type of that name.
    pub fn find(name: &str) -> Option<&'static NodeType> {
        node_types().find(|node_type| node_type.name == name)
    }

    /// The JSON Schema of the options, with their documentation.
    pub fn schema(&self) -> Schema {
        (self.schema)(&mut SchemaGenerator::default())
    }

    /// The same as part of a larger schema, which gets the definitions that it refers to.
    pub fn schema_in(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }

    /// Reads the options of a node; mistakes go to the report. `header` is where the node's name stands.
    pub fn read(
        &self,
        options: &DeTable<'_>,
        header: std::ops::Range<usize>,
        node: &str,
        report: &mut Report,
    ) -> Option<Arc<dyn Spec>> {
        (self.read)(options, header, node, report)
    }
}

fn read<D: Definition>(
    table: &DeTable<'_>,
    header: std::ops::Range<usize>,
    node: &str,
    report: &mut Report,
) -> Option<Arc<dyn Spec>> {
    let what = format!("node `{node}` ({})", D::NAME);
    let options = options::read_with_hints::<D>(table, header.clone(), &what, D::hint, report);
    let definition = options.read?;
    let mut problems = definition.problems();
    let is_valid = options.complete && problems.is_empty();
    // Of an option with a mistake only a part was read, or nothing, and it has been said; one that is not written may be
    // there under a name that is not known.
    problems.retain(|problem| {
        let option = problem.at.split('.').next().unwrap_or_default();
        let is_written = table.get(option).is_some();
        !options.wrong.iter().any(|wrong| wrong == option) && (options.complete || is_written)
    });
    for problem in problems {
        let span = place_of(table, &problem.at).unwrap_or(header.clone());
        report.error(span, format!("`{}`: {}", problem.at, problem.message), None);
    }
    // Of options that were not read completely nobody knows what is meant.
    let warnings = options.complete.then(|| definition.warnings());
    for problem in warnings.into_iter().flatten() {
        let span = place_of(table, &problem.at).unwrap_or(header.clone());
        report.warning(span, format!("`{}`: {}", problem.at, problem.message), None);
    }
    is_valid.then(|| Arc::new(definition) as Arc<dyn Spec>)
}

/// Where a place like `rules.2.between` stands; if it is not written, what it would be in.
pub(crate) fn place_of(table: &DeTable<'_>, path: &str) -> Option<std::ops::Range<usize>> {
    let mut steps = path.split('.');
    let mut here = table.get(steps.next()?)?;
    for step in steps {
        let next = match here.get_ref() {
            DeValue::Table(table) => table.get(step),
            DeValue::Array(items) => step.parse().ok().and_then(|place: usize| items.get(place)),
            _ => None,
        };
        match next {
            Some(next) => here = next,
            None => break,
        }
    }
    Some(here.span())
}
