//! Makes a plan that fails smaller, as long as it still fails, and puts what is left into words.

use std::fmt::Write;
use std::time::Duration;

use super::life::{Outcome, live};
use super::plan::Plan;

/// So many of the last lines of the history are shown.
const SHOWN: usize = 60;

/// A plan that fails, with nothing in it that could be left out; and how it went.
fn shrink(mut plan: Plan) -> (Plan, Outcome) {
    let mut outcome = live(&plan, false);
    let mut is_smaller = true;
    while is_smaller {
        is_smaller = false;
        let shorter = Plan {
            length: plan.length / 2,
            ..plan.clone()
        };
        let mut tries = vec![without_late(shorter)];
        let half = plan.faults.len() / 2;
        for part in [0..half, half..plan.faults.len()] {
            let mut fewer = plan.clone();
            fewer.faults.drain(part);
            tries.push(fewer);
        }
        for index in 0..plan.faults.len() {
            let mut fewer = plan.clone();
            fewer.faults.remove(index);
            tries.push(fewer);
        }
        for smaller in tries {
            let is_less = smaller.faults.len() < plan.faults.len() || smaller.length < plan.length;
            if !is_less || smaller.length < Duration::from_millis(200) {
                continue;
            }
            let lived = live(&smaller, false);
            if lived.verdict.is_some() {
                (plan, outcome, is_smaller) = (smaller, lived, true);
                break;
            }
        }
    }
    (plan, outcome)
}

/// Faults that would begin after the end are none.
fn without_late(mut plan: Plan) -> Plan {
    plan.faults.retain(|fault| fault.at < plan.length);
    plan
}

/// What a person needs to see of a seed that fails.
pub(super) fn report(plan: &Plan) -> String {
    let all = plan.faults.len();
    let (plan, outcome) = shrink(plan.clone());
    let mut text = String::new();
    let verdict = outcome.verdict.as_deref().unwrap_or("nothing, any more");
    let seed = plan.seed;
    // Writing to a text does not fail.
    let _ = writeln!(text, "seed {seed} fails: {verdict}");
    let _ = writeln!(
        text,
        "settings: {:?}, {:?}, generations of {} bytes",
        plan.sizes, plan.link, plan.generation_size
    );
    let left = plan.faults.len();
    let _ = writeln!(
        text,
        "it fails with {left} of {all} faults, in a life of {:?}:",
        plan.length
    );
    for fault in &plan.faults {
        let _ = writeln!(text, "  {fault}");
    }
    let _ = writeln!(text, "how that ends:");
    let from = outcome.lines.len().saturating_sub(SHOWN);
    for line in &outcome.lines[from..] {
        let _ = writeln!(text, "  {line}");
    }
    let _ = write!(
        text,
        "all of it: SEED={seed} cargo test --lib simulation -- --nocapture"
    );
    text
}
