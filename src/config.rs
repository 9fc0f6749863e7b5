//! Device settings: `tidegate.toml`.
//!
//! Every section and key has a default, except where noted. What is wrong is reported with its place and left out; the rest
//! counts. Only a file that cannot be read, or is no TOML at all, is an error of its own.
//!
//! Must not: open, connect or start anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use toml::de::{DeTable, DeValue};

use crate::board::{self, Simulation};
use crate::certs;
use crate::flow::diagnostic::{Diagnostic, Report, Source, did_you_mean, nearest};
use crate::flow::options::{self, Span};
use crate::flow::{Graph, Variables, file};
use crate::message::Value;
use crate::outbox::{self, WhenFull};
use crate::runtime::driver::chain;
use crate::uplink;

/// The settings of a device, as far as they were right.
#[derive(Debug, Default)]
pub struct Config {
    pub device: Device,
    pub flows: Flows,
    /// Without it nothing goes up; what flows want to deliver is kept in the outbox.
    pub uplink: Option<Uplink>,
    pub outbox: Outbox,
    pub board: Board,
    pub log: Log,
    /// `[vars]`: values for the variables of all flows.
    pub vars: Variables,
    /// `[vars.FLOW]`: values for the variables of one flow, which go before those for all.
    pub flow_vars: BTreeMap<String, Variables>,
    /// Whether `id` of `[device]` or `path` of `[outbox]` was wrong. What stands there instead is not this device's identity:
    /// its records must not go out under another name, nor into another outbox.
    pub is_identity_wrong: bool,
    /// Whether `[board]` was wrong: then no pin is touched, for it may have been meant to be another board.
    pub is_board_wrong: bool,
    source: Option<Arc<Source>>,
    given: Vec<GivenVariable>,
}

/// A variable in the settings file, and where it stands.
#[derive(Debug)]
struct GivenVariable {
    flow: Option<String>,
    name: String,
    span: std::ops::Range<usize>,
}

/// This device.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct Device {
    /// The device's name: the MQTT client id, and `{device}` in topics. Letters, digits, `_`, `.` and `-`. Default: the
    /// host's name.
    #[serde(default)]
    pub id: DeviceId,
}

/// Where the flows are.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Flows {
    /// A directory of flow files, or one flow file. Default: `flows`.
    #[serde(default = "flows_path")]
    pub path: PathBuf,
}

impl Default for Flows {
    fn default() -> Flows {
        Flows { path: flows_path() }
    }
}

fn flows_path() -> PathBuf {
    "flows".into()
}

/// The connection to the cloud broker.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Uplink {
    /// The cloud broker: `mqtts://HOST:PORT`; without a port, 8883.
    pub url: Url,
    /// The certificates (PEM) of the authorities that the broker's certificate must chain to.
    pub ca: PathBuf,
    /// This device's certificate (PEM), with those between it and the broker's authority, if any.
    pub cert: PathBuf,
    /// The key (PEM) of this device's certificate.
    pub key: PathBuf,
    /// How many records may be on their way without an acknowledgement; from 1 to 10,000. Default: 100.
    #[serde(default = "inflight")]
    pub inflight: u16,
    /// How often an idle connection is tried; from `1s` to `1h`, whole seconds. Default: `15s`.
    #[serde(default = "keep_alive")]
    pub keep_alive: Span,
    /// The longest wait between two attempts to connect; from `200ms` to `1h`. Default: `30s`.
    #[serde(default = "retry_max")]
    pub retry_max: Span,
}

fn inflight() -> u16 {
    100
}

fn keep_alive() -> Span {
    Span(std::time::Duration::from_secs(15))
}

fn retry_max() -> Span {
    Span(std::time::Duration::from_secs(30))
}

/// The durable buffer for what must be delivered.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Outbox {
    /// Its directory. Default: `outbox`.
    #[serde(default = "outbox_path")]
    pub path: PathBuf,
    /// A power cut takes at most the records of this interval; `0s` makes every record durable before it is sent. Default:
    /// `1s`.
    #[serde(default = "commit")]
    pub commit: Span,
    /// What it may take on disk, from `8MiB`. Default: `256MiB`.
    #[serde(default = "max_size")]
    pub max_size: Size,
    /// What goes when it is full: `drop-oldest` or `drop-newest`. Default: `drop-oldest`.
    #[serde(default)]
    pub when_full: WhenFull,
}

impl Default for Outbox {
    fn default() -> Outbox {
        Outbox {
            path: outbox_path(),
            commit: commit(),
            max_size: max_size(),
            when_full: WhenFull::default(),
        }
    }
}

fn outbox_path() -> PathBuf {
    "outbox".into()
}

fn commit() -> Span {
    Span(std::time::Duration::from_secs(1))
}

fn max_size() -> Size {
    Size(256 * 1024 * 1024)
}

/// The hardware.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct Board {
    /// `auto`: the Pi's own pins, and an error where there is no Pi; `rppal`: the same without looking; `simulated`:
    /// simulated hardware. Default: `auto`.
    #[serde(default)]
    pub kind: board::Kind,
    /// What a simulated board simulates.
    #[serde(default)]
    pub simulation: Simulation,
}

/// The log, on stderr.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct Log {
    /// `text` for people, `json` for machines: one object a line. Default: `text`.
    #[serde(default)]
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`. Default: `info`.
    #[serde(default)]
    pub level: LogLevel,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// The name of a device; valid as an MQTT client id, as a certificate's common name and as a level of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceId(String);

impl DeviceId {
    pub fn parse(text: &str) -> Result<DeviceId, String> {
        if !certs::is_plain_id(text) {
            return Err(format!(
                "`{text}` cannot be a device's id: use 1 to 128 letters, digits, `_`, `.` and `-`"
            ));
        }
        Ok(DeviceId(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The host's name, with what an id cannot have replaced by `-`.
impl Default for DeviceId {
    fn default() -> DeviceId {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') {
                c
            } else {
                '-'
            }
        };
        let id: String = host.trim().chars().map(plain).take(128).collect();
        DeviceId(if id.is_empty() { "tidegate".into() } else { id })
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The address of a cloud broker, from `mqtts://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(pub uplink::Address);

/// A number of bytes as text: `"64MiB"`, `"1GB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A settings value that is written as text.
macro_rules! from_text {
    ($type:ident, $format:literal, $parse:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let parse: fn(&str) -> Result<$type, String> = $parse;
                parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

from_text!(DeviceId, "device-id", DeviceId::parse);
from_text!(Url, "mqtts-url", |text| uplink::parse_url(text)
    .map(Url)
    .map_err(|error| error.to_string()));
from_text!(Size, "size", |text| {
    let size: bytesize::ByteSize = text
        .parse()
        .map_err(|_| format!("`{text}` is no size; a size is written like \"64MiB\" or \"1GB\""))?;
    if size.as_u64() < outbox::MIN_SIZE {
        return Err(format!(
            "must be at least {} MiB",
            outbox::MIN_SIZE / 1024 / 1024
        ));
    }
    Ok(Size(size.as_u64()))
});

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

/// Reads the settings file. Paths in it are relative to its directory.
pub fn load(path: &Path) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.into(),
        source,
    })?;
    let mut report = Report::new(path.display().to_string(), text);
    let mut config = parse(&mut report).map_err(|text| ConfigError::NotToml {
        path: path.into(),
        text,
    })?;
    let directory = path.parent().unwrap_or(Path::new(""));
    for file in config.paths_mut() {
        *file = directory.join(&file);
    }
    Ok((config, report.into_diagnostics()))
}

/// Reads the text of a settings file; the error is the text's problems, if it is no TOML.
fn parse(report: &mut Report) -> Result<Config, String> {
    let source = report.source().clone();
    let (root, errors) = DeTable::parse_recoverable(&source.text);
    if !errors.is_empty() {
        for error in errors {
            report.error(
                error.span().unwrap_or(0..0),
                error.message().to_owned(),
                None,
            );
        }
        return Err(report
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.render(false) + "\n")
            .collect());
    }

    const SECTIONS: [&str; 7] = [
        "device", "flows", "uplink", "outbox", "board", "log", "vars",
    ];
    let mut config = Config {
        source: Some(source.clone()),
        ..Config::default()
    };
    for (key, value) in root.get_ref() {
        let name: &str = key.get_ref();
        if !SECTIONS.contains(&name) {
            let help = did_you_mean(name, SECTIONS)
                .unwrap_or_else(|| format!("there are [{}]", SECTIONS.join("], [")));
            report.error(
                key.span(),
                format!("there is no section `{name}`"),
                Some(help),
            );
            config.is_identity_wrong |= nearest(name, ["device", "outbox"]).is_some();
            config.is_board_wrong |= nearest(name, ["board"]).is_some();
            continue;
        }
        let DeValue::Table(table) = value.get_ref() else {
            report.error(
                key.span(),
                format!("`{name}` must be a section: [{name}]"),
                None,
            );
            continue;
        };
        match name {
            "device" => {
                let is_complete = section(&mut config.device, table, name, key.span(), report);
                config.is_identity_wrong |= !is_complete;
            }
            "flows" => {
                section(&mut config.flows, table, name, key.span(), report);
            }
            "uplink" => {
                config.uplink = options::read(table, key.span(), "[uplink]", report).read;
                if let Some(uplink) = &mut config.uplink {
                    check_uplink(uplink, table, report);
                }
            }
            "outbox" => {
                section(&mut config.outbox, table, name, key.span(), report);
                let is_path_wrong = table
                    .get("path")
                    .is_some_and(|path| !path.get_ref().is_str());
                let is_path_misspelt = table
                    .keys()
                    .any(|key| nearest(key.get_ref(), ["path"]).is_some());
                config.is_identity_wrong |=
                    is_path_wrong || (is_path_misspelt && !table.contains_key("path"));
            }
            "board" => {
                config.is_board_wrong =
                    !board_section(&mut config.board, table, key.span(), report);
            }
            "log" => {
                section(&mut config.log, table, name, key.span(), report);
            }
            _ => variables(&mut config, table, report),
        }
    }
    Ok(config)
}

/// Reads a section; says whether all of it was right.
fn section<T: DeserializeOwned + JsonSchema>(
    into: &mut T,
    table: &DeTable<'_>,
    name: &str,
    header: std::ops::Range<usize>,
    report: &mut Report,
) -> bool {
    let options = options::read(table, header, &format!("[{name}]"), report);
    if let Some(read) = options.read {
        *into = read;
    }
    options.complete
}

/// The simulation is read by itself, so that a mistake in it does not take the board's kind with it. Says whether the rest
/// was right.
fn board_section(
    board: &mut Board,
    table: &DeTable<'_>,
    header: std::ops::Range<usize>,
    report: &mut Report,
) -> bool {
    let mut rest = table.clone();
    let simulation = rest.remove("simulation");
    let is_right = section(board, &rest, "board", header, report);
    match simulation
        .as_ref()
        .map(|simulation| (simulation.span(), simulation.get_ref()))
    {
        Some((span, DeValue::Table(table))) => {
            section(
                &mut board.simulation,
                table,
                "board.simulation",
                span,
                report,
            );
        }
        Some((span, _)) => report.error(
            span,
            "`simulation` must be a section: [board.simulation]",
            None,
        ),
        None => {}
    }
    is_right
}

fn check_uplink(uplink: &mut Uplink, table: &DeTable<'_>, report: &mut Report) {
    let span = |key: &str| table.get(key).map_or(0..0, toml::Spanned::span);
    if !(1..=10_000).contains(&uplink.inflight) {
        report.error(span("inflight"), "`inflight` must be from 1 to 10000", None);
        uplink.inflight = inflight();
    }
    let seconds = uplink.keep_alive.0.as_secs();
    if !(1..=3600).contains(&seconds) || uplink.keep_alive.0.subsec_nanos() != 0 {
        report.error(
            span("keep_alive"),
            "`keep_alive` must be whole seconds, from 1s to 1h",
            None,
        );
        uplink.keep_alive = keep_alive();
    }
    let retry_max_ms = uplink.retry_max.0.as_millis();
    if !(200..=3_600_000).contains(&retry_max_ms) {
        report.error(
            span("retry_max"),
            "`retry_max` must be from 200ms to 1h",
            None,
        );
        uplink.retry_max = retry_max();
    }
}

fn variables(config: &mut Config, table: &DeTable<'_>, report: &mut Report) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        match value.get_ref() {
            DeValue::Table(of_flow) if file::is_node_name(name) => {
                for (key, value) in of_flow {
                    variable(config, Some(name), key, value, report);
                }
            }
            _ => variable(config, None, key, value, report),
        }
    }
}

fn variable(
    config: &mut Config,
    flow: Option<&str>,
    key: &toml::Spanned<toml::de::DeString<'_>>,
    value: &toml::Spanned<DeValue<'_>>,
    report: &mut Report,
) {
    let name: &str = key.get_ref();
    let read = Value::deserialize(toml::de::ValueDeserializer::from(value.clone()));
    let Ok(read @ (Value::Bool(_) | Value::Number(_) | Value::Text(_))) = read else {
        return report.error(
            value.span(),
            format!("`{name}` must be text, a number or true/false"),
            None,
        );
    };
    if !file::is_variable_name(name) {
        return report.error(
            key.span(),
            format!("`{name}` is no name for a variable"),
            None,
        );
    }
    let variables = match flow {
        Some(flow) => config.flow_vars.entry(flow.to_owned()).or_default(),
        None => &mut config.vars,
    };
    variables.values.insert(name.to_owned(), read);
    config.given.push(GivenVariable {
        flow: flow.map(str::to_owned),
        name: name.to_owned(),
        span: key.span(),
    });
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
                let names = flows.iter().map(|flow| &**flow.name());
                let message = format!("there is no flow `{flow}` with variables");
                report.warning(given.span.clone(), message, did_you_mean(flow, names));
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

    /// What is wrong with the files of `[uplink]` at the system's time, each in a sentence. None of it keeps anything but the
    /// uplink from running.
    pub fn credential_problems(&self) -> Vec<String> {
        let Some(settings) = self.uplink_settings() else {
            return Vec::new();
        };
        let mut problems = Vec::new();
        if let Err(error) = uplink::tls::load(&settings.files, rustls::pki_types::UnixTime::now()) {
            problems.push(chain(&error));
        }
        let own = std::fs::read(&settings.files.cert)
            .ok()
            .and_then(|pem| certs::describe(&pem).ok());
        let name = own
            .and_then(|chain| chain.into_iter().next())
            .and_then(|own| own.common_name);
        if let Some(name) = name.filter(|name| *name != settings.client_id) {
            problems.push(format!(
                "{} is the certificate of `{name}`, but this device is `{}`: a broker that goes by certificates may refuse what \
                 it publishes, or drop it without a word; correct `id` of [device] or `cert` of [uplink]",
                settings.files.cert.display(),
                settings.client_id
            ));
        }
        problems
    }

    pub fn outbox_settings(&self) -> outbox::Settings {
        outbox::Settings {
            commit: self.outbox.commit.0,
            max_size: self.outbox.max_size.0,
            when_full: self.outbox.when_full,
            ..outbox::Settings::new(&self.outbox.path)
        }
    }

    pub fn uplink_settings(&self) -> Option<uplink::Settings> {
        let uplink = self.uplink.as_ref()?;
        let files = uplink::Files {
            ca: uplink.ca.clone(),
            cert: uplink.cert.clone(),
            key: uplink.key.clone(),
        };
        Some(uplink::Settings {
            inflight: uplink.inflight,
            keep_alive: uplink.keep_alive.0,
            retry_max: uplink.retry_max.0,
            ..uplink::Settings::new(uplink.url.0.clone(), files, self.device.id.to_string())
        })
    }

    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let uplink = self
            .uplink
            .iter_mut()
            .flat_map(|uplink| [&mut uplink.ca, &mut uplink.cert, &mut uplink.key]);
        [&mut self.flows.path, &mut self.outbox.path]
            .into_iter()
            .chain(uplink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Site;

    fn read(text: &str) -> (Config, Vec<String>) {
        let mut report = Report::new("tidegate.toml", text);
        let config = parse(&mut report).expect("TOML");
        (
            config,
            report
                .into_diagnostics()
                .iter()
                .map(ToString::to_string)
                .collect(),
        )
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let (config, problems) = read("");
        assert_eq!(problems, [""; 0]);
        assert!(config.uplink.is_none());
        assert_eq!(config.outbox.max_size, Size(256 << 20));
        assert_eq!(config.board.kind, board::Kind::Auto);
        assert!(
            DeviceId::parse(config.device.id.as_str()).is_ok(),
            "{}",
            config.device.id
        );
    }

    #[test]
    fn mistakes_are_reported_at_once_and_the_rest_counts() {
        let (config, problems) = read(
            "[device]\nid = 'press/7'\n[outbx]\n[outbox]\ncommit = '2s'\nmax_size = '1MB'\nwhen_full = 'drop-old'\n\
             [uplink]\nurl = 'mqtt://broker'\nca = 'ca.pem'\ncert = 'c.pem'\n[board]\nkind = 'simulated'\n",
        );
        let check = |place: &str, words: &str| {
            let found = problems.iter().any(|p| {
                p.starts_with(&format!("tidegate.toml:{place}: error")) && p.contains(words)
            });
            assert!(found, "{place} {words}: {problems:#?}");
        };
        check("2:6", "cannot be a device's id");
        check("3:2", "did you mean `outbox`?");
        check("6:12", "at least 8 MiB");
        check("7:13", "did you mean `drop-oldest`?");
        check("9:7", "mqtts");
        check("8:2", "[uplink] needs `key`");
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert_eq!(
            config.outbox.commit,
            Span(std::time::Duration::from_secs(2)),
            "what is right counts"
        );
        assert!(config.uplink.is_none());
        assert_eq!(config.board.kind, board::Kind::Simulated);
    }

    #[test]
    fn variables_come_from_the_file_and_before_it_from_the_environment() {
        let (mut config, problems) =
            read("[vars]\nwarm = 5\nname = 'x'\n[vars.cold-store]\nwarm = 6.5\n");
        assert_eq!(problems, [""; 0]);
        let warm = |config: &Config, flow: &str| config.variables_for(flow).values["warm"].clone();
        assert_eq!(warm(&config, "cold-store"), Value::Number(6.5));
        assert_eq!(warm(&config, "other"), Value::Number(5.0));
        config.add_environment([
            ("TIDEGATE_VAR_warm".into(), "7".into()),
            ("HOME".into(), "/".into()),
        ]);
        assert_eq!(config.variables_for("cold-store").texts["warm"], "7");
        assert_eq!(config.variables_for("other").texts.len(), 1);
    }

    #[test]
    fn variables_that_no_flow_has_are_named() {
        let flow = "[vars]\nwarm = 1\n[nodes.a]\ntype = 'inject'\nevery = '1s'\npayload = '${warm}'\n\
                    [nodes.b]\ntype = 'debug'\nfrom = 'a'";
        let (config, _) = read(
            "[vars]\nwarm = 5\nwram = 5\n[vars.cold-stoer]\nwarm = 5\n[vars.cold-store]\nwarm = 6\nwarn = 7\n",
        );
        let site = Site::from_texts([("cold-store", flow)], |flow| config.variables_for(flow));
        let found: Vec<String> = config
            .unused_variables(&site.flows)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "tidegate.toml:3:1: warning: no flow has the variable `wram` (did you mean `warm`?)",
                "tidegate.toml:5:1: warning: there is no flow `cold-stoer` with variables (did you mean `cold-store`?)",
                "tidegate.toml:8:1: warning: no flow has the variable `warn` (did you mean `warm`?)",
            ]
        );
    }

    #[test]
    fn a_wrong_identity_is_not_replaced_by_another() {
        let check = |text: &str, expected: bool| {
            assert_eq!(read(text).0.is_identity_wrong, expected, "{text}")
        };
        check(
            "[device]\nid = 'press-7'\n[outbox]\npath = 'o'\ncommit = 'x'",
            false,
        );
        check("", false);
        check("[device]\nid = 'press/7'", true);
        check("[device]\ndi = 'press-7'", true);
        check("[devcie]\nid = 'press-7'", true);
        check("[outbox]\npath = 5", true);
        check("[outbox]\npaht = 'o'", true);
    }

    #[test]
    fn a_mistake_in_the_simulation_leaves_the_kind() {
        let (config, problems) = read(
            "[board]\nkind = 'simulated'\n[board.simulation]\nsede = 1\ninputs.99 = { kind = 'level' }\n",
        );
        assert_eq!(config.board.kind, board::Kind::Simulated);
        assert!(!config.is_board_wrong);
        assert_eq!(problems.len(), 2, "{problems:#?}");
    }

    #[test]
    fn a_slip_in_the_board_does_not_choose_another() {
        assert!(read("[board]\nkind = 'simulatd'").0.is_board_wrong);
        assert!(read("[bord]\nkind = 'simulated'").0.is_board_wrong);
        assert!(!read("[board]\nkind = 'simulated'").0.is_board_wrong);
    }

    #[test]
    fn a_certificate_of_another_device_is_noticed() {
        use crate::certs::{DevelopmentCa, LEAF_DAYS, Overwrite, Validity};
        let directory = tempfile::tempdir().expect("a directory");
        let now = crate::runtime::Clock::start().now().wall;
        let ca = DevelopmentCa::create(now).expect("a CA");
        ca.credentials()
            .write(directory.path(), Overwrite::Never)
            .expect("written");
        let device = ca
            .issue_device("press-7", Validity::days(now, LEAF_DAYS))
            .expect("issued");
        device
            .write(directory.path(), Overwrite::Never)
            .expect("written");
        let check = |id: &str, key: &str, expected: &[&str]| {
            let path = directory.path().join("tidegate.toml");
            let text = format!(
                "[device]\nid = '{id}'\n[uplink]\nurl = 'mqtts://b'\nca = 'ca.pem'\ncert = 'press-7.pem'\nkey = '{key}'"
            );
            std::fs::write(&path, text).expect("written");
            let problems = load(&path).expect("read").0.credential_problems();
            assert_eq!(problems.len(), expected.len(), "{problems:#?}");
            for (problem, expected) in problems.iter().zip(expected) {
                assert!(problem.contains(expected), "{problem}");
            }
        };
        check("press-7", "press-7.key", &[]);
        check(
            "press_7",
            "press-7.key",
            &["is the certificate of `press-7`, but this device is `press_7`"],
        );
        check("press-7", "ca.key", &["ca.key"]);
        check("press-8", "none.key", &["none.key", "press-8"]);
    }

    #[test]
    fn what_is_no_toml_is_said_with_its_place() {
        let mut report = Report::new("tidegate.toml", "[device\nid = 1");
        let text = parse(&mut report).expect_err("no TOML");
        assert!(text.contains("tidegate.toml:1"), "{text}");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tidegate.toml");
        std::fs::write(
            &path,
            "[flows]\npath = 'f'\n[outbox]\npath = '/var/lib/o'\n",
        )
        .expect("it can be written");
        let (config, _) = load(&path).expect("it can be read");
        assert_eq!(config.flows.path, directory.path().join("f"));
        assert_eq!(config.outbox.path, Path::new("/var/lib/o"));
    }
}
