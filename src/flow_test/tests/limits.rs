//! Tests that would not end, and those that last for long.

use std::sync::Arc;

use super::{FLOW, check, run, run_changed};
use crate::message::Message;
use crate::nodes::{BuildError, Spec, Surroundings};
use crate::runtime::{Context, Node};

#[test]
fn ten_thousand_days_pass_in_no_time_when_little_happens() {
    check(
        FLOW,
        &[
            "{ at = '9999d', feed.probe = 4 }",
            "{ at = '10000d', expect.show = { none = true } }",
        ],
        &[],
    );
}

/// A node that cannot stand a 3.
#[derive(Debug)]
struct Fragile;

impl Spec for Fragile {
    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Fragile))
    }
}

impl Node for Fragile {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        assert!(message.payload != 3.0.into(), "not this one");
        cx.pass(0);
    }
}

#[test]
fn a_panic_is_a_failure_that_safes_the_outputs_and_the_flow_goes_on() {
    let flow = FLOW.replace("from = 'probe'\nabove", "from = 'weak'\nabove")
        + "[nodes.weak]\ntype = 'where'\nwhen = 'true'\nfrom = 'probe'";
    let steps = |more: &str| {
        format!(
            "steps = [{{ at = '1s', feed.probe = 9 }}, {{ at = '2s', feed.probe = 3 }}, {{ at = '2s 500ms', expect.relay = 0 }},\
             {{ at = '4s', feed.probe = 8 }}, {{ at = '4s', expect.relay = 1 }}{more}]"
        )
    };
    let run = |more: &str| {
        run_changed(&[("flow.toml", &*flow)], &steps(more), |graph| {
            graph.replace_spec("weak", Arc::new(Fragile));
        })
    };
    let told = run("");
    assert_eq!(told.unmet.len(), 1, "{told:#?}");
    assert_eq!(told.unmet[0].headline, "a node could not handle something");
    let at = std::time::Duration::from_secs(2);
    assert_eq!(
        told.failures,
        [(at, "`weak`: panicked: not this one".to_owned())]
    );
    assert!(run(", { at = '4s', failures = { count = 1, text = 'panicked' } }").has_passed());
}

#[test]
fn a_test_that_does_too_much_is_stopped_in_words() {
    let flow =
        "[nodes.tick]\ntype = 'inject'\nevery = '1ms'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'";
    let outcome = run(flow, "steps = [{ at = '10000d', expect.show = 1 }]");
    let headline = &outcome.unmet[0].headline;
    let stopped = "the test was stopped at 3m 20s";
    assert!(headline.starts_with(stopped), "{headline}");
}

#[test]
fn a_test_that_looks_too_often_is_stopped_in_words() {
    let steps =
        "steps = [{ from = '0s', to = '10000d', every = '1ms', expect.show = { none = true } }]";
    let outcome = run(FLOW, steps);
    let headline = &outcome.unmet[0].headline;
    let stopped = "the test was stopped at 3m 20s";
    assert!(headline.starts_with(stopped), "{headline}");
}

#[test]
fn a_node_that_never_lets_time_go_on_is_stopped_in_words() {
    /// A node that wakes up at once, again and again.
    #[derive(Debug)]
    struct Restless;
    impl Spec for Restless {
        fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
            Ok(Box::new(Restless))
        }
    }
    impl Node for Restless {
        fn message(&mut self, _: &mut Message, cx: &mut Context<'_>) {
            cx.wake_at(cx.now().mono);
        }
        fn wake(&mut self, cx: &mut Context<'_>) {
            cx.wake_at(cx.now().mono);
        }
    }
    let steps = "steps = [{ at = '1s', feed.probe = 1 }, { at = '2s', expect.relay = 0 }]";
    let outcome = run_changed(&[("flow.toml", FLOW)], steps, |graph| {
        graph.replace_spec("hot", Arc::new(Restless));
    });
    let headline = &outcome.unmet[0].headline;
    let stopped = "the test was stopped at 1s: more than";
    assert!(headline.starts_with(stopped), "{headline}");
}
