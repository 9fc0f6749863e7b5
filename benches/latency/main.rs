//! How long it takes from an edge of an input to the level of an output, while the rest of Tidegate works.
//!
//! `cargo bench --bench latency` makes edges on a simulated pin at random moments, on schedule whatever happens, and notes when the output
//! follows: p50, p99, p99.9 and the longest, in microseconds, for each scene. `SECONDS=60` measures longer, `SCENES=idle,full` some only,
//! `REALTIME=20` with that real-time priority.
//!
//! The scenes: *idle*; *aggregating* 5,000 messages a second into windows, and 200 records a second into the outbox; the same
//! with a *slow disk* that stands still for 0.4 s in each 0.5 s; with a *full disk*; and while a *backlog* of records drains over mutual TLS
//! to a broker in another process. The disks are ext4 in a file of their own, which needs root: without it those scenes are skipped, and
//! the table says so. Edges and outputs must be as many, or the benchmark ends with an error.

mod disk;
mod pins;

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use tidegate::board::Pin;
use tidegate::broker::{self, Broker, PemSource};
use tidegate::certs::{DevelopmentCa, Overwrite, Validity};
use tidegate::config;
use tidegate::device::{Device, Parts};
use tidegate::flow::Site;
use tidegate::outbox::{Draft, Outbox, Pressure};
use tidegate::runtime::clock::Clock;
use tidegate::runtime::driver::subscribing::NoSubscriptions;
use tidegate::runtime::realtime::Realtime;

use disk::Disk;
use pins::{Pins, Stopwatch};

const BUTTON: u8 = 27;
const RELAY: u8 = 17;
const DEVICE: &str = "bench";
/// What waits when the broker comes.
const BACKLOG: u32 = 600_000;

const CONTROL: &str = r#"
[nodes.button]
type = "gpio in"
pin = 27
[nodes.relay]
type = "gpio out"
from = "button"
pin = 17
"#;

/// Five sources of a thousand messages a second; four are aggregated, and of the fifth one in five goes up as it is.
const LOAD: &str = r#"
[nodes.a]
type = "inject"
every = "1ms"
payload = 1
[nodes.b]
type = "inject"
every = "1ms"
payload = 2
[nodes.c]
type = "inject"
every = "1ms"
payload = 3
[nodes.d]
type = "inject"
every = "1ms"
payload = 4
[nodes.e]
type = "inject"
every = "1ms"
payload = 5
[nodes.second]
type = "window"
from = ["a", "b", "c", "d", "e"]
size = "1s"
by = "topic"
compute = ["count", "mean", "min", "max", "p95"]
[nodes.some]
type = "sample"
from = "e"
every = "5ms"
[nodes.report]
type = "uplink"
from = ["second", "some"]
topic = "bench/{topic}"
"#;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scene {
    Idle,
    Aggregating,
    SlowDisk,
    FullDisk,
    Backlog,
}

const SCENES: [(Scene, &str, &str); 5] = [
    (Scene::Idle, "idle", "idle"),
    (
        Scene::Aggregating,
        "aggregating",
        "5,000 messages/s aggregated, 200 records/s stored",
    ),
    (
        Scene::SlowDisk,
        "slow",
        "the same, the disk stands still for 0.4 s in each 0.5 s",
    ),
    (Scene::FullDisk, "full", "the same, the disk is full"),
    (
        Scene::Backlog,
        "backlog",
        "the same, a backlog drains over mutual TLS",
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, directory] = arguments.as_slice()
        && flag == "--broker"
    {
        serve(Path::new(directory));
        return ExitCode::SUCCESS;
    }
    let seconds = std::env::var("SECONDS").ok().and_then(|it| it.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(20));
    let chosen = std::env::var("SCENES").unwrap_or_default();
    println!("| Scene | Edges | p50 | p99 | p99.9 | longest |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (scene, name, title) in SCENES {
        if !chosen.is_empty() && !chosen.split(',').any(|it| it == name) {
            continue;
        }
        match run(scene, length) {
            Ok(latencies) => println!("| {title} | {} |", row(latencies)),
            Err(reason) => println!("| {title} | skipped: {reason} | | | | |"),
        }
    }
    ExitCode::SUCCESS
}

/// Microseconds.
fn row(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = ((latencies.len() as f64 * share).ceil() as usize).clamp(1, latencies.len());
        latencies[place - 1].as_micros()
    };
    format!(
        "{} | {} us | {} us | {} us | {} us",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}

fn run(scene: Scene, length: Duration) -> Result<Vec<Duration>, String> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let disk = match scene {
        Scene::SlowDisk => Some(Disk::new(place.path(), 256)?),
        Scene::FullDisk => Some(Disk::new(place.path(), 24)?),
        _ => None,
    };
    let outbox = disk.as_ref().map_or(place.path(), |disk| disk.path());
    let broker = (scene == Scene::Backlog).then(|| Served::prepare(place.path()));
    let settings = settings(&outbox.join("outbox"), broker.as_ref());
    std::fs::write(place.path().join("tidegate.toml"), settings).expect("there is room");
    let flows = place.path().join("flows");
    std::fs::create_dir(&flows).expect("it is new");
    std::fs::write(flows.join("control.toml"), CONTROL).expect("there is room");
    if scene != Scene::Idle {
        std::fs::write(flows.join("load.toml"), LOAD).expect("there is room");
    }
    if scene == Scene::Backlog {
        fill(&outbox.join("outbox"));
    }
    if let (Scene::FullDisk, Some(disk)) = (scene, &disk) {
        disk.fill();
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("there are threads");
    let _guard = runtime.enter();
    let (device, stopwatch) = start(place.path());
    // Whatever happens once at the start is not what is measured.
    std::thread::sleep(Duration::from_secs(2));
    let freezing = match (scene, &disk) {
        (Scene::SlowDisk, Some(disk)) => Some(disk.stand_still_again_and_again()),
        _ => None,
    };
    let broker = broker.map(Served::start);
    let before = device.meter().read().ledger.acknowledged;
    let latencies = stopwatch.measure(BUTTON, length);
    if broker.is_some() {
        let drained = device.meter().read().ledger.acknowledged - before;
        assert!(drained > 0, "nothing drained while it was measured");
        eprintln!("{drained} records of the backlog of {BACKLOG} drained meanwhile");
    }
    drop(freezing);
    drop(broker);
    runtime.block_on(device.stop());
    Ok(latencies)
}

fn settings(outbox: &Path, broker: Option<&Served>) -> String {
    let mut text = format!("[device]\nid = \"{DEVICE}\"\n[outbox]\npath = {outbox:?}\n");
    if let Some(broker) = broker {
        text += &format!(
            "[uplink]\nurl = \"mqtts://localhost:{}\"\nca = \"tls/ca.pem\"\ncert = \"tls/{DEVICE}.pem\"\nkey = \"tls/{DEVICE}.key\"\nretry_max = \"1s\"\ndrain_messages = 25000\n",
            broker.port
        );
    }
    text
}

fn start(place: &Path) -> (Device, Stopwatch) {
    let clock = Clock::start();
    let (config, diagnostics) =
        config::load(&place.join("tidegate.toml")).expect("the settings are right");
    let site =
        Site::load(&config.flows.path, |flow| config.variables_for(flow)).expect("they are there");
    for problem in diagnostics.iter().chain(&site.diagnostics) {
        eprintln!("{problem}");
    }
    let relay = Pin::new(RELAY).expect("it is a pin");
    let (pins, stopwatch) = Pins::new(relay, &clock);
    let device = Device::start(Parts {
        id: DEVICE.into(),
        flows: site.flows,
        board: Box::new(pins),
        outbox: Some(config.outbox_settings()),
        pressure: Pressure::default(),
        uplink: config.uplink_settings(),
        clock,
        subscriptions: Box::new(NoSubscriptions),
        state: None,
        realtime: Realtime {
            priority: std::env::var("REALTIME")
                .ok()
                .and_then(|it| it.parse().ok()),
            lock_memory: false,
        },
    });
    (device.expect("nobody else has the outbox"), stopwatch)
}

/// Records that wait.
fn fill(outbox: &Path) {
    let clock = Clock::start();
    let settings = tidegate::outbox::Settings::new(outbox);
    let (outbox, _) = Outbox::open(settings, clock.clone()).expect("it is new");
    let payload = bytes::Bytes::from(format!("{{\"filler\":\"{}\"}}", "x".repeat(80)));
    let time = clock.now().wall;
    for start in (0..BACKLOG).step_by(1_000) {
        let one = |number| Draft::new(format!("bench/{}", number % 500), payload.clone(), time);
        outbox.append((start..start + 1_000).map(one));
        while outbox.ledger().pending > 20_000 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    outbox.close();
}

/// A broker in another process.
struct Served {
    port: u16,
    directory: std::path::PathBuf,
    process: Option<Child>,
}

impl Served {
    /// Certificates, and a port that is free.
    fn prepare(place: &Path) -> Served {
        let now = Clock::start().now().wall;
        let ca = DevelopmentCa::create(now).expect("it is made in memory");
        let tls = place.join("tls");
        let validity = Validity::days(now, 2);
        ca.credentials()
            .write(&tls, Overwrite::Never)
            .expect("there is room");
        let server = ca.issue_server(&["localhost".into(), "127.0.0.1".into()], validity);
        let device = ca.issue_device(DEVICE, validity);
        for credentials in [server, device] {
            let credentials = credentials.expect("the names are right");
            credentials
                .write(&tls, Overwrite::Never)
                .expect("there is room");
        }
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("there is a port");
        let port = listener.local_addr().expect("it is bound").port();
        Served {
            port,
            directory: place.to_owned(),
            process: None,
        }
    }

    fn start(mut self) -> Served {
        std::fs::write(self.directory.join("port"), self.port.to_string()).expect("there is room");
        let own = std::env::current_exe().expect("it runs");
        let process = Command::new(own)
            .arg("--broker")
            .arg(&self.directory)
            .stdin(Stdio::piped())
            .spawn();
        self.process = Some(process.expect("it can be started again"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the broker does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        self
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It ends with its input.
            drop(process.stdin.take());
            let _ = process.wait();
        }
    }
}

/// What the other process does, until its input ends.
fn serve(directory: &Path) {
    let port = std::fs::read_to_string(directory.join("port")).expect("it was written");
    let tls = directory.join("tls");
    let broker = Broker::start(broker::Settings {
        listen: ([127, 0, 0, 1], port.parse().expect("a number")).into(),
        ca: PemSource::File(tls.join("ca.pem")),
        cert: PemSource::File(tls.join("server.pem")),
        key: PemSource::File(tls.join("server.key")),
        crl: None,
        max_connections: 10,
    })
    .expect("the port is free");
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    broker.stop();
}
