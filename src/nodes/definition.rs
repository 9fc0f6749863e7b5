//! What a node type is made of: its options and what follows from them.

use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::surroundings::{BuildError, Surroundings};
use crate::board::{Level, Pin, Pull};
use crate::flow::estimate::Load;
use crate::flow::template::TopicTemplate;
use crate::message::Text;
use crate::outbox::{Envelope, Lane};
use crate::runtime::driver::subscribing::Subscription;
use crate::runtime::node::Node;
use crate::runtime::pulses::Counting;
use crate::sensors::{Pins, SensorSpec};

/// The options of a node type and what follows from them. The struct's documentation is the node's; its fields are the
/// options, and theirs is the options'.
pub trait Definition: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// The name in `type = "..."`; Node-RED's where it means the same.
    const NAME: &'static str;
    /// Whether the node reads messages; a source does not.
    const HAS_INPUT: bool = true;
    /// The output ports; the first is the one that `from = "node"` means. A sink has none.
    const PORTS: &'static [&'static str] = &["out"];
    /// Whether the options name further ports, or other ones: see [`Definition::ports`].
    const NAMES_PORTS: bool = false;
    /// A flow file that shows the node at work.
    const EXAMPLE: &'static str;

    /// The output ports of a node with these options, where [`Definition::NAMES_PORTS`] says that they decide it.
    fn ports(&self) -> Vec<String> {
        Self::PORTS.iter().map(|port| (*port).to_owned()).collect()
    }

    /// Nodes that options name: each must be one that this node reads `from`. The option's name, and the node's.
    fn inputs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What is wrong between the options, beyond what their types tell.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What is allowed but hardly meant.
    fn warnings(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What the node sends, at most, when this comes in: an upper bound on how often, and a typical size. A source gets
    /// nothing in.
    fn load(&self, input: Load) -> Load {
        input
    }

    /// How the node publishes what comes to it through the outbox, if it does.
    fn publishes(&self) -> Option<Publishes<'_>> {
        None
    }

    /// Whether the node sends everything later than it came, from a wake-up, so that a cycle through it comes to rest.
    fn breaks_cycle(&self) -> bool {
        false
    }

    /// The failures or states of other nodes that come to this one.
    fn watches(&self) -> Option<Watch> {
        None
    }

    /// The end of a link that the node is.
    fn link(&self) -> Option<Link> {
        None
    }

    /// What to say to one who writes an option that this node does not have, if there is something better than the nearest
    /// name.
    fn hint(_option: &str) -> Option<&'static str> {
        None
    }

    /// What the node needs of the board.
    fn uses(&self) -> Vec<Use> {
        Vec::new()
    }

    /// Makes the node that does the work.
    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError>;
}

/// Something about an option of a node, for its author to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The option, or a place in it: `size`, `rules.2.between`; places in a list count from 0.
    pub at: String,
    /// What is wrong and how it would be right, to be read after the option's name.
    pub message: String,
}

impl Problem {
    pub fn new(at: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem {
            at: at.into(),
            message: message.into(),
        }
    }
}

/// How a node publishes.
#[derive(Clone, Copy, Debug)]
pub struct Publishes<'a> {
    pub topic: &'a TopicTemplate,
    pub envelope: Envelope,
    pub retain: bool,
    pub lane: Lane,
}

/// What a node wants to hear of other nodes of its flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub what: Watched,
    /// The names of the nodes; none for all.
    pub nodes: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Messages that a node could not handle.
    Failures,
    /// A node begins to fail, or works again.
    States,
}

/// One end of a link between flows, with the link's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Messages that come to the node go into the link.
    Out(Text),
    /// Messages from the link come to the node.
    In(Text),
}

/// What a node needs of the board, or of what else lies outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Use {
    /// Drives a pin, which goes to `safe` at start, at stop and when the flow fails.
    Output { pin: Pin, safe: Level },
    /// Reads a pin.
    Input { pin: Pin, pull: Pull },
    /// Counts pulses on a pin, whose edges go nowhere else.
    Pulses {
        pin: Pin,
        pull: Pull,
        counting: Counting,
    },
    /// Reads a sensor.
    Sensor(SensorSpec),
    /// Takes messages from a broker.
    Subscription(Subscription),
}

impl Use {
    /// The pins that nobody else may use, and the option that names each.
    pub fn pins(&self) -> Vec<(&'static str, Pin)> {
        match self {
            Use::Output { pin, .. } | Use::Input { pin, .. } | Use::Pulses { pin, .. } => {
                vec![("pin", *pin)]
            }
            Use::Sensor(spec) => match spec.pins() {
                Pins::Own(pins) => pins.to_vec(),
                Pins::None | Pins::Taken(_) | Pins::MayBe(_) => Vec::new(),
            },
            Use::Subscription(_) => Vec::new(),
        }
    }
}

/// A valid node description, its type erased.
pub trait Spec: fmt::Debug + Send + Sync {
    fn ports(&self) -> Vec<String> {
        vec!["out".to_owned()]
    }
    fn inputs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    fn uses(&self) -> Vec<Use> {
        Vec::new()
    }
    fn load(&self, input: Load) -> Load {
        input
    }
    fn publishes(&self) -> Option<Publishes<'_>> {
        None
    }
    fn breaks_cycle(&self) -> bool {
        false
    }
    fn watches(&self) -> Option<Watch> {
        None
    }
    fn link(&self) -> Option<Link> {
        None
    }
    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError>;
}

impl<D: Definition> Spec for D {
    fn ports(&self) -> Vec<String> {
        Definition::ports(self)
    }
    fn inputs(&self) -> Vec<(&'static str, String)> {
        Definition::inputs(self)
    }
    fn load(&self, input: Load) -> Load {
        Definition::load(self, input)
    }
    fn publishes(&self) -> Option<Publishes<'_>> {
        Definition::publishes(self)
    }
    fn breaks_cycle(&self) -> bool {
        Definition::breaks_cycle(self)
    }
    fn watches(&self) -> Option<Watch> {
        Definition::watches(self)
    }
    fn link(&self) -> Option<Link> {
        Definition::link(self)
    }
    fn uses(&self) -> Vec<Use> {
        Definition::uses(self)
    }
    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Definition::build(self, site)
    }
}
