//! Why a test has failed: what was not as expected, with all that helps to see why.

use std::collections::HashMap;
use std::time::Duration;

use super::{MOST_TOLD, Run, Unmet, broken, count_messages};
use crate::flow_test::test::{Action, Expected, Messages};
use crate::flow_test::watch::{Item, Miss, Watch, stretch_in_words, words};
use crate::runtime::Address;

impl Run<'_> {
    pub(super) fn unmet(mut self) -> Vec<Unmet> {
        let watches = std::mem::take(&mut self.watches);
        let mut counts = None;
        let mut unmet: Vec<Unmet> = Vec::new();
        for mut watch in watches {
            let Some(miss) = watch.miss.take() else {
                continue;
            };
            if unmet.len() < MOST_TOLD {
                let hints = self.hints(&watch, &miss, &mut counts);
                let subject = match &watch.expectation.what {
                    Expected::Messages { of, .. } => {
                        Some(format!("`{}` {}", watch.expectation.subject, of.verb()))
                    }
                    Expected::Output { pin, .. } => {
                        Some(format!("`{}` drove {pin} with", watch.expectation.subject))
                    }
                    _ => None,
                };
                unmet.push(Unmet {
                    span: watch.expectation.span.clone(),
                    headline: miss.headline,
                    differences: miss.differences,
                    subject,
                    before: miss.before,
                    after: miss.after,
                    hints,
                });
            }
        }
        unmet.extend(self.broken.take());
        if self.failure_count > 0 && !self.test.speaks_of_failures {
            let headline = match self.failure_count {
                1 => "a node could not handle something".to_owned(),
                more => format!("nodes could not handle {more} things"),
            };
            let mut failed = broken(self.test.span.clone(), headline);
            failed.hints.push(
                "if that is meant to be, say how often: { at = \"...\", failures = N }".into(),
            );
            unmet.push(failed);
        }
        unmet
    }

    fn hints(
        &self,
        watch: &Watch<'_>,
        miss: &Miss,
        counts: &mut Option<HashMap<Address, u64>>,
    ) -> Vec<String> {
        let mut hints = Vec::new();
        let off = self
            .offs
            .iter()
            .find(|(from, to)| *from <= miss.to && miss.from < *to);
        if let Some((from, to)) = off {
            hints.push(format!(
                "the device was off from {} to {}",
                words(*from),
                words(*to)
            ));
        }
        let Some(of) = watch.messages() else {
            return hints;
        };
        let is_outside = |item: &&Item| item.at < miss.from || item.at > miss.to;
        let fits = |item: &&Item| is_outside(item) && watch.would_fit(item);
        let fitting = miss.before.iter().rev().find(fits);
        let fitting = miss.after.iter().find(fits).or(fitting);
        // Where something came in the stretch, that it fits elsewhere means little.
        let came = miss.before.iter().any(|item| !is_outside(&item));
        if let Some(item) = fitting.filter(|_| !came) {
            hints.push(format!(
                "what fits came at {}, not {}",
                words(item.at),
                stretch_in_words(miss.from, miss.to)
            ));
        }
        let is_silent = self.tracks.get(&of).is_none_or(|track| track.total == 0);
        if is_silent {
            let counts = counts.get_or_insert_with(|| count_messages(self.test));
            hints.push(self.way_to(of, counts));
        }
        let first = self.first_feed();
        if let Some(first) = first.filter(|first| *first > miss.to && miss.before.is_empty()) {
            hints.push(format!("the first feed comes later, at {}", words(first)));
        }
        hints
    }

    fn first_feed(&self) -> Option<Duration> {
        let steps = self.test.steps.iter().filter(|step| {
            let mut actions = step.actions.iter();
            actions.any(|action| matches!(action, Action::Feed(_)))
        });
        steps.map(|step| step.when.first()).min()
    }

    /// How many messages nodes on the way to one that was silent have sent.
    fn way_to(&self, of: Messages, counts: &HashMap<Address, u64>) -> String {
        let (Messages::Sent { from, .. }
        | Messages::Shown { by: from }
        | Messages::Arrived { of: from }) = of;
        let nodes = self.test.flows[from.flow as usize].nodes();
        let mut way = vec![from];
        let mut next = 0;
        while next < way.len() {
            let inputs = &nodes[usize::from(way[next].node.0)].inputs;
            for (_, node) in inputs {
                let input = Address {
                    node: *node,
                    ..from
                };
                if !way.contains(&input) {
                    way.push(input);
                }
            }
            next += 1;
        }
        let sent: Vec<String> = way[1..]
            .iter()
            .rev()
            .map(|node| {
                let count = counts.get(node).copied().unwrap_or_default();
                format!("`{}` {count}", self.test.name_of(*node))
            })
            .collect();
        let name = self.test.name_of(from);
        if sent.is_empty() {
            return format!("`{name}` was silent in the whole test");
        }
        format!(
            "`{name}` was silent in the whole test; messages on the way to it: {}",
            sent.join(", ")
        )
    }
}
