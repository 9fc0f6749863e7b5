//! Which node a name in a test means.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::board::Pin;
use crate::flow::diagnostic::{Report, did_you_mean};
use crate::flow::{Graph, GraphNode};
use crate::nodes::Use;
use crate::runtime::Address;

/// The nodes of a test's flows.
pub(super) struct Names<'a> {
    flows: &'a [Arc<Graph>],
    /// The sources that rest.
    fed: &'a HashSet<Address>,
    /// That of the test file.
    directory: &'a Path,
}

impl<'a> Names<'a> {
    pub(super) fn new(
        flows: &'a [Arc<Graph>],
        fed: &'a HashSet<Address>,
        directory: &'a Path,
    ) -> Names<'a> {
        Names {
            flows,
            fed,
            directory,
        }
    }

    pub(super) fn directory(&self) -> &'a Path {
        self.directory
    }

    pub(super) fn node(&self, address: Address) -> &'a GraphNode {
        &self.flows[address.flow as usize].nodes()[usize::from(address.node.0)]
    }

    /// The node of the test's own flow with that name, or of another one, as `FLOW/NODE`.
    pub(super) fn find(&self, name: &str) -> Option<Address> {
        let in_flow = |flow: u32, name: &str| {
            let node = self.flows[flow as usize].find(name)?;
            Some(Address { flow, node })
        };
        in_flow(0, name).or_else(|| {
            let (flow, name) = name.split_once('/')?;
            let place = self
                .flows
                .iter()
                .position(|known| &**known.name() == flow)?;
            in_flow(u32::try_from(place).ok()?, name)
        })
    }

    /// The same; a name that means nothing is reported.
    pub(super) fn find_or_report(
        &self,
        name: &str,
        span: Range<usize>,
        report: &mut Report,
    ) -> Option<Address> {
        let found = self.find(name);
        if found.is_none() {
            let help = did_you_mean(name, self.all().iter().map(String::as_str));
            report.error(span, format!("there is no node `{name}`"), help);
        }
        found
    }

    /// All names, as they can be written.
    fn all(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (place, flow) in self.flows.iter().enumerate() {
            for node in flow.nodes() {
                all.push(match place {
                    0 => node.name.to_string(),
                    _ => format!("{}/{}", flow.name(), node.name),
                });
            }
        }
        all
    }

    /// Whether a node begins a flow and does not hear of other nodes.
    pub(super) fn can_be_fed(&self, address: Address) -> bool {
        let node = self.node(address);
        !node.node_type.has_input && node.watching.is_none()
    }

    /// The sources of the test's own flow, in words.
    pub(super) fn sources(&self) -> String {
        let nodes = self.flows[0].nodes().iter();
        let sources = nodes.filter(|node| !node.node_type.has_input && node.watching.is_none());
        let sources: Vec<String> = sources.map(|node| format!("`{}`", node.name)).collect();
        match &sources[..] {
            [] => "this flow has no sources".into(),
            sources => format!("sources are fed: {}", sources.join(", ")),
        }
    }

    /// Who reads an input pin.
    pub(super) fn reader_of(&self, pin: Pin) -> Option<Address> {
        self.inputs()
            .find(|(_, known)| *known == pin)
            .map(|(node, _)| node)
    }

    /// The input pins, in words.
    pub(super) fn input_pins(&self) -> String {
        let pins: Vec<String> = self
            .inputs()
            .map(|(_, pin)| pin.number().to_string())
            .collect();
        match &pins[..] {
            [] => "the flow has no `gpio in`".into(),
            pins => format!("pins that are read: {}", pins.join(", ")),
        }
    }

    /// Whether a source rests.
    pub(super) fn is_fed(&self, address: Address) -> bool {
        self.fed.contains(&address)
    }

    fn inputs(&self) -> impl Iterator<Item = (Address, Pin)> {
        (0..).zip(self.flows).flat_map(|(flow, graph)| {
            graph.uses().filter_map(move |(node, needed)| match needed {
                Use::Input { pin, .. } | Use::Pulses { pin, .. } => {
                    Some((Address { flow, node }, *pin))
                }
                _ => None,
            })
        })
    }
}
