//! What came to the sinks, as JSON Lines.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::board::{Drive, Pin};
use crate::flow::Graph;
use crate::message::{Message, NodeId, Timestamp, Value};
use crate::nodes::Use;
use crate::outbox::Draft;

use super::feeds::ids;

/// Writes a line for each message that came to a sink, and for each change of an output.
pub(super) struct Sinks<W> {
    out: W,
    /// Names of the nodes and topics of outputs, as JSON.
    names: Vec<String>,
    own_topics: Vec<String>,
    /// Who drives a pin, and with what at last.
    outputs: HashMap<Pin, (NodeId, Drive)>,
    stamp: Stamp,
    line: Vec<u8>,
    /// Lines of each node.
    counts: Vec<u64>,
}

impl<W: Write> Sinks<W> {
    pub(super) fn new(graph: &Graph, out: W) -> Sinks<W> {
        let quoted = |text: &str| Value::from(text).to_json();
        let nodes = graph.nodes();
        let outputs = graph.uses().filter_map(|(node, needed)| match needed {
            Use::Output { pin, safe } => Some((*pin, (node, Drive::from(*safe)))),
            _ => None,
        });
        Sinks {
            out,
            names: nodes.iter().map(|node| quoted(&node.name)).collect(),
            own_topics: nodes
                .iter()
                .map(|node| quoted(&format!("{}/{}", graph.name(), node.name)))
                .collect(),
            outputs: outputs.collect(),
            stamp: Stamp::default(),
            line: Vec::new(),
            counts: vec![0; nodes.len()],
        }
    }

    pub(super) fn draft(&mut self, from: NodeId, draft: &Draft) -> io::Result<()> {
        self.begin(from, draft.time)?;
        serde_json::to_writer(&mut self.line, &draft.topic)?;
        self.line.extend_from_slice(b",\"payload\":");
        self.line.extend_from_slice(&draft.payload);
        self.end()
    }

    pub(super) fn message(&mut self, from: NodeId, message: &Message) -> io::Result<()> {
        self.begin(from, message.time)?;
        serde_json::to_writer(&mut self.line, &message.topic)?;
        self.line.extend_from_slice(b",\"payload\":");
        serde_json::to_writer(&mut self.line, &message.payload)?;
        self.end()
    }

    /// A pin is driven: if that is not what it was driven with before, it is told as the share of time that the pin is high,
    /// which for a level is 0 or 1.
    pub(super) fn output(&mut self, pin: Pin, drive: Drive, now: Timestamp) -> io::Result<()> {
        let Some((node, before)) = self.outputs.get_mut(&pin) else {
            return Ok(());
        };
        if std::mem::replace(before, drive) == drive {
            return Ok(());
        }
        let node = *node;
        self.begin(node, now)?;
        self.line
            .extend_from_slice(self.own_topics[usize::from(node.0)].as_bytes());
        self.line.extend_from_slice(b",\"payload\":");
        serde_json::to_writer(&mut self.line, &Value::Number(drive.duty()))?;
        self.end()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// How many lines each node has, for those that have any.
    pub(super) fn counts<'a>(
        &'a self,
        graph: &'a Graph,
    ) -> impl Iterator<Item = (NodeId, u64)> + 'a {
        let counts = ids(graph).zip(self.counts.iter().copied());
        counts.filter(|(_, count)| *count > 0)
    }

    fn begin(&mut self, from: NodeId, time: Timestamp) -> io::Result<()> {
        self.line.clear();
        self.line.extend_from_slice(b"{\"time\":\"");
        self.stamp.write(time, &mut self.line)?;
        self.line.extend_from_slice(b"\",\"node\":");
        self.line
            .extend_from_slice(self.names[usize::from(from.0)].as_bytes());
        self.line.extend_from_slice(b",\"topic\":");
        self.counts[usize::from(from.0)] += 1;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.line.extend_from_slice(b"}\n");
        self.out.write_all(&self.line)
    }
}

/// Writes times as [`Timestamp`] does; most of them are within the same minute as the one before.
#[derive(Default)]
struct Stamp {
    minute: i64,
    /// `2026-01-31T08:00:`; empty at first.
    text: String,
}

impl Stamp {
    fn write(&mut self, time: Timestamp, line: &mut Vec<u8>) -> io::Result<()> {
        const MINUTE: i64 = 60_000_000_000;
        let (minute, nanos) = (
            time.as_nanos().div_euclid(MINUTE),
            time.as_nanos().rem_euclid(MINUTE),
        );
        if nanos % 1_000_000 != 0 {
            return write!(line, "{time}");
        }
        if minute != self.minute || self.text.is_empty() {
            self.minute = minute;
            self.text.clear();
            let _ = write!(self.text, "{time}");
            self.text.truncate("2026-01-31T08:00:".len());
        }
        line.extend_from_slice(self.text.as_bytes());
        let millis = nanos / 1_000_000;
        let digit = |part: i64| b'0' + u8::try_from(millis / part % 10).unwrap_or(0);
        line.extend([
            digit(10_000),
            digit(1_000),
            b'.',
            digit(100),
            digit(10),
            digit(1),
            b'Z',
        ]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_everywhere() {
        let mut stamp = Stamp::default();
        for nanos in [
            0,
            1,
            59_999_000_000,
            60_000_000_000,
            60_001_000_000,
            59_000_000_000,
            -1_000_000,
            1_700_000_000_123_000_000,
            1_700_000_000_123_456_000,
            i64::MAX,
            i64::MIN,
        ] {
            let time = Timestamp::from_nanos(nanos);
            let mut line = Vec::new();
            stamp.write(time, &mut line).unwrap();
            assert_eq!(String::from_utf8(line).unwrap(), time.to_string());
        }
    }
}
