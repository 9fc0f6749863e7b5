//! Runs what `fuzz/` fuzzes over seeds, and over seeds with some bytes changed.

use std::collections::HashSet;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};

use super::*;
use crate::examples::FLOWS;

/// A target's name, what it does, and what it begins with.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    /// How many changed seeds the test tries.
    changed: u64,
}

const TARGETS: [Target; 5] = [
    Target {
        name: "flow_parser",
        run: flow_parser,
        seeds: flows,
        changed: 400,
    },
    Target {
        name: "checker",
        run: checker,
        seeds: flows,
        changed: 300,
    },
    Target {
        name: "nodes",
        run: nodes,
        seeds: runs,
        changed: 400,
    },
    Target {
        name: "javascript",
        run: javascript,
        seeds: scripts,
        changed: 60,
    },
    Target {
        name: "mqtt",
        run: mqtt,
        seeds: packets,
        changed: 20_000,
    },
];

/// Flow files: the examples, and some that are wrong.
fn flows() -> Vec<Vec<u8>> {
    const WRONG: [&str; 6] = [
        "",
        "[nodes.tick\ntype = 'inject'\n",
        "nodes = 1\nvars = []\ndescription = 2\nnode.a = {}",
        "[vars]\npace = '1s'\n2 = [1]\n[nodes.tick]\ntype = 'inject'\nevery = '${pase}x${'\npayload = '${pace}'",
        "[nodes.a]\ntype = 'where'\nfrom = ['b', 'b', 'c.d', 5]\nwhen = 'true'\n[nodes.b]\ntype = 'where'\nfrom = 'a.x'\nwhen = '}'",
        "[nodes.w]\ntype = 'window'\nfrom = []\nsize = '1 fortnight'\ncompute = ['median', 'mean', 'mean']\nlateness = 1e999",
    ];
    let examples = node_types().map(|node_type| node_type.example);
    let texts = examples.chain(FLOWS.iter().map(|(_, text)| *text));
    let texts = texts.chain(WRONG);
    texts.map(|text| text.as_bytes().to_vec()).collect()
}

/// For each node type one as in its example, and some with changed options, with messages.
fn runs() -> Vec<Vec<u8>> {
    let types = u8::try_from(node_types().count()).expect("fewer than 256 node types");
    let runs = (0..types).zip(node_types()).flat_map(|(place, node_type)| {
        let bases = 0..u8::try_from(bases(node_type).len()).expect("fewer than 256");
        bases.flat_map(move |base| (0..4).map(move |changes| [place, base, changes]))
    });
    let run = |beginning: [u8; 3]| {
        let seed = beginning
            .iter()
            .fold(1, |seed, byte| seed << 8 | u64::from(*byte));
        let mut random = Random(seed);
        let mut bytes = beginning.to_vec();
        bytes.extend((0..400).map(|_| random.next() as u8));
        bytes
    };
    runs.map(run).collect()
}

fn scripts() -> Vec<Vec<u8>> {
    const SCRIPTS: [&str; 14] = [
        "payload > 1 && topic.startsWith('a') ? [payload, { time, headers }] : vars.limit",
        "Object.entries(msg).map(([key, value]) => ({ key, value }))",
        "`${payload}`.replace(/[0-9]+/g, x => x * 2).split('').reverse().join('')",
        "[...new Set([1, 2, 3])].flatMap(x => [x, [x]]).flat(2).sort((a, b) => b - a)",
        "new Date(time).toISOString() + JSON.stringify(payload) + Math.max(...[1, 2])",
        "(() => { try { null.x } catch (e) { return e.stack } })()",
        "({ get a() { return this }, set a(x) {}, [Symbol.toPrimitive]() { return 1 } }) + 1",
        "(() => { const a = []; while (true) a.push('x'.repeat(1000)); })()",
        "return msg;",
        "state.n += msg.payload; state.all = (state.all ?? []).concat(msg); return { payload: state };",
        "if (Date.now() > 5) return [[msg, { payload: 1, topic: 'x', time: 1e12 }], null];\nthrow new Error('no');",
        "msg.headers.n = 1; delete msg.topic; msg.payload = new Array(5); return [msg, msg];",
        "class A extends Array { get length() { return 2 ** 40 } } return { payload: new A(3) };",
        "let s = 'x'; for (;;) { s += s; state.s = s; }",
    ];
    let modes = [0, 1_u8].into_iter();
    let scripts = modes.flat_map(|mode| SCRIPTS.iter().map(move |script| (mode, script)));
    let script = |(mode, script): (u8, &&str)| {
        // One message: topic, payload (a number), time, headers, source.
        let mut bytes = vec![mode, 1, 0, 0, 15, 40, 7, 0, 0];
        bytes.extend(script.as_bytes());
        bytes
    };
    scripts.map(script).collect()
}

fn packets() -> Vec<Vec<u8>> {
    const PACKETS: [&[u8]; 9] = [
        b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03abc",
        b"\x10\x1c\x00\x04MQTT\x04\xc6\x00\x3c\x00\x01a\x00\x01w\x00\x01x\x00\x01u\x00\x02pw\xc0\x00",
        b"\x30\x05\x00\x03a/b",
        b"\x32\x08\x00\x03a/b\x00\x01x\xc0\x00\xe0\x00",
        b"\x82\x0d\x00\x01\x00\x03a/+\x01\x00\x02#\x00",
        b"\xa2\x05\x00\x01\x00\x01#",
        b"\x40\x02\x00\x07\x62\x02\x00\x07",
        b"mqtts://broker.example:8883",
        b"mqtt://[2001:db8::1]:1883/",
    ];
    PACKETS.iter().map(|packet| packet.to_vec()).collect()
}

/// A generator of test bytes that gives the same ones for the same seed (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit.max(1)
    }
}

/// A seed with some of its bytes changed, left out, doubled, or followed by another seed's.
fn mutated(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = Random((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let place = random.below(bytes.len() + 1);
        let end = (place + random.below(12)).min(bytes.len());
        match random.below(4) {
            0 => bytes[place..end].fill(random.next() as u8),
            1 => drop(bytes.drain(place..end)),
            2 => bytes.extend_from_within(place..end),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                bytes.truncate(place);
                bytes.extend(&other[random.below(other.len())..]);
            }
        }
    }
    bytes
}

/// How long one input may take, on a slow machine with other work.
const LONGEST: Duration = Duration::from_secs(120);

/// Another thread does the work, so that an input on which it hangs can be named.
fn check_target(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("there is such a target");
    let (begins, next) = mpsc::channel();
    let work = std::thread::spawn(move || {
        let seeds = (target.seeds)();
        let changed = (0..target.changed).map(|number| mutated(&seeds, number));
        for input in seeds.iter().cloned().chain(changed) {
            if begins.send(input.clone()).is_err() {
                return;
            }
            (target.run)(&input);
        }
    });
    let mut current = Vec::new();
    loop {
        match next.recv_timeout(LONGEST) {
            Ok(input) => current = input,
            Err(RecvTimeoutError::Timeout) => panic!("{name} hangs on {current:02x?}"),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    assert!(work.join().is_ok(), "{name} panics on {current:02x?}");
}

#[test]
fn no_text_upsets_the_parser() {
    check_target("flow_parser");
}

#[test]
fn no_flow_upsets_the_checker() {
    check_target("checker");
}

#[test]
fn no_message_upsets_a_node() {
    check_target("nodes");
}

#[test]
fn no_script_upsets_its_sandbox() {
    check_target("javascript");
}

#[test]
fn no_bytes_upset_the_broker() {
    check_target("mqtt");
}

/// What is fuzzed is worth nothing if the checker refuses it: each option, in some valid flow, has to come about.
#[test]
fn every_option_of_every_node_type_is_tried() {
    const TRIES: u64 = 60;
    let mut missing = Vec::new();
    for node_type in node_types() {
        // Not of its place in the list, which changes with each type that comes before it.
        let of_name = u64::from(crc32fast::hash(node_type.name.as_bytes()));
        let mut tried = HashSet::new();
        for (number, base) in bases(node_type).iter().enumerate() {
            let found = crate::nodes::testing::problems(base);
            let is_wrong = found.iter().any(|problem| problem.contains(": error: "));
            assert!(!is_wrong, "{base}\n{found:?}");
            for seed in 0..TRIES {
                let mut random = Random(of_name << 32 | (number as u64) << 16 | seed);
                let bytes: Vec<u8> = (0..80).map(|_| random.next() as u8).collect();
                let text = changed(base, node_type, &mut Bytes(&bytes));
                if checked(&text).is_none() {
                    continue;
                }
                let flow: toml::Table = text.parse().expect("it is valid");
                let nodes = flow["nodes"].as_table().expect("it has nodes");
                let nodes = nodes.values().filter_map(toml::Value::as_table);
                let nodes = nodes.filter(|node| node["type"].as_str() == Some(node_type.name));
                tried.extend(nodes.flat_map(|node| node.keys().cloned()));
            }
        }
        let options = schema(node_type)["properties"].as_object();
        let options = options.into_iter().flat_map(|options| options.keys());
        let untried = options.filter(|option| !tried.contains(*option));
        missing.extend(untried.map(|option| format!("`{option}` of `{}`", node_type.name)));
    }
    assert!(missing.is_empty(), "add to `options::MORE`: {missing:?}");
}

/// Writes what each target begins with into `FUZZ_CORPUS/TARGET`, and the words of flow files into `FUZZ_CORPUS/words`.
#[test]
#[ignore = "for scripts/fuzz.sh"]
fn write_seeds() {
    let corpus = std::env::var("FUZZ_CORPUS").expect("FUZZ_CORPUS says where to write");
    let mut words = vec!["[nodes.a]".to_owned(), "type = ".into(), "from = ".into()];
    for node_type in node_types() {
        words.push(format!("'{}'", node_type.name));
        let options = schema(node_type)["properties"].as_object();
        words.extend(
            options
                .into_iter()
                .flat_map(|options| options.keys())
                .map(|name| format!("{name} = ")),
        );
    }
    let words: String = words.iter().map(|word| format!("\"{word}\"\n")).collect();
    std::fs::create_dir_all(&corpus).expect("it can be made");
    std::fs::write(Path::new(&corpus).join("words"), words).expect("it can be written");
    for target in &TARGETS {
        let directory = Path::new(&corpus).join(target.name);
        std::fs::create_dir_all(&directory).expect("it can be made");
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number}")), seed)
                .expect("it can be written");
        }
    }
}
