//! What comes to the sinks of a test's flow, kept to be made into a test.

use std::collections::HashMap;

use super::all_nodes;
use crate::board::Pin;
use crate::flow_test::test::Test;
use crate::flow_test::watch::Item;
use crate::nodes::Use;
use crate::runtime::Address;

/// What came to the sinks of a test's flows.
#[derive(Debug, Default)]
pub(in crate::flow_test) struct Recorded {
    pub(in crate::flow_test) sinks: Vec<RecordedSink>,
    pub(in crate::flow_test) failures: u64,
}

#[derive(Debug)]
pub(in crate::flow_test) struct RecordedSink {
    pub(in crate::flow_test) name: String,
    /// The first messages, or changes of a pin.
    pub(in crate::flow_test) items: Vec<Item>,
    /// How many there were.
    pub(in crate::flow_test) count: u64,
}

/// The sinks that are recorded.
pub(super) struct Sinks {
    most: usize,
    pub(super) sinks: Vec<RecordedSink>,
    pub(super) by_node: HashMap<Address, usize>,
    pub(super) by_pin: HashMap<Pin, usize>,
}

impl Sinks {
    pub(super) fn of(test: &Test, most: usize) -> Sinks {
        let mut sinks = Sinks {
            most,
            sinks: Vec::new(),
            by_node: HashMap::new(),
            by_pin: HashMap::new(),
        };
        let of_flow = all_nodes(test).into_iter().filter(|node| node.flow == 0);
        for address in of_flow {
            let node = &test.flows[0].nodes()[usize::from(address.node.0)];
            let pin = node.uses.iter().find_map(|needed| match needed {
                Use::Output { pin, .. } => Some(*pin),
                _ => None,
            });
            let place = sinks.sinks.len();
            match pin {
                Some(pin) => drop(sinks.by_pin.insert(pin, place)),
                None if node.spec.publishes().is_some() || node.node_type.name == "debug" => {
                    sinks.by_node.insert(address, place);
                }
                None => continue,
            }
            sinks.sinks.push(RecordedSink {
                name: node.name.to_string(),
                items: Vec::new(),
                count: 0,
            });
        }
        sinks
    }

    pub(super) fn add(&mut self, place: Option<usize>, item: Item) {
        if let Some(place) = place {
            let sink = &mut self.sinks[place];
            sink.count += 1;
            if sink.items.len() < self.most {
                sink.items.push(item);
            }
        }
    }
}
