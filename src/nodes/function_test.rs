//! Tests of `function`.

use std::time::Duration;

use crate::message::{Object, Timestamp, Value};
use crate::nodes::testing::{Run, node_problems, run_node_json};

fn options(code: &str) -> String {
    format!("type = 'function'\ncode = '''\n{code}\n'''")
}

/// What a function sends for payloads, failures too.
fn check(code: &str, payloads: &str, expected: &[&str]) {
    assert_eq!(run_node_json(&options(code), payloads), expected, "{code}");
}

fn check_one(code: &str, payload: &str, expected: &str) {
    check(code, &format!("[{payload}]"), &[expected]);
}

#[test]
fn what_it_returns_is_sent() {
    check("msg.payload *= 2; return msg;", "[1, 2.5]", &["2", "5"]);
    check(
        "return { payload: [msg.payload, null] };",
        "[1]",
        &["[1,null]"],
    );
    check("if (msg.payload > 1) return msg;", "[1, 2]", &["2"]);
    check("return null;", "[1]", &[]);
    check("return undefined;", "[1]", &[]);
    check("return [];", "[1]", &[]);
    check("return [null];", "[1]", &[]);
    check("return [msg];", "[1]", &["1"]);
    check(
        "return [[{ payload: 1 }, null, { payload: 2 }]];",
        "[0]",
        &["1", "2"],
    );
    check("", "[1]", &[]);
    check("// only a comment", "[1]", &[]);
}

#[test]
fn outputs_get_their_entries() {
    let run = |outputs: &str, ports: &[&str], code: &str| {
        let options = format!("outputs = {outputs}\n{}", options(code));
        let mut run = Run::with_ports(ports, &options);
        run.deliver(Timestamp::default(), 1.0.into());
        run.sent
    };
    const SPLIT: &str = "return [{ payload: 'a' }, [{ payload: 'b' }, { payload: 'c' }]];";
    assert_eq!(
        run("2", &["1", "2"], SPLIT),
        [r#"1: "a""#, r#"2: "b""#, r#"2: "c""#]
    );
    assert_eq!(
        run("['low', 'high']", &["low", "high"], SPLIT),
        [r#"low: "a""#, r#"high: "b""#, r#"high: "c""#]
    );
    assert_eq!(run("3", &["1", "2", "3"], "return [null, msg];"), ["2: 1"]);
    assert_eq!(run("2", &["1", "2"], "return msg;"), ["1: 1"]);
    assert_eq!(
        run("2", &["1", "2"], "return [msg, null, msg];"),
        [
            "failed: JavaScript returned a list of 3, but the node has 2 outputs: a list has one entry for each output; \
             several messages out of one are a list in it: `return [[first, second]]`"
        ]
    );
    assert_eq!(
        run("2", &["1", "2"], "return [msg, 5];"),
        [
            "failed: JavaScript returned a number, which is no message: a message is written `{ payload: ... }`, or \
             `msg.payload = ...; return msg;`"
        ],
        "nothing is sent where one entry is wrong"
    );
}

#[test]
fn a_message_takes_what_it_lacks_from_the_one_that_came() {
    let deliver = |code: &str| {
        let mut run = Run::new(&options(code));
        run.deliver_whole(crate::message::Message {
            topic: "hall/1".into(),
            payload: 7.0.into(),
            time: Timestamp::from_nanos(1_500_000_001),
            source: crate::message::NodeId(0),
            headers: Some(Object::from_iter([("unit".into(), Value::from("K"))]).into()),
        });
        assert_eq!(run.messages.len(), 1, "{code}: {:?}", run.sent);
        let message = run.messages.remove(0);
        let headers = message.headers.map_or(Value::Null, Value::Object).to_json();
        let topic = message.topic.to_string();
        (
            message.payload.to_json(),
            topic,
            message.time.as_nanos(),
            headers,
        )
    };
    let check = |code: &str, payload: &str, topic: &str, nanos: i64, headers: &str| {
        let expected = (
            payload.to_owned(),
            topic.to_owned(),
            nanos,
            headers.to_owned(),
        );
        assert_eq!(deliver(code), expected, "{code}");
    };
    const UNIT: &str = r#"{"unit":"K"}"#;
    check("return msg;", "7", "hall/1", 1_500_000_001, UNIT);
    check("return { payload: 1 };", "1", "hall/1", 1_500_000_001, UNIT);
    check(
        "return { ...msg, topic: msg.topic + '/x', time: 2500 };",
        "7",
        "hall/1/x",
        2_500_000_000,
        UNIT,
    );
    check(
        "msg.headers.n = 1; delete msg.topic; return msg;",
        "7",
        "hall/1",
        1_500_000_001,
        r#"{"unit":"K","n":1}"#,
    );
    check(
        "msg.headers = null; return msg;",
        "7",
        "hall/1",
        1_500_000_001,
        "null",
    );
    check(
        "return { payload: [msg.topic, msg.time, msg.source, msg.headers.unit] };",
        r#"["hall/1",1500.000001,"source","K"]"#,
        "hall/1",
        1_500_000_001,
        UNIT,
    );
    check(
        "return { payload: Object.keys(msg).map(key => typeof msg[key]) };",
        r#"["object","string","number","string","object"]"#
            .replace(
                "object\",\"string\",\"number",
                "number\",\"string\",\"number",
            )
            .as_str(),
        "hall/1",
        1_500_000_001,
        UNIT,
    );
    check(
        "const { topic } = msg; return { payload: topic };",
        r#""hall/1""#,
        "hall/1",
        1_500_000_001,
        UNIT,
    );
}

#[test]
fn what_is_no_message_fails_with_what_to_write() {
    let returned = |what: &str| {
        format!(
            "failed: JavaScript returned {what}: a message is written `{{ payload: ... }}`, or `msg.payload = ...; return msg;`"
        )
    };
    let check = |code: &str, what: &str| check_one(code, "1", &returned(what));
    check("return 5;", "a number, which is no message");
    check("return 'x';", "text, which is no message");
    check("return true;", "a boolean, which is no message");
    check("return Symbol('x');", "a symbol, which is no message");
    check("return () => msg;", "a function, which is no message");
    check("return {};", "an object without a payload");
    check(
        "delete msg.payload; return msg;",
        "an object without a payload",
    );
    check("return [[[msg]]];", "a list, which is no message");

    let check =
        |code: &str, expected: &str| check_one(code, "1", &format!("failed: JavaScript{expected}"));
    check(
        "return { payload: 1, topic: 5 };",
        " returned a message whose topic is a number; it is text",
    );
    check(
        "return { payload: 1, topic: null };",
        " returned a message whose topic is null; it is text",
    );
    check(
        "return { payload: 1, time: new Date() };",
        " returned a message whose time is an object; it is a number of milliseconds since 1970, as `Date.now()` has it",
    );
    for time in ["NaN", "Infinity", "1e300", "-1e13"] {
        let shown: f64 = match time {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            other => other.parse().expect("a number"),
        };
        check(
            &format!("return {{ payload: 1, time: {time} }};"),
            &format!(
                " returned a message whose time is {shown}; it is in milliseconds since 1970, as `Date.now()` has it"
            ),
        );
    }
    check(
        "return { payload: 1, headers: [1] };",
        " returned a message whose headers are a list; they are an object",
    );
    check(
        "return { payload: () => 1 };",
        " gave back a function, which cannot be a payload",
    );
    check(
        "return { payload: Symbol('x') };",
        " gave back a symbol, which cannot be a payload",
    );
    check(
        "return { payload: new Map() };",
        " gave back a Map, which cannot be a payload",
    );
    check(
        "const a = []; a.push(a); return { payload: a };",
        " gave back something nested more than 64 deep, which cannot be a payload",
    );
    check(
        "return { get payload() { throw new Error('no'); } };",
        ", line 1, column 36: no",
    );
    check(
        "return import('x');",
        " returned a Promise: a function answers at once; there is nothing to wait for",
    );
    check(
        "(async () => { await 1; while (true); })(); return msg;",
        " left something for later (by `async`, `await` or `import`), which is not done: there is nothing to wait for",
    );
    check(
        "import('x'); return msg;",
        " left something for later (by `async`, `await` or `import`), which is not done: there is nothing to wait for",
    );
    check(
        "return (async () => msg)();",
        " returned a Promise: a function answers at once; there is nothing to wait for",
    );
    check(
        "const all = []; for (let i = 0; i < 200; i++) all.push({ payload: new Array(1000).fill(0) }); return [all];",
        " gave back more than 100000 values, which cannot be a payload",
    );
}

#[test]
fn failures_say_the_line_and_the_next_message_works() {
    check(
        "const limit = 5;\nif (msg.payload > limit)\n  throw new Error('too warm');\nreturn msg;",
        "[9, 4]",
        &["failed: JavaScript, line 3, column 13: too warm", "4"],
    );
    check(
        "return {\n  payload: [msg.payload].map(p =>\n    p.value.deep) };",
        r#"[1, {"value": {"deep": 2}}]"#,
        &[
            "failed: JavaScript, line 3, column 5: cannot read property 'deep' of undefined",
            "[2]",
        ],
    );
    check(
        "throw 'plain words';",
        "[1]",
        &["failed: JavaScript: plain words"],
    );
    check(
        "if (msg.payload) while (true);\nreturn msg;",
        "[1, 0]",
        &[
            "failed: JavaScript ran for too long (a limit of about five million steps) and was stopped",
            "0",
        ],
    );
    check(
        "try { while (msg.payload); } catch (error) { return { payload: 'caught' }; }\nreturn msg;",
        "[1, 0]",
        &[
            "failed: JavaScript ran for too long (a limit of about five million steps) and was stopped",
            "0",
        ],
    );
    check(
        "const f = () => f();\nif (msg.payload) f();\nreturn msg;",
        "[1, 0]",
        &[
            "failed: JavaScript, line 1, column 17: Maximum call stack size exceeded",
            "0",
        ],
    );
    check(
        "if (msg.payload) /(x+)+y/.test('x'.repeat(1000));\nreturn msg;",
        "[1, 0]",
        &[
            "failed: JavaScript ran for too long (a limit of about five million steps) and was stopped",
            "0",
        ],
    );
    check(
        "if (msg.payload) JSON.parse('['.repeat(60000));\nreturn msg;",
        "[1, 0]",
        &[
            "failed: JavaScript, line 1, column 33: Maximum call stack size exceeded",
            "0",
        ],
    );
}

#[test]
fn names_of_node_red_are_answered_with_what_to_use() {
    let check = |code: &str, expected: &str| {
        check_one(
            code,
            "1",
            &format!("failed: JavaScript, line 1, column {expected}"),
        );
    };
    check(
        "context.set('n', 1);",
        "1: there is no `context` here: use `state`, which is kept between messages",
    );
    check(
        "node.send(msg);",
        "1: there is no `node` here: `return` what is to be sent; `throw new Error(\"...\")` makes the message fail",
    );
    check(
        "setTimeout(() => 1, 10);",
        "1: there is no `setTimeout` here: use a `delay` node",
    );
    check("count = 1;", "1: count is not defined");
}

#[test]
fn state_is_kept() {
    check(
        "state.n = (state.n ?? 0) + 1; return { payload: state.n };",
        "[0, 0, 0]",
        &["1", "2", "3"],
    );
    let code = "state.sum += msg.payload; return { payload: state };";
    let options = format!("state = {{ sum = 10, unit = 'K' }}\n{}", options(code));
    assert_eq!(
        run_node_json(&options, "[1, 2]"),
        [r#"{"sum":11,"unit":"K"}"#, r#"{"sum":13,"unit":"K"}"#]
    );
    check(
        "state = { last: msg.payload, before: state.last ?? null }; return { payload: state };",
        "[1, 2]",
        &[r#"{"last":1,"before":null}"#, r#"{"last":2,"before":1}"#],
    );
    check(
        "state.n = (state.n ?? 0) + 1; if (state.n === 2) throw new Error('two'); return { payload: state.n };",
        "[0, 0, 0]",
        &["1", "failed: JavaScript, line 1, column 60: two", "3"],
    );
}

#[test]
fn each_node_has_its_own_state_and_none_changes_what_they_share() {
    let mut run = Run::flow(
        "[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
         [nodes.tested]\ntype = 'function'\nfrom = 'source'\n\
         code = 'state.n = 1; msg.payload.push(9); try { Array.prototype.push = null; } catch {} return msg;'\n\
         [nodes.other]\ntype = 'function'\nfrom = 'tested'\n\
         code = 'msg.payload.push(state.n === undefined); return msg;'\n\
         [nodes.sink]\ntype = 'debug'\nfrom = ['other', 'tested']",
    );
    run.deliver(
        Timestamp::default(),
        serde_json::from_str("[1]").expect("JSON"),
    );
    run.sent.sort();
    assert_eq!(run.sent, ["[1,9,true]", "[1,9]"]);
}

#[test]
fn a_state_that_takes_the_memory_begins_anew() {
    const HOG: &str = "state.n = (state.n ?? 0) + 1;\nwhile (msg.payload === 'hog') (state.all ??= []).push([1, 2, 3]);\nreturn { payload: state.n };";
    check(
        HOG,
        r#"[0, 0, "hog", 0, 0]"#,
        &[
            "1",
            "2",
            "failed: JavaScript used more than its 16 MiB of memory, which the scripts of a flow share, and was stopped; \
             what is in `state` took most of it, so `state` is as at the start again",
            "1",
            "2",
        ],
    );
    check(
        "state.n = (state.n ?? 0) + 1;\nconst all = [];\nwhile (msg.payload === 'hog') all.push([1, 2, 3]);\nreturn { payload: state.n };",
        r#"[0, "hog", 0]"#,
        &[
            "1",
            "failed: JavaScript used more than its 16 MiB of memory, which the scripts of a flow share, and was stopped",
            "3",
        ],
    );
}

#[test]
fn a_state_that_cannot_be_read_begins_anew_at_a_restart_and_says_so() {
    let check = |code: &str, expected: &[&str]| {
        let code = format!("state.n = (state.n ?? 0) + 1;\n{code}\nreturn {{ payload: state.n }};");
        let mut run = Run::new(&options(&code));
        run.deliver(Timestamp::default(), 1.0.into());
        run.restart(Duration::ZERO);
        run.deliver(Timestamp::default(), 0.0.into());
        assert_eq!(run.sent, expected, "{code}");
    };
    check("", &["1", "2"]);
    check(
        "let text = 'x';\nwhile (msg.payload) { text += text; state.text = [text, text]; }",
        &[
            "failed: JavaScript, line 3, column 31: string too long",
            "failed: `state` is as at the first start again: JavaScript used more than its 16 MiB of memory, which the scripts \
             of a flow share, and was stopped",
            "1",
        ],
    );
    check(
        "if (msg.payload) state.many = new Array(100_000).fill(0);",
        &[
            "1",
            "failed: `state` is as at the first start again: `state` has more than 100000 values, which cannot be kept",
            "1",
        ],
    );
    check(
        "if (msg.payload) state.next = () => 7;",
        &[
            "1",
            "failed: `state` is as at the first start again: `state` has a function, which cannot be kept",
            "1",
        ],
    );
    check(
        "if (msg.payload) Object.defineProperty(state, 'odd', { enumerable: true, get() { for (;;); } });",
        &[
            "1",
            "failed: `state` is as at the first start again: JavaScript ran for too long (a limit of about five million \
             steps) and was stopped",
            "1",
        ],
    );
}

#[test]
fn state_outlasts_a_restart_as_json() {
    let mut run = Run::new(&options(
        "state.seen = [...(state.seen ?? []), typeof state.at];\nstate.at ??= new Date(7);\nreturn { payload: state };",
    ));
    run.deliver(Timestamp::default(), 0.0.into());
    run.restart(Duration::from_secs(1));
    run.deliver(Timestamp::default(), 0.0.into());
    assert_eq!(
        run.sent,
        [
            r#"{"seen":["undefined"],"at":"1970-01-01T00:00:00.007Z"}"#,
            r#"{"seen":["undefined","string"],"at":"1970-01-01T00:00:00.007Z"}"#
        ]
    );
}

#[test]
fn the_time_is_the_engines() {
    let mut run = Run::new(&options(
        "return { payload: [Date.now(), new Date().getTime(), new Date(msg.time).toISOString(), new Date(2020, 0).getFullYear(), typeof Date(), new Date() instanceof Date, Date.UTC(1970, 0)] };",
    ));
    run.go_on_until(Timestamp::from_nanos(86_400_000_000_001));
    run.deliver(Timestamp::from_millis(1_500), 0.0.into());
    assert_eq!(
        run.sent,
        [r#"[86400000,86400000,"1970-01-01T00:00:01.500Z",2020,"string",true,0]"#]
    );
}

#[test]
fn odd_payloads_come_through() {
    let payloads = [
        Value::Null,
        Value::from(1e308),
        Value::from("\u{0}\u{10ffff}"),
        Value::object([
            ("__proto__", Value::from(1.0)),
            ("constructor", Value::from(2.0)),
        ]),
    ];
    let sent = crate::nodes::testing::run_node(&options("return msg;"), payloads);
    assert_eq!(
        sent,
        [
            "null",
            "1e+308",
            "\"\\u0000\u{10ffff}\"",
            r#"{"__proto__":1,"constructor":2}"#
        ]
    );
}

#[test]
fn what_is_no_number_is_not_sent() {
    let check = |code: &str, number: &str| {
        let expected = format!("failed: JavaScript gave back {number}, which cannot be a payload");
        check_one(code, "1e308", &expected);
    };
    check("msg.payload *= 10; return msg;", "Infinity");
    check("return { payload: -msg.payload * 10 };", "-Infinity");
    check("return { payload: msg.payload.value * 2 };", "NaN");
    check("return { payload: { mean: [0 / 0] } };", "NaN");
}

#[test]
fn what_is_wrong_is_found_before_it_runs() {
    let check = |options: &str, expected: &[&str]| {
        let found = node_problems(&format!("type = 'function'\n{options}"));
        let found: Vec<&str> = found
            .iter()
            .map(|problem| problem.split(" (`code`").next().unwrap_or_default())
            .collect();
        assert_eq!(found, expected, "{options}");
    };
    check("code = 'return msg;'", &[]);
    check("code = 'return msg;'\noutputs = 64\nstate = {}", &[]);
    check(
        "code = '''\nreturn msg.payload +;\n'''",
        &[
            "test.toml:7:8: error: `code`: JavaScript, line 1, column 21: unexpected token in expression: ';'",
        ],
    );
    for escape in [
        "return msg; } globalThis.x = 1; function f() {",
        "}, evil, async function () {",
        "return 1; }, function () { return 2",
        "} } ; ({ f(msg) {",
    ] {
        let found = node_problems(&format!("type = 'function'\ncode = '{escape}'"));
        assert_eq!(found.len(), 1, "{escape}: {found:?}");
        assert!(found[0].contains("error: `code`: JavaScript"), "{found:?}");
    }
    check(
        "code = 'return msg; } evil(); function f() {'",
        &[
            "test.toml:7:8: error: `code`: JavaScript, line 1, column 15: a brace or parenthesis is closed that was not opened",
        ],
    );
    const FORM: &str =
        "outputs are a whole number from 1, or a list of names such as [\"good\", \"bad\"]";
    for outputs in ["0", "1.5", "-1", "'x'", "[1]"] {
        let found = node_problems(&format!(
            "type = 'function'\ncode = ''\noutputs = {outputs}"
        ));
        assert_eq!(found.len(), 1, "{outputs}: {found:?}");
        assert!(found[0].contains(FORM), "{found:?}");
    }
    for outputs in ["65", "1e300", "[]"] {
        let found = node_problems(&format!(
            "type = 'function'\ncode = ''\noutputs = {outputs}"
        ));
        assert_eq!(found.len(), 1, "{outputs}: {found:?}");
        assert!(
            found[0].ends_with("`outputs`: a node has from 1 to 64 outputs"),
            "{found:?}"
        );
    }
    check(
        "code = ''\noutputs = ['a', 'B', 'a']",
        &[
            "test.toml:8:17: error: `outputs.1`: `B` is no name for an output: lower-case letters, digits, `_` and `-`",
            "test.toml:8:22: error: `outputs.2`: `a` is named twice",
        ],
    );
    check(
        "code = ''\nstate = 5",
        &["test.toml:8:9: error: `state`: must be a table, such as { count = 0 }, but is a number"],
    );
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    let check = |code: &str, expected: &[&str]| {
        let found = node_problems(&options(code));
        let expected: Vec<String> = expected
            .iter()
            .map(|warning| format!("test.toml:7:8: warning: `code`: {warning}"))
            .collect();
        assert_eq!(found, expected, "{code}");
    };
    check(
        "const n = context.get('n'); console.log(n); require('fs');",
        &[
            "there is no `context` here: use `state`, which is kept between messages",
            "there is no `console` here: send what you want to see to a `debug` node",
            "there is no `require` here: there are no modules",
        ],
    );
    check(
        "msg.count = 1; return msg;",
        &[
            "a message has no field `count`, and does not carry one on; `msg.headers.count` goes with it",
        ],
    );
    for harmless in [
        "const flow = { rate: 1 }; return { payload: flow.rate };",
        "return { payload: msg.payload.flow.rate + msg.payload.context.x };",
        "// the flow (in l/min) of the node\nreturn msg;",
        "const [node] = [{ id: 1 }]; return { payload: 'flow' };",
        "function process(x) { return x; } return { payload: process(msg.payload) };",
        "return { payload: [{ value: 1 }].map(msg => msg.value) };",
    ] {
        check(harmless, &[]);
    }
}
