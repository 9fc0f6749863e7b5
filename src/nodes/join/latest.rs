//! Joins the newest value of each field into an object, and keeps them all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Fields, Need, What, named};
use crate::message::{Message, Value};
use crate::nodes::parts;
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

pub(super) struct Latest {
    what: What,
    need: Need,
    /// How often the object goes out at most; without it, with each message.
    every: Option<Duration>,
    /// How long a value counts.
    counts_for: Option<Duration>,
    newest: Newest,
}

#[derive(Default, Serialize, Deserialize)]
struct Newest {
    fields: Fields,
    /// While a wake-up is to come: the last message, without its payload.
    waiting: Option<Message>,
}

impl Node for Latest {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.newest))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.newest = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        self.forget_old(cx);
        if let Err(reason) = self.newest.fields.take(&self.what, message, now) {
            return cx.fail(reason);
        }
        message.payload = Value::Null;
        match self.every {
            None => self.send(message.clone(), cx),
            Some(every) => {
                if self.newest.waiting.is_none() {
                    cx.wake_at(now.saturating_add(every));
                }
                self.newest.waiting = Some(message.clone());
            }
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        self.forget_old(cx);
        if let Some(last) = self.newest.waiting.take() {
            self.send(last, cx);
        }
    }
}

impl Latest {
    pub(super) fn new(
        what: What,
        need: Need,
        every: Option<Duration>,
        counts_for: Option<Duration>,
    ) -> Latest {
        Latest {
            what,
            need,
            every,
            counts_for,
            newest: Newest::default(),
        }
    }

    fn forget_old(&mut self, cx: &mut Context<'_>) {
        let Some(counts_for) = self.counts_for else {
            return;
        };
        let Some(oldest) = cx.now().mono.checked_sub(counts_for) else {
            return;
        };
        let gone = self.newest.fields.forget_before(oldest);
        if !gone.is_empty() {
            let span = humantime::format_duration(counts_for);
            cx.fail(format!(
                "nothing came for {} within {span}: no longer part of the object",
                named(gone.iter())
            ));
        }
    }

    fn send(&self, last: Message, cx: &mut Context<'_>) {
        let is_whole = match self.need {
            Need::Nothing => true,
            Need::Count(_) | Need::Keys(_) => self
                .need
                .is_met(self.newest.fields.len(), &self.newest.fields),
        };
        if is_whole {
            cx.emit(0, parts::whole(last, self.newest.fields.object()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::Run;

    /// Messages, each a second, a topic and a payload in JSON.
    fn check(options: &str, messages: &[(i64, &str, &str)], expected: &[&str]) {
        let mut run = Run::new(&format!("type = 'join'\nkeep = true\n{options}"));
        for (second, topic, payload) in messages {
            let time = Timestamp::from_millis(second * 1_000);
            run.go_on_until(time);
            let payload: Value = serde_json::from_str(payload).expect("JSON");
            run.deliver_on(topic, time, payload);
        }
        run.go_on_until(Timestamp::from_millis(1_000_000));
        assert_eq!(run.sent, expected, "{options}");
    }

    const SENSORS: &[(i64, &str, &str)] = &[
        (1, "t", "20"),
        (2, "t", "21"),
        (3, "h", "55"),
        (4, "p", "1013"),
        (5, "t", "22"),
    ];

    #[test]
    fn the_newest_of_all_go_out_with_each_message() {
        check(
            "mode = 'object'\nkeys = ['t', 'h']",
            SENSORS,
            &[
                r#"{"t":21,"h":55}"#,
                r#"{"t":21,"h":55,"p":1013}"#,
                r#"{"t":22,"h":55,"p":1013}"#,
            ],
        );
        check(
            "mode = 'object'\ncount = 3",
            SENSORS,
            &[r#"{"t":21,"h":55,"p":1013}"#, r#"{"t":22,"h":55,"p":1013}"#],
        );
        check(
            "mode = 'object'",
            &SENSORS[..3],
            &[r#"{"t":20}"#, r#"{"t":21}"#, r#"{"t":21,"h":55}"#],
        );
        check(
            "mode = 'merge'\nkeys = ['a', 'b']",
            &[
                (1, "x", r#"{"a":1}"#),
                (2, "x", "7"),
                (3, "x", r#"{"b":2}"#),
                (4, "x", r#"{"a":3}"#),
            ],
            &[
                "failed: needs an object to merge, but the payload is a number",
                r#"{"a":1,"b":2}"#,
                r#"{"a":3,"b":2}"#,
            ],
        );
    }

    #[test]
    fn with_every_they_go_out_at_that_pace_while_something_comes() {
        check(
            "mode = 'object'\nevery = '2500ms'",
            SENSORS,
            &[r#"{"t":21,"h":55}"#, r#"{"t":22,"h":55,"p":1013}"#],
        );
        check(
            "mode = 'object'\nevery = '2500ms'\nkeys = ['p']",
            SENSORS,
            &[r#"{"t":22,"h":55,"p":1013}"#],
        );
    }

    #[test]
    fn a_value_counts_for_a_time() {
        check(
            "mode = 'object'\nkeys = ['t', 'h']\ntimeout = '10s'",
            &[
                (1, "t", "20"),
                (2, "h", "50"),
                (11, "h", "51"),
                (12, "h", "52"),
                (13, "t", "23"),
            ],
            &[
                r#"{"t":20,"h":50}"#,
                r#"{"t":20,"h":51}"#,
                "failed: nothing came for `t` within 10s: no longer part of the object",
                r#"{"h":52,"t":23}"#,
            ],
        );
    }

    #[test]
    fn the_result_has_what_its_last_message_had() {
        let mut run = Run::new("type = 'join'\nmode = 'object'\nkeep = true");
        run.deliver_on("b", Timestamp::from_millis(9), 1.0.into());
        run.deliver_on("a", Timestamp::from_millis(-5), f64::NAN.into());
        assert_eq!(run.sent, [r#"{"b":1}"#, r#"{"b":1,"a":null}"#]);
        let message = &run.messages[1];
        assert_eq!(
            (&*message.topic, message.time),
            ("a", Timestamp::from_millis(-5))
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut run = Run::new("type = 'join'\nmode = 'object'\nkeep = true\ncount = 10000");
        for topic in 0..=10_000 {
            run.deliver_on(&format!("t{topic}"), Timestamp::default(), 1.0.into());
        }
        assert_eq!(run.sent.len(), 2);
        assert_eq!(
            run.sent[1],
            "failed: the object would have more than 10000 fields"
        );
    }

    #[test]
    fn the_newest_values_outlast_a_restart_and_the_time_counts() {
        let mut run = Run::new(
            "type = 'join'\nkeep = true\nmode = 'object'\nkeys = ['t', 'h']\ntimeout = '10s'",
        );
        run.deliver_on("t", Timestamp::default(), 20.0.into());
        run.restart(Duration::from_secs(10));
        run.deliver_on("h", Timestamp::default(), 55.0.into());
        run.restart(Duration::from_secs(1));
        run.deliver_on("h", Timestamp::default(), 56.0.into());
        assert_eq!(
            run.sent,
            [
                r#"{"t":20,"h":55}"#,
                "failed: nothing came for `t` within 10s: no longer part of the object"
            ]
        );
    }
}
