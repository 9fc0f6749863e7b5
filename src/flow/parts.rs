//! Parts: sub-flows that a flow uses several times, each time with other parameters.
//!
//! ```toml
//! [parts.clean]
//! vars = { low = -40, high = 60 }     # parameters and their defaults
//! out  = "steady"                     # what `from = "NAME"` gives to those who read; { ok = "steady", bad = "in-range.out" }
//! [parts.clean.nodes.in-range]
//! type = "limits"
//! from = "in"                         # what the part is given
//! ...
//! [nodes.cellar]
//! type = "part"
//! part = "clean"
//! from = "probe"
//! with = { low = 0 }
//! ```
//!
//! Using a part puts its nodes into the flow, named `cellar/in-range`. Terms: a *use* is a node of type `part`; its *scope* is the
//! name before its nodes' names, with the slash; the flow's own nodes have the empty scope.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::flow::diagnostic::{Report, did_you_mean};
use crate::flow::file::{FlowFile, WrittenNode};

/// The type of a node that uses a part.
pub const TYPE: &str = "part";
/// What a part's nodes call what it is given.
pub const INPUT: &str = "in";
/// Parts inside of each other; deeper ones would take more stack than a thread has.
const MOST_NESTED: usize = 32;

/// A part as written.
#[derive(Clone, Debug)]
pub struct WrittenPart<'a> {
    pub name: Spanned<String>,
    /// Parameters with their defaults.
    pub vars: DeTable<'a>,
    /// Per port, the node or `node.port` inside whose messages leave. The first port is what the name alone means.
    pub out: Vec<(Spanned<String>, Spanned<String>)>,
    pub nodes: Vec<WrittenNode<'a>>,
    /// Nodes of which so much is wrong that they are not among `nodes`.
    pub unreadable: Vec<String>,
}

/// A part in use.
#[derive(Clone, Debug)]
pub struct PartUse<'a> {
    /// The place of the part among the flow's.
    pub part: usize,
    pub name: Spanned<String>,
    /// The scope of the node that uses it.
    pub outer: String,
    pub from: Vec<Spanned<String>>,
    /// Values for parameters, not yet substituted.
    pub with: DeTable<'a>,
}

/// A flow with its parts put in.
#[derive(Debug, Default)]
pub struct Expanded<'a> {
    pub nodes: Vec<WrittenNode<'a>>,
    /// By scope without the slash at its end.
    pub uses: HashMap<String, PartUse<'a>>,
}

/// Puts the nodes of all parts in the place of their uses. More than `most` nodes are not made, and what parts in parts
/// multiply without a node coming of it is bounded as well.
pub fn expand<'a>(file: &FlowFile<'a>, most: usize, report: &mut Report) -> Expanded<'a> {
    let mut expansion = Expansion {
        file,
        most,
        report,
        expanded: Expanded::default(),
        open: Vec::new(),
        used: vec![false; file.parts.len()],
        placed: 0,
        is_full: false,
    };
    for node in &file.nodes {
        expansion.place(node, "");
    }
    for (part, is_used) in file.parts.iter().zip(expansion.used) {
        // Of what was not looked at nobody knows.
        if !is_used && !expansion.is_full {
            let name = part.name.get_ref();
            let help = format!(
                "a node uses it: type = \"part\", part = \"{name}\"; until then its nodes are not checked"
            );
            let message = format!("nothing uses the part `{name}`");
            expansion
                .report
                .warning(part.name.span(), message, Some(help));
        }
    }
    expansion.expanded
}

struct Expansion<'f, 'a> {
    file: &'f FlowFile<'a>,
    most: usize,
    report: &'f mut Report,
    expanded: Expanded<'a>,
    /// The parts that are being put in, one inside of the other.
    open: Vec<usize>,
    used: Vec<bool>,
    /// Nodes and uses of parts so far, those with mistakes included.
    placed: usize,
    /// There is no room for more, and that has been said.
    is_full: bool,
}

impl<'a> Expansion<'_, 'a> {
    fn place(&mut self, node: &WrittenNode<'a>, scope: &str) {
        let is_use = node.node_type.get_ref() == TYPE;
        let has_room = is_use || self.expanded.nodes.len() < self.most;
        if !has_room || self.placed >= self.most.saturating_mul(4) {
            if !std::mem::replace(&mut self.is_full, true) {
                let message = format!("a flow can have {} nodes, with its parts", self.most);
                let help = "split it into several flows, joined by `link out` and `link in`";
                self.report
                    .error(node.name.span(), message, Some(help.into()));
            }
            return;
        }
        self.placed += 1;
        if !is_use {
            let scope = scope.to_owned();
            self.expanded.nodes.push(WrittenNode {
                scope,
                ..node.clone()
            });
            return;
        }
        let Some(part) = self.part_of(node) else {
            return;
        };
        self.used[part] = true;
        let definition = &self.file.parts[part];
        if self.open.contains(&part) {
            let message = format!(
                "the part `{}` would contain itself",
                definition.name.get_ref()
            );
            self.report.error(node.node_type.span(), message, None);
            return;
        }
        if self.open.len() == MOST_NESTED {
            let message = format!("parts can be {MOST_NESTED} deep inside of each other");
            self.report.error(node.node_type.span(), message, None);
            self.is_full = true;
            return;
        }
        let with = self.parameters(node, definition);
        let full_name = format!("{scope}{}", node.name.get_ref());
        self.input(node, definition);
        let part_use = PartUse {
            part,
            name: node.name.clone(),
            outer: scope.to_owned(),
            from: node.from.clone(),
            with,
        };
        self.expanded.uses.insert(full_name.clone(), part_use);
        self.open.push(part);
        let inner = format!("{full_name}/");
        for node in &definition.nodes {
            if self.is_full {
                break;
            }
            self.place(node, &inner);
        }
        self.open.pop();
    }

    /// Which part a node uses; its other options are checked on the way.
    fn part_of(&mut self, node: &WrittenNode<'a>) -> Option<usize> {
        let name = node.name.get_ref();
        for (option, _) in &node.options {
            if !["part", "with"].contains(&option.get_ref().as_ref()) {
                let help = did_you_mean(option.get_ref(), ["part", "with", "from", "type"])
                    .unwrap_or_else(|| "parameters of the part stand in `with = { ... }`".into());
                let message = format!("node `{name}` (part) has no option `{}`", option.get_ref());
                self.report.error(option.span(), message, Some(help));
            }
        }
        let Some(wanted) = node.options.get("part") else {
            let message = format!("node `{name}` (part) needs `part`");
            let help = "`part` names a part of this flow: [parts.NAME]";
            self.report
                .error(node.name.span(), message, Some(help.into()));
            return None;
        };
        let Some(text) = wanted.get_ref().as_str() else {
            let message = "`part` must be the name of a part, in quotes";
            self.report.error(wanted.span(), message, None);
            return None;
        };
        let parts = || {
            self.file
                .parts
                .iter()
                .map(|part| part.name.get_ref().as_str())
        };
        let found = parts().position(|known| known == text);
        if found.is_none() {
            let help =
                did_you_mean(text, parts()).unwrap_or_else(|| format!("define it: [parts.{text}]"));
            let message = format!("there is no part `{text}`");
            self.report.error(wanted.span(), message, Some(help));
        }
        found
    }

    fn parameters(&mut self, node: &WrittenNode<'a>, part: &WrittenPart<'a>) -> DeTable<'a> {
        let Some(with) = node.options.get("with") else {
            return DeTable::new();
        };
        let DeValue::Table(given) = with.get_ref() else {
            let message = "`with` must be a table: with = { NAME = VALUE }";
            self.report.error(with.span(), message, None);
            return DeTable::new();
        };
        for (name, _) in given {
            if part.vars.get(name.get_ref().as_ref()).is_none() {
                let known = part.vars.keys().map(|known| known.get_ref().as_ref());
                let help = did_you_mean(name.get_ref(), known)
                    .unwrap_or_else(|| "a part's parameters are in its `vars`".into());
                let message = format!(
                    "the part `{}` has no parameter `{}`",
                    part.name.get_ref(),
                    name.get_ref()
                );
                self.report.error(name.span(), message, Some(help));
            }
        }
        given.clone()
    }

    /// Whether a part that reads `in` is given something, and one that does not is given nothing.
    fn input(&mut self, node: &WrittenNode<'a>, part: &WrittenPart<'a>) {
        let reads = part.nodes.iter().any(|inside| {
            let mut from = inside.from.iter();
            from.any(|input| input.get_ref() == INPUT)
        });
        let name = node.name.get_ref();
        let part = part.name.get_ref();
        match (&node.from_span, reads) {
            (Some(span), false) => {
                let message = format!("the part `{part}` has no input");
                let help = "remove `from`, or let a node of the part read from = \"in\"";
                self.report.error(span.clone(), message, Some(help.into()));
            }
            (None, true) => {
                let message = format!("node `{name}` (part `{part}`) needs an input");
                let help = "`from = \"NODE\"` names the node whose messages it reads";
                self.report
                    .error(node.name.span(), message, Some(help.into()));
            }
            _ => {}
        }
    }
}

/// Where a reference inside of a scope leads.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// The name without its scope.
    pub name: String,
    pub scope: String,
    pub port: Option<String>,
    /// Where it was written.
    pub span: Range<usize>,
}

impl Reference {
    pub fn new(scope: &str, written: &Spanned<String>) -> Reference {
        let (name, port) = match written.get_ref().split_once('.') {
            Some((name, port)) => (name, Some(port.to_owned())),
            None => (written.get_ref().as_str(), None),
        };
        Reference {
            name: name.to_owned(),
            scope: scope.to_owned(),
            port,
            span: written.span(),
        }
    }

    pub fn full_name(&self) -> String {
        format!("{}{}", self.scope, self.name)
    }
}

impl Expanded<'_> {
    /// What a node's inputs mean, with `in` replaced by what the part was given.
    pub fn inputs(&self, scope: &str, from: &[Spanned<String>]) -> Vec<Reference> {
        let mut inputs = Vec::new();
        for written in from {
            match self.uses.get(scope.trim_end_matches('/')) {
                Some(part_use) if written.get_ref() == INPUT => {
                    inputs.extend(self.inputs(&part_use.outer, &part_use.from));
                }
                _ => inputs.push(Reference::new(scope, written)),
            }
        }
        inputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::file;

    /// A part that uses another one twice, and so on, `depth` deep; what is at the bottom, and what is said.
    fn expand_nested(depth: usize, bottom: &str) -> (usize, Vec<String>) {
        let mut flow = String::new();
        for depth in 1..=depth {
            flow += &format!("[parts.p{depth}]\n");
            for name in ["a", "b"] {
                flow += &format!(
                    "[parts.p{depth}.nodes.{name}]\ntype = 'part'\npart = 'p{}'\nfrom = 'in'\n",
                    depth - 1
                );
            }
        }
        flow += &format!("[parts.p0]\n{bottom}\n");
        flow += &format!("[nodes.use]\ntype = 'part'\npart = 'p{depth}'\nfrom = 'tick'\n");
        let mut report = Report::new("f.toml", flow);
        let source = report.source().clone();
        let file = file::parse(&source, &mut report);
        let expanded = expand(&file, 100, &mut report);
        report.drop_repeated();
        let found = report.into_diagnostics().into_iter();
        (expanded.nodes.len(), found.map(|it| it.message).collect())
    }

    const FULL: &str = "a flow can have 100 nodes, with its parts";

    #[test]
    fn parts_in_parts_do_not_multiply_without_end() {
        let node = "nodes.a = { type = 'filter', from = 'in' }";
        assert_eq!(expand_nested(20, node), (100, vec![FULL.to_owned()]));
        // Also where no node comes of it.
        for bottom in [
            "",
            "nodes.a = { type = 3 }",
            "nodes.a = { type = 'part', part = 'none' }",
        ] {
            let (nodes, found) = expand_nested(20, bottom);
            assert_eq!(nodes, 0, "{bottom}");
            assert!(found.iter().any(|it| it == FULL), "{bottom}: {found:?}");
            assert!(found.len() < 5, "{bottom}: {found:?}");
        }
    }

    #[test]
    fn parts_are_so_deep_inside_of_each_other_and_no_deeper() {
        let chain = |depth: usize| {
            let mut flow = String::from("[parts.p0.nodes.a]\ntype = 'filter'\nfrom = 'in'\n");
            for depth in 1..depth {
                flow += &format!(
                    "[parts.p{depth}.nodes.a]\ntype = 'part'\npart = 'p{}'\nfrom = 'in'\n",
                    depth - 1
                );
            }
            flow += &format!(
                "[nodes.use]\ntype = 'part'\npart = 'p{}'\nfrom = 'tick'\n",
                depth - 1
            );
            let mut report = Report::new("f.toml", flow);
            let source = report.source().clone();
            let file = file::parse(&source, &mut report);
            let nodes = expand(&file, 100, &mut report).nodes.len();
            let found = report.into_diagnostics().into_iter();
            (nodes, found.map(|it| it.message).collect::<Vec<_>>())
        };
        assert_eq!(chain(32), (1, vec![]));
        let deep = "parts can be 32 deep inside of each other".to_owned();
        assert_eq!(chain(33), (0, vec![deep]));
        assert_eq!(chain(5_000), chain(33));
    }

    #[test]
    fn what_a_part_is_given_twice_does_not_multiply_from_part_to_part() {
        let mut flow = String::from("[parts.p0.nodes.a]\ntype = 'filter'\nfrom = 'in'\n");
        for depth in 1..30 {
            flow += &format!(
                "[parts.p{depth}.nodes.a]\ntype = 'part'\npart = 'p{}'\nfrom = ['in', 'in']\n",
                depth - 1
            );
        }
        flow += "[nodes.use]\ntype = 'part'\npart = 'p29'\nfrom = 'tick'\n";
        let mut report = Report::new("f.toml", flow);
        let source = report.source().clone();
        let file = file::parse(&source, &mut report);
        let expanded = expand(&file, 100, &mut report);
        let node = &expanded.nodes[0];
        assert_eq!(expanded.inputs(&node.scope, &node.from).len(), 1);
        let found = report.into_diagnostics();
        assert_eq!(found.len(), 29);
        assert_eq!(found[0].message, "`in` is named twice");
    }
}
