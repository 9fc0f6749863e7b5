//! What a running node is, and everything it may do.
//!
//! A node gets the time and a message and hands on messages and effects. It must not do I/O, read a clock, block or spawn:
//! that is what lets every flow run under virtual time.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::board::{Drive, Level, Pin};
use crate::message::{Message, NodeId, Text, Timestamp, Value};
use crate::outbox::Draft;
use crate::runtime::clock::Now;
use crate::runtime::pulses::Pulses;
use crate::runtime::state::{Pause, State, StateError};

/// A node of a running flow. The engine calls these one at a time, from one thread.
pub trait Node {
    /// Called once, before anything else, unless the node goes on from a state.
    fn start(&mut self, _cx: &mut Context<'_>) {}

    /// What the node needs to go on as if it had not stopped; none if it remembers nothing but its options, and starts anew.
    /// The wake-up that it has asked for is kept for it.
    fn save(&self) -> Option<State> {
        None
    }

    /// Called once, in the place of [`Node::start`], with what a node of the same options gave: goes on from there. The wake-up
    /// is asked for already; it may be overdue. Reads the state before it changes anything: after an error the node is started.
    fn resume(
        &mut self,
        _state: &State,
        _pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        self.start(cx);
        Ok(())
    }

    /// A message arrived on the node's input. It is the node's own: it may change it, take parts of it, and hand it on
    /// with [`Context::pass`]. If it does not, the message ends here.
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>);

    /// The time asked for with [`Context::wake_at`] has come.
    fn wake(&mut self, _cx: &mut Context<'_>) {}

    /// The board has something for this node: a reading or an edge.
    fn input(&mut self, _input: Input, _cx: &mut Context<'_>) {}
}

/// What the board hands to a source node.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The answer to [`Effect::ReadSensor`], stamped when the sensor was read; the error says what failed and what to do.
    /// As an answer to [`Effect::ReadLevel`] it is always an error; as one to [`Effect::Link`] too, but for the first message
    /// that is taken after one that was not.
    Reading {
        time: Timestamp,
        value: Result<Value, String>,
    },
    /// The level of an input pin: the answer to [`Effect::ReadLevel`], and at each edge.
    Edge { time: Timestamp, level: Level },
    /// What an input has counted so far: the answer to [`Effect::ReadLevel`] of a node that counts pulses.
    Pulses { time: Timestamp, pulses: Pulses },
    /// What a broker has brought, stamped when it came.
    Message {
        time: Timestamp,
        topic: Text,
        payload: Bytes,
    },
}

/// Which node of which flow of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The flow's place in the engine.
    pub flow: u32,
    pub node: NodeId,
}

/// What the engine wants done in the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Drive an output pin.
    Output { pin: Pin, drive: Drive },
    /// Read the sensor of this node; answered with [`Input::Reading`].
    ReadSensor { from: Address },
    /// Say what level this node's input pin has, or what it has counted; answered with [`Input::Edge`] or [`Input::Pulses`].
    ReadLevel { from: Address },
    /// Deliver through the outbox.
    Uplink { from: Address, draft: Draft },
    /// Send a message to all `link in` nodes of a link. A link queue that does not take it is answered with
    /// [`Input::Reading`], which is an error; once it is taken again, that is answered if the node is watched.
    Link {
        from: Address,
        link: Text,
        message: Message,
    },
    /// Show a message to the user.
    Debug {
        from: Address,
        label: Text,
        message: Message,
    },
    /// A node that is watched from outside sent a message: see [`Engine::tap`](crate::runtime::Engine::tap).
    Tapped {
        from: Address,
        /// The port's place among the node's ports.
        port: usize,
        message: Message,
    },
    /// A node could not handle a message or a reading.
    Failed { from: Address, reason: String },
    /// A node panicked; its flow stopped, its outputs are safe, and it starts again after `again_in`.
    FlowStopped {
        flow: u32,
        node: Option<NodeId>,
        panic: String,
        again_in: Duration,
    },
    /// A flow that had stopped runs again.
    FlowRestarted { flow: u32 },
    /// A node could not go on from what it remembered, and begins anew.
    Forgot { from: Address, reason: String },
}

/// The effects of one call of the engine, in order.
pub type Effects = Vec<Effect>;

/// What a node may do while it is called.
pub struct Context<'a> {
    pub(super) now: Now,
    pub(super) here: Address,
    pub(super) outputs: &'a [Box<[NodeId]>],
    pub(super) queue: &'a mut VecDeque<(NodeId, Message)>,
    pub(super) effects: &'a mut Effects,
    pub(super) wake: &'a mut Option<Duration>,
    pub(super) failures: &'a mut u64,
    /// Whether someone watches what the node sends.
    pub(super) is_tapped: bool,
    /// The port out of which the message that came in goes on.
    pub(super) passed: Option<usize>,
}

impl Context<'_> {
    /// The node that is called.
    pub fn here(&self) -> NodeId {
        self.here.node
    }

    pub fn now(&self) -> Now {
        self.now
    }

    /// Hands on the message that came in, as it is when [`Node::message`] returns, out of a port given by its place among
    /// the node's ports. It goes after what was sent with [`Context::emit`], and is not moved on its way.
    #[inline]
    pub fn pass(&mut self, port: usize) {
        self.passed = Some(port);
    }

    /// Sends a message out of a port, given by its place among the node's ports. Readers get it in file order; each gets
    /// its own, and what they share is copied only when one of them writes to it.
    pub fn emit(&mut self, port: usize, mut message: Message) {
        message.source = self.here.node;
        if self.is_tapped {
            self.effects.push(Effect::Tapped {
                from: self.here,
                port,
                message: message.clone(),
            });
        }
        queue_for(&self.outputs[port], message, self.queue);
    }

    /// Sends a message that begins here, out of the first port.
    pub fn originate(&mut self, topic: Text, payload: Value, time: Timestamp) {
        self.originate_on(0, topic, payload, time);
    }

    /// The same out of any port.
    pub fn originate_on(&mut self, port: usize, topic: Text, payload: Value, time: Timestamp) {
        let source = self.here.node;
        let message = Message {
            topic,
            payload,
            time,
            source,
            headers: None,
        };
        self.emit(port, message);
    }

    /// Asks for [`Node::wake`] at a monotonic time. A node has one wake-up: asking again replaces it.
    pub fn wake_at(&mut self, mono: Duration) {
        *self.wake = Some(mono);
    }

    /// Takes the wake-up back.
    pub fn cancel_wake(&mut self) {
        *self.wake = None;
    }

    /// Drives an output with a level or with pulses.
    pub fn set_output(&mut self, pin: Pin, drive: impl Into<Drive>) {
        let drive = drive.into();
        self.effects.push(Effect::Output { pin, drive });
    }

    /// Asks the board to read this node's sensor.
    pub fn read_sensor(&mut self) {
        self.effects.push(Effect::ReadSensor { from: self.here });
    }

    /// Asks the board for the level of this node's input pin.
    pub fn read_level(&mut self) {
        self.effects.push(Effect::ReadLevel { from: self.here });
    }

    pub fn uplink(&mut self, draft: Draft) {
        self.effects.push(Effect::Uplink {
            from: self.here,
            draft,
        });
    }

    /// Sends a message to all `link in` nodes of a link.
    pub fn link(&mut self, link: Text, message: Message) {
        self.effects.push(Effect::Link {
            from: self.here,
            link,
            message,
        });
    }

    pub fn debug(&mut self, label: Text, message: Message) {
        self.effects.push(Effect::Debug {
            from: self.here,
            label,
            message,
        });
    }

    /// Counts and reports what this node could not handle. `reason` says what is wrong and what was expected.
    pub fn fail(&mut self, reason: impl Into<String>) {
        *self.failures += 1;
        self.effects.push(Effect::Failed {
            from: self.here,
            reason: reason.into(),
        });
    }

    /// The payload as a finite number, or a failure that is counted and reported.
    #[inline]
    pub fn number_or_fail(&mut self, payload: &Value) -> Option<f64> {
        match payload {
            Value::Number(number) if number.is_finite() => Some(*number),
            other => {
                self.fail_for_number(other);
                None
            }
        }
    }

    #[cold]
    fn fail_for_number(&mut self, payload: &Value) {
        let (kind, text) = (payload.kind(), excerpt(payload));
        self.fail(format!(
            "needs a finite number, but the payload is {kind}: {text}"
        ));
    }
}

/// Queues a message for each reader: a copy for all but the last, which gets the message itself.
pub(super) fn queue_for(
    readers: &[NodeId],
    message: Message,
    queue: &mut VecDeque<(NodeId, Message)>,
) {
    let Some((last, others)) = readers.split_last() else {
        return;
    };
    for reader in others {
        queue.push_back((*reader, message.clone()));
    }
    queue.push_back((*last, message));
}

/// The start of a value as text, short enough for a log line.
pub fn excerpt(value: &Value) -> String {
    const LONGEST: usize = 60;
    if let Value::Number(number) = value {
        return number.to_string();
    }
    let text = value.to_json();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
