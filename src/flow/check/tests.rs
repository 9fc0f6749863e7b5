//! The checker on small flows. Full texts as people see them are in `tests/bad-flows`.

use super::*;

fn problems(text: &str) -> Vec<String> {
    problems_with(text, &Variables::default())
}

fn problems_with(text: &str, variables: &Variables) -> Vec<String> {
    let mut report = Report::new("f.toml", text);
    let graph = check("f", variables, &mut report);
    assert_eq!(
        graph.is_none(),
        report.has_errors(),
        "a graph exists if and only if there is no error"
    );
    report
        .into_diagnostics()
        .iter()
        .map(ToString::to_string)
        .collect()
}

const TICK: &str = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\n";

fn with_tick(text: &str) -> Vec<String> {
    problems(&format!("{TICK}{text}"))
}

#[test]
fn wires_are_checked() {
    let check = |text: &str, expected: &[&str]| assert_eq!(with_tick(text), expected);
    check("[nodes.a]\ntype = 'debug'\nfrom = 'tick'", &[]);
    check("[nodes.a]\ntype = 'debug'\nfrom = 'tick.out'", &[]);
    check(
        "[nodes.a]\ntype = 'debug'\nfrom = 'tik'",
        &[
            "f.toml:1:8: warning: nothing reads node `tick` (another node can read it: from = \"tick\")",
            "f.toml:6:8: error: there is no node `tik` (did you mean `tick`?)",
        ],
    );
    check(
        "[nodes.a]\ntype = 'debug'\nfrom = 'tick.oout'",
        &[
            "f.toml:1:8: warning: nothing reads node `tick` (another node can read it: from = \"tick\")",
            "f.toml:6:8: error: node `tick` (inject) has no port `oout` (did you mean `out`?)",
        ],
    );
    check(
        "[nodes.a]\ntype = 'debug'\nfrom = 'tick'\n[nodes.b]\ntype = 'debug'\nfrom = 'a'",
        &["f.toml:9:8: error: node `a` (debug) sends nothing (read from the node before it)"],
    );
    check(
        "from = 'a'\n[nodes.a]\ntype = 'debug'",
        &[
            "f.toml:1:8: warning: nothing reads node `tick` (another node can read it: from = \"tick\")",
            "f.toml:4:8: error: node `tick` (inject) has no input (remove `from`: this node begins a flow)",
            "f.toml:4:8: error: node `a` (debug) sends nothing (read from the node before it)",
            "f.toml:5:8: error: node `a` (debug) needs an input (`from = \"NODE\"` names the node whose messages it reads)",
        ],
    );
}

#[test]
fn a_cycle_is_named() {
    let range = |name: &str, from: &str| {
        format!("[nodes.{name}]\ntype = 'range'\nin = [0, 1]\nfrom = {from}\n")
    };
    let flow = [
        range("a", "['tick', 'c']"),
        range("b", "'a'"),
        range("c", "'b'"),
        range("d", "'c'"),
    ]
    .concat();
    let found = with_tick(&format!("{flow}[nodes.e]\ntype = 'debug'\nfrom = 'd'"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("the wires make a cycle without a delay: a -> b -> c -> a"),
        "{found:?}"
    );
}

#[test]
fn types_and_names_are_checked() {
    let check = |text: &str, expected: &[&str]| assert_eq!(problems(text), expected);
    check(
        "",
        &["f.toml:1:1: error: the flow has no nodes (a node is a table: [nodes.NAME])"],
    );
    check(
        "[nodes.a]\ntype = 'injct'",
        &["f.toml:2:8: error: there is no node type `injct` (did you mean `inject`?)"],
    );
    check(
        "[node.a]\ntype = 'inject'",
        &[
            "f.toml:1:1: error: the flow has no nodes (a node is a table: [nodes.NAME])",
            "f.toml:1:2: error: a flow file has no `node` (did you mean `nodes`?)",
        ],
    );
    let upper = problems("[nodes.A]\ntype = 'inject'\nevery = '1s'");
    assert!(upper[0].contains("`A` is no name for a node"), "{upper:?}");
}

#[test]
fn one_pin_has_one_user() {
    let door = "[nodes.door]\ntype = 'gpio in'\npin = 22\n[nodes.show]\ntype = 'debug'\nfrom = ['door', 'again']\n";
    let found = problems(&format!("{door}[nodes.again]\ntype = 'gpio in'\npin = 22"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("f.toml:9:7: error: pin 22 is used by node `door` already"),
        "{found:?}"
    );
}

#[test]
fn variables_are_replaced_with_their_type() {
    let flow = "[vars]\npace = '2s'\nwarm = 5.0\n[nodes.a]\ntype = 'inject'\nevery = '${pace}'\npayload = 'at ${warm} C'\n\
                    [nodes.b]\ntype = 'hysteresis'\nabove = '${warm}'\nbelow = 1\nfrom = 'a'\n[nodes.c]\ntype = 'debug'\nfrom = 'b'";
    assert_eq!(problems(flow), [""; 0]);
    let device = |name: &str, value: Value| Variables {
        values: BTreeMap::from([(name.to_owned(), value)]),
        ..Variables::default()
    };
    let environment = |name: &str, text: &str| Variables {
        texts: BTreeMap::from([(name.to_owned(), text.to_owned())]),
        ..Variables::default()
    };
    assert_eq!(problems_with(flow, &environment("warm", "7")), [""; 0]);
    assert!(problems_with(flow, &environment("warm", "hot"))[0].contains("expected a number"));
    assert!(problems_with(flow, &environment("pace", "12"))[0].contains("is no length of time"));
    assert_eq!(
        problems_with(flow, &device("warm", Value::Number(7.0))),
        [""; 0]
    );
    assert_eq!(
        problems_with(flow, &device("warm", Value::from("hot")))[0],
        "f.toml:10:9: error: `above`: string \"hot\", expected a number (`above`: `true` once the payload is greater than this)"
    );
    let unknown = problems(&flow.replace("${pace}", "${pcae}"));
    assert!(
        unknown
            .iter()
            .any(|p| p.contains("there is no variable `pcae` (did you mean `pace`?)")),
        "{unknown:?}"
    );
    assert!(
        unknown
            .iter()
            .any(|p| p.contains("the variable `pace` is not used")),
        "{unknown:?}"
    );
}

#[test]
fn javascript_is_checked_and_keeps_its_dollars() {
    let filter = |when: &str| {
        with_tick(&format!(
            "[nodes.w]\ntype = 'where'\nfrom = 'tick'\nwhen = \"{when}\"\n[nodes.d]\ntype = 'debug'\nfrom = 'w'"
        ))
    };
    assert_eq!(filter("payload > 1"), [""; 0]);
    assert!(
        filter("payload >")[0].starts_with("f.toml:7:8: error: `when`: JavaScript:"),
        "{:?}",
        filter("payload >")
    );
    assert!(filter("payload > ${x}")[0].contains("written `vars.NAME`"));
}

#[test]
fn javascript_in_a_list_of_rules_keeps_its_dollars_and_its_neighbours_do_not() {
    let found = with_tick(
        "[vars]\nlimit = 5\nunit = 'C'\n[nodes.c]\ntype = 'change'\nfrom = 'tick'\n\
         rules = [{ set = 'payload', to_js = '`${payload} of ${vars.limit}`' }, { set = 'topic', to = 'in ${unit}' }]\n\
         [nodes.d]\ntype = 'debug'\nfrom = 'c'",
    );
    assert_eq!(found, [""; 0]);
    let found = with_tick(
        "[nodes.c]\ntype = 'change'\nfrom = 'tick'\nrules = [{ set = 'payload', to_js = '${x}' }]\n\
         [nodes.d]\ntype = 'debug'\nfrom = 'c'",
    );
    assert!(found[0].contains("written `vars.NAME`"), "{found:?}");
}

#[test]
fn slips_in_javascript_that_nobody_would_see_are_told() {
    let check = |when: &str, expected: &[&str]| {
        let found = problems(&format!(
            "[vars]\nwarm = 5\n{TICK}[nodes.w]\ntype = 'where'\nfrom = 'tick'\nwhen = '{when}'\n\
             [nodes.x]\ntype = 'where'\nfrom = 'w'\nwhen = 'payload > vars.warm'\n\
             [nodes.d]\ntype = 'debug'\nfrom = 'x'"
        ));
        let is_as_expected = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(found, words)| found.contains(words));
        assert!(is_as_expected, "{when}: {found:#?}");
    };
    check("payload > vars.warm", &[]);
    check("payload.vars.cold > 1", &[]);
    check("myvars.cold > 1", &[]);
    check(
        "payload > vars.wram",
        &["there is no variable `wram`: `vars.wram` is `undefined` (did you mean `warm`?)"],
    );
    check("payload = 5", &["`=` sets `payload` here"]);
    check("payload == 5", &[]);
    check("payload => 5", &[]);
}

#[test]
fn common_names_of_node_types_elsewhere_are_known() {
    let check = |name: &str, expected: &str| {
        let found = problems(&format!(
            "[nodes.a]\ntype = '{name}'\n[parts.clean]\nout = 'x'\n[parts.clean.nodes.x]\ntype = 'filter'\nfrom = 'in'"
        ));
        assert!(
            found.iter().any(|found| found.contains(expected)),
            "{found:?}"
        );
    };
    check("rbe", "report by exception is `filter` here");
    check("Average", "a mean over time is a `window`");
    check("subflow", "a sub-flow is a `part` here");
    check(
        "clean",
        "a part is used with type = \"part\", part = \"clean\"",
    );
    check("filtr", "did you mean `filter`?");
}

#[test]
fn broken_toml_is_reported_with_everything_else() {
    let found =
        problems("[nodes.a]\ntype = 'inject'\nevery = \n[nodes.b]\ntype = 'debgu'\nfrom = 'a'");
    assert!(
        found.iter().any(|p| p.starts_with("f.toml:3:")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|p| p.contains("did you mean `debug`?")),
        "{found:?}"
    );
}

/// A part that scales what it is given, and refuses what is no number.
const PART: &str = "[parts.scaled]\nvars = { top = 10 }\nout = { ok = 'scale', bad = 'refused' }\n\
    [parts.scaled.nodes.scale]\ntype = 'range'\nfrom = 'in'\nin = [0, 1]\nout = [0, '${top}']\n\
    [parts.scaled.nodes.refused]\ntype = 'catch'\n";

#[test]
fn a_part_is_used_several_times_with_its_own_parameters() {
    use crate::message::Timestamp;
    use crate::nodes::testing::Run;
    let flow = format!(
        "{PART}[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
         [nodes.tested]\ntype = 'where'\nfrom = 'source'\nwhen = 'true'\n\
         [nodes.a]\ntype = 'part'\npart = 'scaled'\nfrom = 'tested'\n\
         [nodes.b]\ntype = 'part'\npart = 'scaled'\nfrom = 'tested'\nwith = {{ top = 100 }}\n\
         [nodes.from-a]\ntype = 'debug'\nfrom = 'a'\n[nodes.from-b]\ntype = 'debug'\nfrom = 'b.ok'\n\
         [nodes.bad]\ntype = 'debug'\nfrom = 'b.bad'\n"
    );
    assert_eq!(problems(&flow), [""; 0]);
    let mut run = Run::flow(&flow);
    run.deliver(Timestamp::default(), 0.5.into());
    assert_eq!(run.sent, ["from-a: 5", "from-b: 50"]);
    run.sent.clear();
    // Each part's `catch` hears of its own nodes only.
    run.deliver(Timestamp::default(), "x".into());
    assert_eq!(run.sent.len(), 3, "{:?}", run.sent);
    assert_eq!(run.sent[2], "bad: \"x\"");
    let headers = run.messages[2].headers.as_ref().expect("the reason");
    assert_eq!(headers["error"].get("node"), Some(&Value::from("b/scale")));
}

#[test]
fn javascript_in_a_part_sees_its_parameters_before_the_flows_variables() {
    use crate::message::Timestamp;
    use crate::nodes::testing::Run;
    let flow = "[vars]\nunit = 'C'\ntop = 1\n\
        [parts.p]\nvars = { top = 10 }\nout = 'f'\n\
        [parts.p.nodes.f]\ntype = 'function'\nfrom = 'in'\ncode = 'return { payload: vars.top + vars.unit }'\n\
        [nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
        [nodes.tested]\ntype = 'filter'\nfrom = 'source'\n\
        [nodes.a]\ntype = 'part'\npart = 'p'\nfrom = 'tested'\n\
        [nodes.b]\ntype = 'part'\npart = 'p'\nfrom = 'tested'\nwith = { top = 20 }\n\
        [nodes.c]\ntype = 'function'\nfrom = 'tested'\ncode = 'return { payload: vars.top }'\n\
        [nodes.sink]\ntype = 'debug'\nfrom = ['a', 'b', 'c']\n";
    assert_eq!(problems(flow), [""; 0]);
    let mut run = Run::flow(flow);
    run.deliver(Timestamp::default(), 0.5.into());
    assert_eq!(run.sent, ["\"10C\"", "\"20C\"", "1"]);
}

#[test]
fn parts_may_use_parts_and_what_comes_out_is_found_through_both() {
    let outer = "[parts.twice]\nout = 'second'\n\
        [parts.twice.nodes.first]\ntype = 'part'\npart = 'scaled'\nfrom = 'in'\n\
        [parts.twice.nodes.second]\ntype = 'part'\npart = 'scaled'\nfrom = 'first'\n";
    let flow = format!(
        "{PART}{outer}{TICK}[nodes.use]\ntype = 'part'\npart = 'twice'\nfrom = 'tick'\n\
         [nodes.show]\ntype = 'debug'\nfrom = 'use'"
    );
    let graph = crate::nodes::testing::graph(&flow);
    let names: Vec<&str> = graph.nodes().iter().map(|node| &*node.name).collect();
    assert_eq!(
        names,
        [
            "tick",
            "use/first/scale",
            "use/first/refused",
            "use/second/scale",
            "use/second/refused",
            "show"
        ]
    );
    let show = &graph.nodes()[5].inputs;
    assert_eq!(show, &[("use".to_owned(), NodeId(3))]);
}

#[test]
fn what_is_wrong_with_parts_is_said_once() {
    let check = |text: &str, expected: &str| {
        let found = problems(text);
        let hits = found.iter().filter(|found| found.contains(expected));
        assert_eq!(hits.count(), 1, "{expected}: {found:#?}");
    };
    let used = |options: &str| {
        format!(
            "{PART}{TICK}[nodes.a]\ntype = 'part'\n{options}\n[nodes.show]\ntype = 'debug'\nfrom = 'a'"
        )
    };
    check(&used("part = 'scaled'"), "needs an input");
    check(&used("from = 'tick'"), "node `a` (part) needs `part`");
    check(
        &used("from = 'tick'\npart = 'scald'"),
        "there is no part `scald` (did you mean `scaled`?)",
    );
    check(
        &used("from = 'tick'\npart = 'scaled'\nwith = { topp = 1 }"),
        "has no parameter `topp` (did you mean `top`?)",
    );
    check(
        &used("from = 'tick'\npart = 'scaled'\ntop = 1"),
        "node `a` (part) has no option `top`",
    );
    check(
        &used("from = 'tick'\npart = 'scaled'").replace("'a'", "'a.better'"),
        "the part `scaled` has no port `better` (it has `ok`, `bad`)",
    );
    // Wrong inside of a part that is used twice: one message.
    check(
        &format!(
            "{}\n[nodes.b]\ntype = 'part'\npart = 'scaled'\nfrom = 'tick'",
            used("from = 'tick'\npart = 'scaled'").replace("in = [0, 1]", "in = [1, 1]")
        ),
        "`in`: the two ends must differ",
    );
    check(&format!("{PART}{TICK}"), "nothing uses the part `scaled`");
    check(
        &used("from = 'tick'\npart = 'scaled'").replace("'${top}'", "10"),
        "the parameter `top` is not used",
    );
    check(
        &used("from = 'tick'\npart = 'scaled'").replace("from = 'in'", "from = 'inn'"),
        "there is no node `inn`",
    );
    check(
        &used("from = 'tick'\npart = 'self'").replace(
            PART,
            "[parts.self]\nout = 'x'\n[parts.self.nodes.x]\ntype = 'part'\npart = 'self'\nfrom = 'in'\n",
        ),
        "the part `self` would contain itself",
    );
    check(
        &used("from = 'tick'\npart = 'scaled'").replace("'scale',", "'in',"),
        "a part cannot hand out what it is given",
    );
}

#[test]
fn watched_nodes_must_be_known() {
    let found = with_tick(
        "[nodes.c]\ntype = 'catch'\nnodes = ['tik']\n[nodes.d]\ntype = 'debug'\nfrom = ['c', 'tick']",
    );
    assert_eq!(
        found,
        ["f.toml:6:10: error: there is no node `tik` (did you mean `tick`?)"]
    );
}

#[test]
fn ports_of_one_node_can_be_named_together_and_several_nodes_cannot() {
    let lift = "[nodes.up]\ntype = 'inject'\nevery = '1s'\n\
        [nodes.lift]\ntype = 'interlock'\nfrom = ['tick', 'up']\ninputs = ['tick', 'up']\n\
        [nodes.show]\ntype = 'debug'\nfrom = 'moved'\n";
    let latch = "[nodes.moved]\ntype = 'latch'\nset = 'lift'\nreset = 'tick'\n\
        from = ['lift.tick', 'lift.up', 'tick']\n";
    assert_eq!(with_tick(&format!("{lift}{latch}")), [""; 0]);
    let found = with_tick(&format!(
        "{PART}[nodes.lift]\ntype = 'part'\npart = 'scaled'\nfrom = 'tick'\n{}\
         [nodes.show]\ntype = 'debug'\nfrom = 'moved'\n",
        latch
            .replace("lift.tick", "lift.ok")
            .replace("lift.up", "lift.bad")
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("`set`: `lift` stands for several nodes here (read them through"),
        "{found:?}"
    );
}

#[test]
fn a_default_of_a_part_means_the_flows_variables_wherever_it_is_used() {
    use crate::message::Timestamp;
    use crate::nodes::testing::Run;
    // Both parts have a `top`; the inner one's default is the flow's.
    let flow = "[vars]\ntop = 10\n\
        [parts.inner]\nvars = { top = '${top}' }\nout = 'scale'\n\
        [parts.inner.nodes.scale]\ntype = 'range'\nfrom = 'in'\nin = [0, 1]\nout = [0, '${top}']\n\
        [parts.outer]\nvars = { top = 500 }\nout = { plain = 'plain', given = 'given' }\n\
        [parts.outer.nodes.plain]\ntype = 'part'\npart = 'inner'\nfrom = 'in'\n\
        [parts.outer.nodes.given]\ntype = 'part'\npart = 'inner'\nfrom = 'in'\nwith = { top = '${top}' }\n\
        [nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
        [nodes.tested]\ntype = 'where'\nfrom = 'source'\nwhen = 'true'\n\
        [nodes.use]\ntype = 'part'\npart = 'outer'\nfrom = 'tested'\n\
        [nodes.sink]\ntype = 'debug'\nfrom = ['use.plain', 'use.given']";
    assert_eq!(problems(flow), [""; 0]);
    let mut run = Run::flow(flow);
    run.deliver(Timestamp::default(), 1.0.into());
    assert_eq!(run.sent, ["10", "500"]);
}

#[test]
fn variables_that_javascript_takes_apart_are_used() {
    let function = |code: &str| {
        with_tick(&format!(
            "[vars]\nwarm = 5\n[nodes.f]\ntype = 'function'\nfrom = 'tick'\ncode = \"{code}\"\n\
             [nodes.d]\ntype = 'debug'\nfrom = 'f'"
        ))
    };
    assert_eq!(function("const { warm } = vars; return warm"), [""; 0]);
    assert_eq!(function("return { payload: vars.warm }"), [""; 0]);
    let unused = function("return msg");
    assert!(
        unused[0].contains("the variable `warm` is not used"),
        "{unused:?}"
    );
}
