//! From the text of `tidegate.toml` to a [`Config`]: what is wrong is reported and left out, the rest counts.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::sections::{Board, Outbox, Uplink, inflight, keep_alive, retry_max, state_every};
use super::{Config, ConfigError, GivenVariable, brokers};
use crate::flow::diagnostic::{Diagnostic, Report, did_you_mean, nearest};
use crate::flow::{file, options};
use crate::message::Value;

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
    check_state_path(&mut config, directory, &mut report);
    Ok((config, report.into_diagnostics()))
}

/// Reads the text of a settings file; the error is the text's problems, if it is no TOML.
pub(super) fn parse(report: &mut Report) -> Result<Config, String> {
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

    const SECTIONS: [&str; 10] = [
        "device", "flows", "control", "uplink", "brokers", "outbox", "state", "board", "log",
        "vars",
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
                let spans = table
                    .iter()
                    .map(|(key, value)| (key.get_ref().to_string(), value.span()));
                config.uplink_spans = spans.collect();
                if let Some(uplink) = &mut config.uplink {
                    check_uplink(uplink, table, report);
                }
            }
            "outbox" => {
                section(&mut config.outbox, table, name, key.span(), report);
                check_outbox(&mut config.outbox, table, report);
                let is_path_wrong = table
                    .get("path")
                    .is_some_and(|path| path.get_ref().as_str().is_none_or(str::is_empty));
                let is_path_misspelt = table
                    .keys()
                    .any(|key| nearest(key.get_ref(), ["path"]).is_some());
                config.is_identity_wrong |=
                    is_path_wrong || (is_path_misspelt && !table.contains_key("path"));
            }
            "brokers" => brokers::read(&mut config, table, report),
            "state" => {
                section(&mut config.state, table, name, key.span(), report);
                let span = |key: &str| table.get(key).map_or(0..0, toml::Spanned::span);
                config.state_span = span("path");
                let seconds = config.state.every.0.as_secs_f64();
                if !(1.0..=86_400.0).contains(&seconds) {
                    report.error(span("every"), "`every` must be from 1s to 1d", None);
                    config.state.every = state_every();
                }
            }
            "board" => {
                config.is_board_wrong =
                    !board_section(&mut config.board, table, key.span(), report);
            }
            "control" => {
                section(&mut config.control, table, name, key.span(), report);
                if config
                    .control
                    .realtime
                    .is_some_and(|it| !(1..=99).contains(&it))
                {
                    let span = table.get("realtime").map_or(0..0, toml::Spanned::span);
                    report.error(span, "`realtime` must be from 1 to 99", None);
                    config.control.realtime = None;
                }
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

/// Last good copies have the names of flow files, and those of no flow are deleted, as the settings would be; the outbox is deleted
/// by other rules.
fn check_state_path(config: &mut Config, settings: &Path, report: &mut Report) {
    // The directory of `tidegate.toml` is an empty path.
    let here = |path: &Path| Path::new(".").join(path);
    let same = |a: &Path, b: &Path| match (here(a).canonicalize(), here(b).canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a.components().eq(b.components()),
    };
    let flows = &config.flows.path;
    let beside_flow = flows.parent().filter(|_| flows.is_file());
    let taken = [
        (flows.as_path(), "the flows are"),
        (beside_flow.unwrap_or(flows), "the flow is"),
        (config.outbox.path.as_path(), "the outbox is"),
        (settings, "the settings are"),
    ];
    let found = taken
        .iter()
        .find(|(path, _)| same(path, &config.state.path));
    if let Some((_, whose)) = found {
        report.error(
            config.state_span.clone(),
            format!("`path` of [state] is where {whose}, so nothing is kept over a restart"),
            Some("give it a directory of its own".into()),
        );
        config.is_state_wrong = true;
    }
}

fn check_outbox(outbox: &mut Outbox, table: &DeTable<'_>, report: &mut Report) {
    const LEAST: u64 = 10_000_000;
    if let Some(path) = table.get("path")
        && path.get_ref().as_str() == Some("")
    {
        report.error(
            path.span(),
            "`path` of [outbox] is empty",
            Some("it is a directory of its own, such as \"outbox\"".into()),
        );
    }
    let Some(budget) = outbox.flash_budget else {
        return;
    };
    let span = table.get("flash_budget").map_or(0..0, toml::Spanned::span);
    if budget.0 < LEAST {
        report.error(
            span,
            "`flash_budget` must be at least 10MB, which is for a day",
            Some("leave it out for no limit".into()),
        );
        outbox.flash_budget = None;
    } else if outbox.commit.0.is_zero() {
        report.error(
            span,
            "`flash_budget` lets commits wait, and commit = \"0s\" lets none wait",
            Some("leave one of them out".into()),
        );
        outbox.flash_budget = None;
    }
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
    if uplink
        .drain_messages
        .is_some_and(|limit| !(1..=100_000).contains(&limit))
    {
        report.error(
            span("drain_messages"),
            "`drain_messages` must be from 1 to 100000",
            Some("leave it out for no limit".into()),
        );
        uplink.drain_messages = None;
    }
    if uplink.drain_bytes.is_some_and(|limit| limit.0 < 1024) {
        report.error(
            span("drain_bytes"),
            "`drain_bytes` must be at least 1KiB, which is for one second",
            Some("leave it out for no limit".into()),
        );
        uplink.drain_bytes = None;
    }
    if let Some(topic) = &uplink.status_topic
        && let text = topic.to_string()
        && let Some(name) = ["{flow}", "{node}", "{topic}"]
            .into_iter()
            .find(|it| text.contains(it))
    {
        report.error(
            span("status_topic"),
            format!("`status_topic` is of the whole device: there is no `{name}`"),
            Some("`{device}` is this device's id".into()),
        );
        uplink.status_topic = None;
    }
    let alpn_fits = |name: &String| (1..=255).contains(&name.len());
    if !uplink.alpn.iter().all(alpn_fits) {
        report.error(
            span("alpn"),
            "each name in `alpn` must have 1 to 255 bytes",
            Some("without it nothing is offered, which is right for most brokers".into()),
        );
        uplink.alpn = Vec::new();
    }
    if uplink.url.has_port(443) && uplink.alpn.is_empty() {
        report.warning(
            span("url"),
            "port 443 is HTTPS's, and a broker there has to be asked for with `alpn`",
            Some(
                "AWS IoT Core wants alpn = [\"x-amzn-mqtt-ca\"] there; Azure Event Grid and most others speak MQTT on 8883 \
                 only"
                    .into(),
            ),
        );
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
