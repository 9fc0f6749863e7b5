//! Flows of several nodes, as people write them: what the node types make of each other's messages.

use crate::message::{Timestamp, Value};
use crate::nodes::testing::Run;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn ms(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A flow whose node `tested` reads from `source`, which sends nothing by itself.
fn flow(nodes: &str) -> Run {
    Run::flow(&format!(
        "[nodes.source]\ntype = 'catch'\nnodes = []\n{nodes}"
    ))
}

#[test]
fn lines_of_fields_are_taken_apart_changed_and_put_together() {
    let mut run = flow(
        "[nodes.tested]\ntype = 'split'\nfrom = 'source'\n\
         [nodes.fields]\ntype = 'split'\nfrom = 'tested'\nat = ','\n\
         [nodes.dots]\ntype = 'change'\nfrom = 'fields'\nrules = [{ change = 'payload', find = ';', with = '.' }]\n\
         [nodes.line]\ntype = 'join'\nfrom = 'dots'\n\
         [nodes.lines]\ntype = 'join'\nfrom = 'line'\n\
         [nodes.sink]\ntype = 'debug'\nfrom = 'lines'",
    );
    run.deliver_on("hall", ms(5), "1;5,2\n,3;25".into());
    assert_eq!(run.sent, [r#""1.5,2\n,3.25""#]);
    let whole = &run.messages[0];
    assert_eq!(
        (&*whole.topic, whole.time, &whole.headers),
        ("hall", ms(5), &None)
    );
}

/// `append` keeps the quantities of a meter apart for what remembers by topic, and `join` has its topic again.
#[test]
fn quantities_of_a_meter_are_smoothed_one_by_one() {
    let mut run = flow(
        "[nodes.tested]\ntype = 'split'\nfrom = 'source'\ntopic = 'append'\n\
         [nodes.calm]\ntype = 'median'\nfrom = 'tested'\ncount = 3\n\
         [nodes.whole]\ntype = 'join'\nfrom = 'calm'\n\
         [nodes.sink]\ntype = 'debug'\nfrom = 'whole'",
    );
    for text in [
        r#"{"power":400,"voltage":230}"#,
        r#"{"power":9999,"voltage":231}"#,
        r#"{"power":410,"voltage":0}"#,
        r#"{"power":null,"voltage":232}"#,
    ] {
        run.deliver_on("meter", ms(5), json(text));
    }
    run.go_on_until(ms(70_000));
    assert_eq!(
        run.sent,
        [
            r#"{"power":400,"voltage":230}"#,
            r#"{"power":5199.5,"voltage":230.5}"#,
            r#"{"power":410,"voltage":230}"#,
            "failed: needs a finite number, but the payload is null: null",
            "failed: only 1 of 2 parts came within 1m",
        ]
    );
    assert!(
        run.messages
            .iter()
            .all(|message| &*message.topic == "meter")
    );
}

#[test]
fn a_contact_that_bounces_is_counted_once_and_has_a_rate() {
    let mut run = flow(
        "[nodes.tested]\ntype = 'debounce'\nfrom = 'source'\nquiet = '20ms'\n\
         [nodes.pieces]\ntype = 'counter'\nfrom = 'tested'\nedge = 'rising'\n\
         [nodes.per_minute]\ntype = 'rate'\nfrom = 'pieces'\nper = '1m'\n\
         [nodes.total]\ntype = 'debug'\nfrom = 'pieces'\n\
         [nodes.sink]\ntype = 'debug'\nfrom = 'per_minute'",
    );
    run.deliver(ms(0), 0.0.into());
    for start in [1_000, 3_000, 5_000, 6_000] {
        let bounces = [
            (0, 1.0),
            (3, 0.0),
            (5, 1.0),
            (500, 0.0),
            (502, 1.0),
            (504, 0.0),
        ];
        for (after, level) in bounces {
            run.go_on_until(ms(start + after));
            run.deliver(ms(start + after), level.into());
        }
    }
    run.go_on_until(ms(10_000));
    assert_eq!(
        run.sent,
        [
            "total: 1", "total: 2", "30", "total: 3", "30", "total: 4", "60"
        ]
    );
}

#[test]
fn the_newest_of_three_sensors_become_a_text_and_json() {
    let mut run = flow(
        "[nodes.tested]\ntype = 'join'\nfrom = 'source'\nmode = 'object'\nkeep = true\nkeys = ['t', 'h', 'p']\n\
         [nodes.line]\ntype = 'template'\nfrom = 'tested'\n\
         template = '{\"climate\": [{{payload.t}}, {{payload.h}}, {{payload.p}}], \"last\": \"{{topic}}\", \"at\": \"{{time}}\"}'\n\
         [nodes.value]\ntype = 'json'\nfrom = 'line'\n\
         [nodes.sink]\ntype = 'debug'\nfrom = 'value'",
    );
    let readings = [
        ("t", 20.0.into()),
        ("h", 50.0.into()),
        ("p", 1013.25.into()),
        ("t", Value::Null),
    ];
    for (second, (topic, payload)) in (1..).zip(readings) {
        run.deliver_on(topic, ms(second * 1000), payload);
    }
    assert_eq!(
        run.sent,
        [
            r#"{"climate":[20,50,1013.25],"last":"p","at":"1970-01-01T00:00:03.000Z"}"#,
            "failed: the text is no JSON: expected value at line 1 column 14",
        ]
    );
}

#[test]
fn rows_go_their_ways_and_come_back_as_a_sorted_table() {
    let mut run = flow(
        "[nodes.tested]\ntype = 'csv'\nfrom = 'source'\n\
         [nodes.by]\ntype = 'switch'\nfrom = 'tested'\nvalue = 'payload.t'\n\
         rules = [{ gt = 8, to = 'warm' }, { is = 'null', to = 'none' }, { else = true, to = 'good' }]\n\
         [nodes.marked]\ntype = 'change'\nfrom = 'by.warm'\nrules = [{ set = 'payload.alarm', to = true }]\n\
         [nodes.back]\ntype = 'join'\nfrom = ['marked', 'by.good', 'by.none']\n\
         [nodes.sorted]\ntype = 'sort'\nfrom = 'back'\nby = 't'\norder = 'descending'\n\
         [nodes.text]\ntype = 'csv'\nfrom = 'sorted'\n\
         [nodes.sink]\ntype = 'debug'\nfrom = 'text'",
    );
    run.deliver(ms(5), "name,t\na,5\nb,9\nc,\n\"d,e\",-1\n".into());
    assert_eq!(
        run.sent,
        [Value::from("name,t,alarm\nb,9,true\na,5,\n\"d,e\",-1,\nc,,\n").to_json()]
    );
}

#[test]
fn text_of_a_sensor_becomes_the_state_of_a_thermostat() {
    let mut run = flow(
        "[nodes.tested]\ntype = 'json'\nfrom = 'source'\naction = 'parse'\n\
         [nodes.number]\ntype = 'change'\nfrom = 'tested'\nrules = [{ move = 'payload.v', to = 'payload' }]\n\
         [nodes.degc]\ntype = 'convert'\nfrom = 'number'\nunit = 'degF'\nto = 'degC'\n\
         [nodes.steady]\ntype = 'slew'\nfrom = 'degc'\nmost = 10\n\
         [nodes.state]\ntype = 'hysteresis'\nfrom = 'steady'\nabove = 5\nbelow = 3\n\
         [nodes.changes]\ntype = 'filter'\nfrom = 'state'\n\
         [nodes.fast]\ntype = 'debug'\nfrom = 'steady.fast'\n\
         [nodes.sink]\ntype = 'debug'\nfrom = 'changes'",
    );
    let texts = [
        r#"{"v":32}"#,
        r#"{"v":50}"#,
        r#"{"v":500}"#,
        r#"{"v":49}"#,
        "no",
        r#"{"v":null}"#,
        r#"{"x":1}"#,
        r#"{"v":33}"#,
    ];
    for (second, text) in (1..).zip(texts) {
        run.go_on_until(ms(second * 1000));
        run.deliver(ms(second * 1000), text.into());
    }
    assert_eq!(
        run.sent,
        [
            "false",
            "true",
            "fast: 260",
            "failed: the text is no JSON: expected ident at line 1 column 2",
            "failed: needs a finite number, but the payload is null: null",
            "failed: there is no `payload.v` to move",
            "false",
        ]
    );
}

#[test]
fn timers_one_behind_the_other_keep_the_order_and_say_when_it_is_over() {
    let mut run = flow(
        "[nodes.tested]\ntype = 'trigger'\nfrom = 'source'\nsend = true\nthen = false\nafter = '3s'\nextend = true\n\
         [nodes.pace]\ntype = 'throttle'\nfrom = 'tested'\nevery = '5s'\nmode = 'queue'\n\
         [nodes.later]\ntype = 'delay'\nfrom = 'pace'\nby = '1s'\n\
         [nodes.watch]\ntype = 'timeout'\nfrom = 'later'\nafter = '20s'\n\
         [nodes.silent]\ntype = 'debug'\nfrom = 'watch.silent'\n\
         [nodes.sink]\ntype = 'debug'\nfrom = 'later'",
    );
    for second in [1, 2, 3, 10] {
        run.go_on_until(ms(second * 1000));
        run.deliver(ms(second * 1000), 1.0.into());
    }
    let mut seen = run.sent.len();
    let mut when = Vec::new();
    for second in 11..60 {
        run.go_on_until(ms(second * 1000));
        when.extend(
            run.sent[seen..]
                .iter()
                .map(|sent| format!("{second} s: {sent}")),
        );
        seen = run.sent.len();
    }
    assert_eq!(run.sent[..2], ["true", "false"]);
    // The trigger began at 10 s and ended at 13 s; the throttle let these go on at 11 s and 16 s.
    assert_eq!(when, ["12 s: true", "17 s: false", "37 s: silent: true"]);
}
