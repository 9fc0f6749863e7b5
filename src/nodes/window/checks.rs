//! What holds between the options: which belong to which kind, and how large they may be.

use std::time::Duration;

use super::{Kind, MOST_APART, SHORTEST, Window};
use crate::nodes::Problem;

const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// Windows that one message may belong to.
const MOST_OVERLAPPING: u32 = 2_000;

impl Window {
    /// Options that do not belong to the kind, and those that it needs.
    pub(super) fn misplaced(&self) -> Vec<Problem> {
        use Kind::{Count, Hopping, Session, Sliding, State, Tumbling};
        let kind = self.kind;
        // Whether each is given, where it belongs, whether it is needed there, and how it may look.
        let options: [(&str, bool, &[Kind], Option<&str>); 7] = [
            (
                "size",
                self.size.is_some(),
                &[Tumbling, Hopping, Sliding],
                Some("size = \"1m\""),
            ),
            ("hop", self.hop.is_some(), &[Hopping], Some("hop = \"10s\"")),
            ("gap", self.gap.is_some(), &[Session], Some("gap = \"30s\"")),
            ("count", self.count.is_some(), &[Count], Some("count = 100")),
            (
                "state",
                self.state.is_some(),
                &[State],
                Some("state = \"payload > 0\""),
            ),
            (
                "longest",
                self.longest.is_some(),
                &[Session, Count, State],
                None,
            ),
            ("most", self.most.is_some(), &[Sliding], None),
        ];
        let mut problems = Vec::new();
        for (name, is_given, kinds, form) in options {
            let belongs = kinds.contains(&kind);
            if is_given && !belongs {
                let kinds: Vec<String> = kinds
                    .iter()
                    .map(|kind| format!("`{}`", kind.name()))
                    .collect();
                problems.push(Problem::new(
                    name,
                    format!(
                        "does not belong to windows of kind `{}`, only to {}",
                        kind.name(),
                        kinds.join(", ")
                    ),
                ));
            }
            if let Some(form) = form.filter(|_| belongs && !is_given) {
                problems.push(Problem::new(
                    name,
                    format!("windows of kind `{}` need it, as in {form}", kind.name()),
                ));
            }
        }
        if self.most_keys.is_some() && self.by.is_none() {
            problems.push(Problem::new(
                "most_keys",
                "there are keys only with `by`, as in by = \"topic\"",
            ));
        }
        problems
    }

    /// Numbers and lengths of time that are too small or too large. The options are those of the kind.
    pub(super) fn out_of_range(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |name: &str, is_right: bool, message: &str| {
            if !is_right {
                problems.push(Problem::new(name, message));
            }
        };
        for (name, span) in [
            ("size", self.size),
            ("gap", self.gap),
            ("longest", self.longest),
        ] {
            let is_right = span.is_none_or(|span| (SHORTEST..=LONGEST).contains(&span.0));
            check(name, is_right, "must be from 1ms to 366d");
        }
        if let (Some(hop), Some(size)) = (self.hop, self.size) {
            check("hop", hop.0 >= SHORTEST, "must be at least 1ms");
            let message =
                "must not be longer than `size`, or what comes between windows would be lost";
            check("hop", hop <= size, message);
            let message = "is too short for `size`: at most 2,000 windows may overlap";
            let is_right = hop.0.saturating_mul(MOST_OVERLAPPING) >= size.0;
            check("hop", is_right || hop.0 < SHORTEST, message);
        }
        if let (Some(gap), Some(longest)) = (self.gap, self.longest()) {
            let message = "must not be longer than `longest`, which is 24h if it is not given";
            check("gap", gap.0 <= longest, message);
        }
        let is_right = self
            .count
            .is_none_or(|count| (1..=1_000_000_000).contains(&count));
        check("count", is_right, "must be from 1 to 1,000,000,000");
        for (name, most) in [("most", self.most), ("most_keys", self.most_keys)] {
            let is_right = most.is_none_or(|most| (1..=100_000).contains(&most));
            check(name, is_right, "must be from 1 to 100,000");
        }
        if self.kind.is_aligned() {
            let (step, message) = match self.kind {
                Kind::Hopping => (self.hop(), "must be at most 1,000 times `hop`"),
                _ => (self.size(), "must be at most 1,000 times `size`"),
            };
            for (name, span) in [("lateness", self.lateness), ("future", self.future)] {
                let is_right = span.is_none_or(|span| span.0 <= step.saturating_mul(MOST_APART));
                check(name, is_right, message);
            }
        }
        problems
    }

    pub(super) fn uncomputable(&self) -> Vec<Problem> {
        if self.compute.is_empty() {
            return vec![Problem::new("compute", "must name something to compute")];
        }
        let names = self.compute.iter().map(|entry| &entry.name);
        let twice = names.enumerate().filter(|(place, name)| {
            self.compute[..*place]
                .iter()
                .any(|other| other.name == **name)
        });
        twice
            .map(|(place, name)| {
                Problem::new(format!("compute.{place}"), format!("names `{name}` twice"))
            })
            .collect()
    }
}
