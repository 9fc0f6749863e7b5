//! Settings and flows beside the limits of the broker that `profile` of `[uplink]` names.
//!
//! Must not: know any limit; `uplink::profile` does.

use super::Config;
use crate::flow::diagnostic::{Report, Severity};
use crate::flow::estimate::{self, Load};
use crate::flow::{Graph, Site};
use crate::uplink::profile::{Breach, Profile, Published};

impl Config {
    /// Adds to the site's problems where these settings and its flows break the limits of the broker. The flows must be all of
    /// the device's.
    pub fn check_limits(&self, site: &mut Site) {
        let Some((uplink, settings)) = self.uplink.as_ref().zip(self.uplink_settings()) else {
            return;
        };
        let (Some(profile), Some(source)) = (uplink.profile, &self.source) else {
            return;
        };
        let mut breaches = profile.breaches_of(&settings);
        let loads: f64 = site
            .flows
            .iter()
            .map(|flow| publishes_per_second(flow))
            .sum();
        breaches.extend(profile.breach_of_rate(loads));
        let mut report = Report::over(source.clone());
        for Breach {
            key,
            is_fatal,
            message,
            help,
        } in breaches
        {
            let span = self.uplink_spans.get(key).cloned().unwrap_or_default();
            match severity(is_fatal) {
                Severity::Error => report.error(span, message, help),
                Severity::Warning => report.warning(span, message, help),
            }
        }
        site.diagnostics.extend(report.into_diagnostics());
        self.check_nodes(profile, site);
    }

    fn check_nodes(&self, profile: Profile, site: &mut Site) {
        let device = self.device.id.as_str();
        site.judge_nodes(|flow, node| {
            let Some(publishes) = node.spec.publishes() else {
                return Vec::new();
            };
            let place = flow.nodes().iter().position(|it| it.name == node.name);
            let load = place.map(|place| estimate::loads(flow)[place]);
            let topic = publishes.topic.resolve(device, flow.name(), &node.name);
            let published = Published {
                topic: &topic.fill(""),
                retain: publishes.retain,
                bytes: load.map_or(0.0, |load| load.bytes),
            };
            let breaches = profile.breaches_by(published).into_iter();
            breaches
                .map(|(is_fatal, message, help)| {
                    (severity(is_fatal), message, Some(help.to_owned()))
                })
                .collect()
        });
    }
}

fn severity(is_fatal: bool) -> Severity {
    match is_fatal {
        true => Severity::Error,
        false => Severity::Warning,
    }
}

/// How much a flow may publish, as far as something bounds it.
fn publishes_per_second(flow: &Graph) -> f64 {
    let nodes = flow.nodes().iter().zip(estimate::loads(flow));
    let publish = nodes.filter(|(node, _)| node.spec.publishes().is_some());
    let rates = publish.map(|(_, Load { per_second, .. })| per_second);
    rates.filter(|rate| rate.is_finite()).sum()
}
