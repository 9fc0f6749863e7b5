//! Settings as people write them, right and wrong.

use std::path::Path;

use super::read::parse;
use super::*;
use crate::board;
use crate::flow::Site;
use crate::flow::options::Span;
use crate::message::Value;

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
        let found = problems
            .iter()
            .any(|p| p.starts_with(&format!("tidegate.toml:{place}: error")) && p.contains(words));
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
            "tidegate.toml:5:1: warning: there is no flow `cold-stoer` (did you mean `cold-store`?)",
            "tidegate.toml:8:1: warning: no flow has the variable `warn` (did you mean `warm`?)",
        ]
    );
}

#[test]
fn a_broker_is_named_once() {
    let (_, problems) = read(
        "[uplink]\nurl = ['mqtts://a', 'mqtts://b', 'mqtts://a']\nca = 'ca.pem'\ncert = 'c.pem'\nkey = 'k.pem'\n",
    );
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0].contains("names mqtts://a twice"),
        "{problems:#?}"
    );
}

#[test]
fn a_wrong_identity_is_not_replaced_by_another() {
    let check =
        |text: &str, expected: bool| assert_eq!(read(text).0.is_identity_wrong, expected, "{text}");
    check(
        "[device]\nid = 'press-7'\n[outbox]\npath = 'o'\ncommit = 'x'",
        false,
    );
    check("[device]\nid = 'press-7'\n[outbox]\npath = ''", true);
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
    // Its default is another chip.
    assert!(
        read("[board]\nkind = 'chardev'\nchpi = 'gpiochip1'")
            .0
            .is_board_wrong
    );
    assert!(read("[board]\nkind = 'chardev'\nchip = 1").0.is_board_wrong);
    let (config, problems) = read("[board]\nkind = 'chardev'\nchip = 'gpiochip1'");
    assert!(problems.is_empty() && !config.is_board_wrong);
    assert_eq!(config.board.chip.as_deref(), Some("gpiochip1"));
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
fn how_tls_is_spoken() {
    use crate::uplink::tls::{Ca, TlsVersion};
    let with = |more: &str| {
        let text = format!("[uplink]\nurl = 'mqtts://b:443'\ncert = 'c'\nkey = 'k'\n{more}");
        let (config, problems) = read(&text);
        (
            config.uplink_settings().map(|settings| settings.files),
            problems,
        )
    };
    let (files, problems) = with(
        "ca = 'system'\nalpn = ['mqtt']\ntls_min = '1.2'\nserver_name = 'c.example'\ncrl = 'r'",
    );
    assert_eq!(problems, [""; 0]);
    let files = files.expect("settings");
    assert_eq!((files.ca, files.crl), (Ca::System, Some("r".into())));
    assert_eq!(files.options.min_version, TlsVersion::V1_2);
    assert_eq!(files.options.alpn, ["mqtt"]);
    assert_eq!(
        files.options.server_name,
        Some("c.example".try_into().expect("a name"))
    );

    let (files, problems) = with("ca = './system'");
    let files = files.expect("settings");
    assert_eq!(files.ca, Ca::File("./system".into()));
    assert_eq!(files.options, uplink::tls::Options::default());
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0].starts_with("tidegate.toml:2:7: warning: port 443"),
        "{problems:#?}"
    );
    assert!(problems[0].contains("x-amzn-mqtt-ca"), "{problems:#?}");

    let wrong = |line: &str, expected: &str| {
        let (_, problems) = with(&format!("ca = 'c'\nalpn = ['mqtt']\n{line}"));
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].contains(expected), "{problems:#?}");
    };
    wrong("tls_min = '1.1'", "1.2");
    wrong("server_name = 'mqtts://b'", "is no name for a broker");
    let (_, problems) = with("ca = 'c'\nalpn = ['']");
    assert!(problems[1].contains("1 to 255 bytes"), "{problems:#?}");
}

#[test]
fn what_is_no_toml_is_said_with_its_place() {
    let mut report = Report::new("tidegate.toml", "[device\nid = 1");
    let text = parse(&mut report).expect_err("no TOML");
    assert!(text.contains("tidegate.toml:1"), "{text}");
}

#[test]
fn the_state_has_a_place_of_its_own_and_an_interval_within_limits() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tidegate.toml");
    std::fs::write(directory.path().join("one.toml"), "").expect("written");
    let check = |text: &str, expected: &[&str]| {
        std::fs::write(&path, text).expect("written");
        let (config, problems) = load(&path).expect("read");
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.to_string().contains(expected), "{problem}");
        }
        config
    };
    let config = check("", &[]);
    assert_eq!(config.state.path, directory.path().join("state"));
    assert_eq!(config.state.every.0.as_secs(), 300);
    let config = check("[state]\nevery = '1s'\npath = 'elsewhere'", &[]);
    assert_eq!(config.state.every.0.as_secs(), 1);
    assert!(!config.is_state_wrong);
    check("[state]\nevery = '1d'", &[]);
    for every in ["999ms", "86401s"] {
        let text = format!("[state]\nevery = '{every}'");
        let config = check(
            &text,
            &["tidegate.toml:2:9: error: `every` must be from 1s to 1d"],
        );
        assert_eq!(config.state.every.0.as_secs(), 300);
    }
    for (text, expected) in [
        ("[state]\npath = 'flows'", "where the flows are"),
        (
            "[state]\npath = 'f/../f/./x'\n[flows]\npath = 'f/../f/x'",
            "where the flows are",
        ),
        (
            "[state]\npath = '.'\n[flows]\npath = 'one.toml'",
            "where the flow is",
        ),
        ("[state]\npath = './outbox'", "where the outbox is"),
        ("[state]\npath = '.'", "where the settings are"),
    ] {
        assert!(check(text, &[expected]).is_state_wrong);
    }
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

#[test]
fn limits_out_of_range_are_told_and_left_out() {
    let check = |section: &str, words: &str| {
        let uplink =
            "[uplink]\nurl = 'mqtts://broker'\nca = 'ca.pem'\ncert = 'c.pem'\nkey = 'c.key'\n";
        let text = match section.strip_prefix("[uplink]") {
            Some(more) => format!("{uplink}{more}"),
            None => section.to_owned(),
        };
        let (config, problems) = read(&text);
        match words {
            "" => assert_eq!(problems, [""; 0], "{section}"),
            _ => assert!(
                problems.len() == 1 && problems[0].contains(words),
                "{section}: {problems:?}"
            ),
        }
        config
    };
    check("[uplink]drain_messages = 0", "from 1 to 100000");
    check("[uplink]drain_messages = 100001", "from 1 to 100000");
    let config = check("[uplink]drain_messages = 1\ndrain_bytes = '1KiB'", "");
    let drain = config.uplink_settings().expect("it is complete").drain;
    assert_eq!((drain.messages, drain.bytes), (Some(1), Some(1024)));
    check("[uplink]drain_bytes = '1023B'", "at least 1KiB");
    check("[uplink]status_topic = 'a/{node}'", "there is no `{node}`");
    check("[uplink]status_topic = 'a/+'", "wildcards");
    let config = check("[uplink]status_topic = 'a/{device}'", "");
    let settings = config.uplink_settings().expect("it is complete");
    let topic = settings.presence.expect("it has a topic").topic;
    assert_eq!(topic, format!("a/{}", settings.client_id));
    check("[control]\nrealtime = 100", "from 1 to 99");
    check("[control]\nrealtime = 0", "from 1 to 99");
    let config = check("[control]\nrealtime = 99\nlock_memory = true", "");
    assert_eq!(config.control.realtime, Some(99));
    check("[outbox]\nflash_budget = '9.9MB'", "at least 10MB");
    check("[outbox]\nflash_budget = '10MB'", "");
    check(
        "[outbox]\nflash_budget = '10MB'\ncommit = '0s'",
        "lets none wait",
    );
}
