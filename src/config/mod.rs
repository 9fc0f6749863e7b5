//! Device settings: `tidegate.toml`.
//!
//! Every section and key has a default, except where noted. What is wrong is reported with its place and left out; the rest
//! counts. Only a file that cannot be read, or is no TOML at all, is an error of its own.
//!
//! Must not: open, connect or start anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::UnixTime;

use crate::flow::diagnostic::{Diagnostic, Report, Severity, Source, did_you_mean};
use crate::flow::{Graph, Variables};
use crate::runtime::driver::chain;
use crate::uplink::tls::Role;
use crate::{certs, outbox, subscriptions, uplink};

mod brokers;
mod limits;
mod read;
mod sections;
#[cfg(test)]
mod tests;
mod values;

pub use brokers::{BrokerSection, BrokerUrl};
pub use read::load;
pub use sections::{
    Board, Control, Device, Flows, Log, LogFormat, LogLevel, Outbox, State, Uplink,
};
pub use values::{Ca, DeviceId, ServerName, Size, Url, Urls};

/// The settings of a device, as far as they were right.
#[derive(Debug, Default)]
pub struct Config {
    pub device: Device,
    pub flows: Flows,
    /// Without it nothing goes up; what flows want to deliver is kept in the outbox.
    pub uplink: Option<Uplink>,
    /// `[brokers.NAME]`: brokers that flows take messages from.
    pub brokers: BTreeMap<String, BrokerSection>,
    pub outbox: Outbox,
    pub state: State,
    pub board: Board,
    pub control: Control,
    pub log: Log,
    /// `[vars]`: values for the variables of all flows.
    pub vars: Variables,
    /// `[vars.FLOW]`: values for the variables of one flow, which go before those for all.
    pub flow_vars: BTreeMap<String, Variables>,
    /// Whether `id` of `[device]` or `path` of `[outbox]` was wrong. What stands there instead is not this device's identity:
    /// its records must not go out under another name, nor into another outbox.
    pub is_identity_wrong: bool,
    /// Whether the place of `[state]` is another one's: then nothing is kept, for it would overwrite what is there.
    pub is_state_wrong: bool,
    /// Whether `[board]` was wrong: then no pin is touched, for it may have been meant to be another board.
    pub is_board_wrong: bool,
    source: Option<Arc<Source>>,
    given: Vec<GivenVariable>,
    /// Where the values in `[uplink]` stand.
    uplink_spans: BTreeMap<String, std::ops::Range<usize>>,
    /// Where `path` of `[state]` stands.
    state_span: std::ops::Range<usize>,
}

/// Something about the files of `[uplink]`.
struct CredentialProblem {
    /// The key in `[uplink]` that names the file.
    key: &'static str,
    severity: Severity,
    /// It does not keep the uplink from working today.
    is_to_come: bool,
    text: String,
}

/// A variable in the settings file, and where it stands.
#[derive(Debug)]
struct GivenVariable {
    flow: Option<String>,
    name: String,
    span: std::ops::Range<usize>,
}

/// The settings file could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the settings file {}; check that it is there, that this user may read it, and that it is saved as UTF-8", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the settings file {} is not TOML:\n{text}", path.display())]
    NotToml { path: PathBuf, text: String },
}

/// Variables from the environment go before those of the file: `TIDEGATE_VAR_warm=5` gives `warm` the number 5.
const VARIABLE_PREFIX: &str = "TIDEGATE_VAR_";

impl Config {
    /// The values that this device gives to the variables of a flow.
    pub fn variables_for(&self, flow: &str) -> Variables {
        let mut variables = self.vars.clone();
        if let Some(own) = self.flow_vars.get(flow) {
            variables.values.extend(own.values.clone());
        }
        variables
    }

    /// Takes variables from environment entries; those that are none of ours are passed over.
    pub fn add_environment(&mut self, entries: impl IntoIterator<Item = (String, String)>) {
        for (name, text) in entries {
            if let Some(name) = name.strip_prefix(VARIABLE_PREFIX) {
                self.vars.texts.insert(name.to_owned(), text);
            }
        }
    }

    /// Variables that are given to flows which do not have them, as problems: a slip in a name would else pass in silence.
    /// `flows` must be all of them.
    pub fn unused_variables(&self, flows: &[Arc<Graph>]) -> Vec<Diagnostic> {
        let Some(source) = &self.source else {
            return Vec::new();
        };
        let mut report = Report::over(source.clone());
        for given in &self.given {
            let of_flow = |flow: &&Arc<Graph>| {
                given
                    .flow
                    .as_deref()
                    .is_none_or(|name| name == &**flow.name())
            };
            let mut known = flows
                .iter()
                .filter(of_flow)
                .flat_map(|flow| flow.vars().keys())
                .peekable();
            if let Some(flow) = given.flow.as_deref().filter(|_| known.peek().is_none()) {
                let mut names = flows.iter().map(|flow| &**flow.name());
                let (message, help) = if names.clone().any(|name| name == flow) {
                    let message = format!("the flow `{flow}` has no variables");
                    let help = format!("declare it there: [vars] {} = ...", given.name);
                    (message, Some(help))
                } else {
                    let help = did_you_mean(flow, &mut names);
                    (format!("there is no flow `{flow}`"), help)
                };
                report.warning(given.span.clone(), message, help);
                continue;
            }
            let known: Vec<&str> = known.map(|name| &**name).collect();
            if !known.contains(&given.name.as_str()) {
                let message = format!("no flow has the variable `{}`", given.name);
                report.warning(
                    given.span.clone(),
                    message,
                    did_you_mean(&given.name, known),
                );
            }
        }
        report.into_diagnostics()
    }

    /// Variables from the environment that no flow has, each in a sentence.
    pub fn unused_environment(&self, flows: &[Arc<Graph>]) -> Vec<String> {
        let known = || flows.iter().flat_map(|flow| flow.vars().keys());
        let given = self.vars.texts.keys();
        let unused = given.filter(|name| !known().any(|known| **known == **name));
        unused
            .map(|name| {
                let help = did_you_mean(name, known().map(|known| &**known));
                let help = help.map(|help| format!(": {help}")).unwrap_or_default();
                format!(
                    "{VARIABLE_PREFIX}{name} is set, but no flow has the variable `{name}`{help}"
                )
            })
            .collect()
    }

    /// What keeps the uplink from working with the files of `[uplink]` at the system's time, each in a sentence. None of it
    /// keeps anything else from running.
    pub fn credential_problems(&self) -> Vec<String> {
        let found = self.judge_credentials(UnixTime::now()).into_iter();
        let now = found.filter(|problem| !problem.is_to_come);
        now.map(|problem| problem.text).collect()
    }

    /// The same with its place in the settings, and what will keep it from working in the next weeks.
    pub fn credential_diagnostics(&self) -> Vec<Diagnostic> {
        let Some(source) = &self.source else {
            return Vec::new();
        };
        let mut report = Report::over(source.clone());
        for problem in self.judge_credentials(UnixTime::now()) {
            let span = self.uplink_spans.get(problem.key).cloned();
            let message = match problem.is_to_come {
                true => problem.text,
                false => format!("the uplink would not work: {}", problem.text),
            };
            match problem.severity {
                Severity::Error => report.error(span.unwrap_or_default(), message, None),
                Severity::Warning => report.warning(span.unwrap_or_default(), message, None),
            }
        }
        report.into_diagnostics()
    }

    fn judge_credentials(&self, now: UnixTime) -> Vec<CredentialProblem> {
        let Some(settings) = self.uplink_settings() else {
            return Vec::new();
        };
        let mut problems = Vec::new();
        if let Err(error) = uplink::tls::load(&settings.files, now) {
            problems.push(CredentialProblem {
                key: error.role().key(),
                severity: match error.is_absence() {
                    true => Severity::Warning,
                    false => Severity::Error,
                },
                is_to_come: false,
                text: chain(&error),
            });
        }
        for expiry in uplink::expiry::expiries(&settings.files) {
            let key = expiry.role.key();
            // rustls trusts an authority for ever; others that see its certificate do not.
            if expiry.role == Role::Ca && expiry.has_ended(now) {
                problems.push(CredentialProblem {
                    key,
                    severity: Severity::Error,
                    is_to_come: true,
                    text: format!(
                        "the authority `{}` in {} ended at {}: take its certificate out, and put its new one there",
                        expiry.name,
                        expiry.path.display(),
                        expiry.until
                    ),
                });
            }
            problems.extend(expiry.warning(now).map(|text| CredentialProblem {
                key,
                severity: Severity::Warning,
                is_to_come: true,
                text,
            }));
        }
        problems.extend(self.wrong_common_name(&settings));
        problems
    }

    fn wrong_common_name(&self, settings: &uplink::Settings) -> Option<CredentialProblem> {
        let pem = std::fs::read(&settings.files.cert).ok()?;
        let own = certs::describe(&pem).ok()?.into_iter().next()?;
        let name = own.common_name.filter(|name| *name != settings.client_id)?;
        Some(CredentialProblem {
            key: "cert",
            severity: Severity::Warning,
            is_to_come: false,
            text: format!(
                "{} is the certificate of `{name}`, but this device is `{}`: a broker that goes by certificates may refuse what \
                 it publishes, or drop it without a word; correct `id` of [device] or `cert` of [uplink]",
                settings.files.cert.display(),
                settings.client_id
            ),
        })
    }

    pub fn outbox_settings(&self) -> outbox::Settings {
        outbox::Settings {
            commit: self.outbox.commit.0,
            max_size: self.outbox.max_size.0,
            when_full: self.outbox.when_full,
            flash_budget: self.outbox.flash_budget.map(|size| size.0),
            ..outbox::Settings::new(&self.outbox.path)
        }
    }

    pub fn uplink_settings(&self) -> Option<uplink::Settings> {
        let uplink = self.uplink.as_ref()?;
        let files = uplink::Files {
            ca: uplink.ca.0.clone(),
            cert: uplink.cert.clone(),
            key: uplink.key.clone(),
            crl: uplink.crl.clone(),
            options: uplink::tls::Options {
                min_version: uplink.tls_min,
                alpn: uplink.alpn.clone(),
                server_name: uplink.server_name.clone().map(|name| name.0),
            },
        };
        let mut settings = uplink::Settings {
            inflight: uplink.inflight,
            keep_alive: uplink.keep_alive.0,
            retry_max: uplink.retry_max.0,
            alternatives: uplink.url.others().cloned().collect(),
            presence: uplink.status_topic.as_ref().map(|topic| uplink::Presence {
                topic: topic.resolve(&self.device.id.to_string(), "", "").fill(""),
                // Whoever runs the flows tells which.
                flows: tokio::sync::watch::Sender::default().subscribe(),
            }),
            drain: uplink::DrainLimits {
                messages: uplink.drain_messages,
                bytes: uplink.drain_bytes.map(|size| size.0),
            },
            ..uplink::Settings::new(
                uplink.url.first().clone(),
                files,
                self.device.id.to_string(),
            )
        };
        if let Some(profile) = uplink.profile {
            profile.apply(&mut settings, self.uplink_spans.contains_key("inflight"));
        }
        Some(settings)
    }

    /// How to reach the brokers that flows take messages from, by their names.
    pub fn broker_settings(&self) -> BTreeMap<String, subscriptions::Settings> {
        let device = self.device.id.as_str();
        let brokers = self.brokers.iter();
        brokers
            .map(|(name, broker)| (name.clone(), broker.settings(device)))
            .collect()
    }

    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let uplink = self.uplink.iter_mut().flat_map(|uplink| {
            let ca = match &mut uplink.ca.0 {
                uplink::tls::Ca::File(path) => Some(path),
                uplink::tls::Ca::System => None,
            };
            let others = [
                Some(&mut uplink.cert),
                Some(&mut uplink.key),
                uplink.crl.as_mut(),
            ];
            ca.into_iter().chain(others.into_iter().flatten())
        });
        [
            &mut self.flows.path,
            &mut self.outbox.path,
            &mut self.state.path,
        ]
        .into_iter()
        .chain(uplink)
        .chain(self.brokers.values_mut().flat_map(BrokerSection::paths_mut))
    }
}
