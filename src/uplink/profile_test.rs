//! Limits, just inside and just outside.

use super::*;
use crate::uplink::tls::Files;

const ALL: [Profile; 5] = [
    Profile::Mosquitto,
    Profile::Emqx,
    Profile::Hivemq,
    Profile::AwsIotCore,
    Profile::AzureEventGrid,
];

fn settings(url: &str) -> Settings {
    let files = Files::new("ca.pem", "device.pem", "device.key");
    Settings::new(url.parse().unwrap(), files, "press-7".to_owned())
}

#[test]
fn defaults_break_no_limit_once_a_profile_is_applied() {
    for profile in ALL {
        let mut settings = settings("mqtts://broker.example");
        profile.apply(&mut settings, false);
        assert_eq!(profile.breaches_of(&settings), [], "{profile}");
        let limits = profile.limits();
        assert!(
            limits
                .packet_bytes
                .is_none_or(|limit| settings.max_packet <= limit)
        );
    }
}

#[test]
fn a_profile_lowers_what_nobody_has_chosen_and_raises_nothing() {
    let check = |profile: Profile, is_chosen: bool, expected: (u16, usize)| {
        let mut settings = settings("mqtts://broker.example");
        profile.apply(&mut settings, is_chosen);
        assert_eq!(
            (settings.inflight, settings.max_packet),
            expected,
            "{profile}"
        );
    };
    check(Profile::Mosquitto, false, (100, 256 * 1024));
    check(Profile::Hivemq, false, (10, 256 * 1024));
    check(Profile::Hivemq, true, (100, 256 * 1024));
    check(Profile::AwsIotCore, false, (100, 128 * 1024));
    check(Profile::AzureEventGrid, false, (100, 256 * 1024));
}

#[test]
fn settings_just_inside_and_just_outside() {
    let check = |profile: Profile, change: &dyn Fn(&mut Settings), expected: Option<&str>| {
        let mut settings = settings("mqtts://broker.example");
        change(&mut settings);
        let found: Vec<&str> = profile
            .breaches_of(&settings)
            .iter()
            .map(|it| it.key)
            .collect();
        assert_eq!(found, Vec::from_iter(expected), "{profile}");
    };
    let inflight = |value| move |settings: &mut Settings| settings.inflight = value;
    check(Profile::AwsIotCore, &inflight(100), None);
    check(Profile::AwsIotCore, &inflight(101), Some("inflight"));
    let keep_alive = |seconds| {
        move |settings: &mut Settings| settings.keep_alive = std::time::Duration::from_secs(seconds)
    };
    check(Profile::AwsIotCore, &keep_alive(1_200), None);
    check(Profile::AwsIotCore, &keep_alive(1_201), Some("keep_alive"));
    check(
        Profile::AzureEventGrid,
        &keep_alive(1_161),
        Some("keep_alive"),
    );
    check(Profile::Emqx, &keep_alive(3_600), None);
    let id = |length| move |settings: &mut Settings| settings.client_id = "x".repeat(length);
    check(Profile::AwsIotCore, &id(128), None);
    check(Profile::AwsIotCore, &id(129), Some("profile"));
    let port = |settings: &mut Settings| settings.address.port = 443;
    check(Profile::AwsIotCore, &port, Some("url"));
    check(Profile::AzureEventGrid, &port, Some("url"));
    check(Profile::Mosquitto, &port, None);
    let with_alpn = |settings: &mut Settings| {
        port(settings);
        settings.files.options.alpn = vec!["x-amzn-mqtt-ca".to_owned()];
    };
    check(Profile::AwsIotCore, &with_alpn, None);
}

#[test]
fn topics_sizes_and_rates_just_inside_and_just_outside() {
    let check = |profile: Profile, topic: &str, retain: bool, bytes: usize, expected: usize| {
        let bytes = bytes as f64;
        let published = Published {
            topic,
            retain,
            bytes,
        };
        let found = profile.breaches_by(published);
        assert_eq!(found.len(), expected, "{profile} {topic}: {found:?}");
    };
    let levels = |count: usize| vec!["a"; count].join("/");
    for (profile, most) in [
        (Profile::Mosquitto, 201),
        (Profile::Emqx, 128),
        (Profile::AwsIotCore, 8),
        (Profile::AzureEventGrid, 8),
    ] {
        check(profile, &levels(most), false, 100, 0);
        check(profile, &levels(most + 1), false, 100, 1);
    }
    check(Profile::AwsIotCore, &"x".repeat(256), false, 100, 0);
    check(Profile::AwsIotCore, &"x".repeat(257), false, 100, 1);
    check(Profile::AwsIotCore, "a", false, 128 * 1024, 0);
    check(Profile::AwsIotCore, "a", false, 128 * 1024 + 1, 1);
    check(Profile::AzureEventGrid, "a", true, 64 * 1024, 0);
    check(Profile::AzureEventGrid, "a", true, 64 * 1024 + 1, 1);
    check(Profile::AzureEventGrid, "a", false, 64 * 1024 + 1, 0);
    assert!(Profile::AwsIotCore.breach_of_rate(100.0).is_none());
    assert!(Profile::AwsIotCore.breach_of_rate(100.1).is_some());
    assert!(Profile::Emqx.breach_of_rate(f64::INFINITY).is_none());
}
