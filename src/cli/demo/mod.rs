//! `tidegate demo`: the whole path on one machine, with an outage in the middle.
//!
//! ```text
//! simulated board -> flows -> outbox -> uplink -> cable (cut and mended) -> cloud broker -> observer
//! ```
//! The observer is the witness: `lost` is what it did not see of what the outbox accepted.

mod cable;
mod observer;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use self::cable::Cable;
use self::observer::{Observer, Received};
use super::{Failure, Outcome};
use crate::board::{Outputs, Pin, RealTime, Simulated};
use crate::broker::{self, Broker, PemSource};
use crate::certs::{DevelopmentCa, LEAF_DAYS, Overwrite, Validity};
use crate::config::{self, LogFormat, LogLevel};
use crate::device::{Device, Meter, Parts, Totals};
use crate::examples;
use crate::flow::Site;
use crate::flow::diagnostic::Severity;
use crate::logging;
use crate::outbox::{Pressure, RecordId};
use crate::runtime::Clock;
use crate::runtime::driver::subscribing::NoSubscriptions;
use crate::runtime::realtime::Realtime;
use crate::uplink;

const DEVICE: &str = "demo-press-7";
const OBSERVER: &str = "observer";
/// How long the drain at the end may take.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// How long the sensors run; the link is cut for the middle third of it
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..=86_400))]
    seconds: u64,
    /// Print JSON, one object a line, the ledger last
    #[arg(long)]
    json: bool,
    /// Keep certificates, settings, flows and outbox in this directory, which must be new or empty
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What became of every reading; see [`Totals`] for the units.
#[derive(Serialize)]
struct Ledger {
    readings: u64,
    accepted: u64,
    acknowledged: u64,
    stored: u64,
    dead_lettered: u64,
    dropped: u64,
    /// What the observer got more than once.
    duplicates: u64,
    raw_bytes: u64,
    uplink_bytes: u64,
    outage_seconds: u64,
    /// What the observer did not get of what was accepted.
    lost: u64,
}

impl Ledger {
    /// Nothing was lost, and there was something to lose.
    fn is_good(&self) -> bool {
        self.lost == 0
            && self.dropped == 0
            && self.dead_lettered == 0
            && self.readings > 0
            && self.accepted > 0
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let screen = Screen {
        json: arguments.json,
        start: Instant::now(),
    };
    screen.say(&format!(
        "tidegate demo: {} s of a simulated site; the link to its cloud broker is cut for the middle third",
        arguments.seconds
    ))?;
    let logger = logging::start(LogFormat::Text, LogLevel::Error);
    let temporary;
    let directory = match &arguments.keep {
        Some(directory) => {
            claim(directory)?;
            directory.as_path()
        }
        None => {
            temporary = tempfile::Builder::new()
                .prefix("tidegate-demo-")
                .tempdir()?;
            temporary.path()
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let length = Duration::from_secs(arguments.seconds);
    let ledger = runtime.block_on(async {
        // Returning, instead of being killed, takes the temporary directory away.
        tokio::select! {
            ledger = play(length, directory, &screen) => ledger,
            _ = tokio::signal::ctrl_c() => Err("stopped by Ctrl-C before the end, so there is no ledger".into()),
        }
    })?;
    drop(logger);
    if let Some(directory) = &arguments.keep {
        let path = directory.display();
        screen.say(&format!(
            "kept in {path}; for example: tidegate outbox show --config {path}/tidegate.toml"
        ))?;
    }
    screen.ledger(&ledger)?;
    Ok(if ledger.is_good() {
        Outcome::Good
    } else {
        Outcome::Bad
    })
}

/// Makes the directory to keep things in; one that holds something already is not touched.
fn claim(directory: &Path) -> Result<(), Failure> {
    let name = directory.display();
    std::fs::create_dir_all(directory).map_err(|error| format!("cannot make {name}: {error}"))?;
    let is_empty = std::fs::read_dir(directory)?.next().is_none();
    if is_empty {
        Ok(())
    } else {
        Err(format!("{name} is not empty; give --keep a new directory").into())
    }
}

async fn play(length: Duration, directory: &Path, screen: &Screen) -> Result<Ledger, Failure> {
    let clock = Clock::start();
    let ca = DevelopmentCa::create(clock.now().wall)?;
    let broker = start_broker(&ca, &clock, directory)?;
    let observer = start_observer(&broker, directory).await?;
    let cable = Cable::lay(broker.local_addr()).await?;
    let (device, outputs) = start_device(cable.address(), &clock, directory)?;
    screen.say(&format!(
        "cloud broker on {}, mutual TLS; device `{DEVICE}` runs the flows {}",
        broker.local_addr(),
        examples::FLOWS
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    ))?;

    let meter = device.meter();
    let watch = Watch {
        meter: &meter,
        observer: &observer,
        outputs: &outputs,
        screen,
    };
    watch.for_a(length / 3).await?;
    screen.say(
        "--- the link is cut: records gather in the outbox, the compressor stays under control ---",
    )?;
    cable.cut();
    watch.for_a(length / 3).await?;
    screen.say("--- the link is mended: the outbox drains ---")?;
    cable.mend();
    watch.for_a(length - 2 * (length / 3)).await?;

    let device = device.stop_flows().await;
    screen.say("--- the sensors have stopped; waiting for the last acknowledgements ---")?;
    let deadline = Instant::now() + DRAIN;
    while meter.read().ledger.waiting() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What the broker has acknowledged it may still be handing to the observer.
    let ids: Vec<RecordId> = device.accepted_ids().collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !observer.received().has_all(&ids) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    watch.line()?;
    let totals = meter.read();
    let received = observer.received();
    let observer_problem = observer.problem();
    drop(meter);
    device.stop().await;
    tokio::task::spawn_blocking(move || broker.stop()).await?;
    if let Some(problem) = observer_problem {
        return Err(problem.into());
    }
    Ok(ledger(&totals, &received, &ids))
}

fn ledger(totals: &Totals, received: &Received, accepted: &[RecordId]) -> Ledger {
    Ledger {
        readings: totals.readings,
        accepted: totals.ledger.accepted,
        acknowledged: totals.ledger.acknowledged,
        stored: totals.ledger.stored,
        dead_lettered: totals.ledger.dead_lettered,
        dropped: totals.ledger.dropped,
        duplicates: received.duplicates(),
        raw_bytes: totals.raw_bytes,
        uplink_bytes: totals.uplink_bytes,
        outage_seconds: totals.outage_seconds,
        lost: accepted.iter().filter(|id| !received.has(**id)).count() as u64,
    }
}

fn start_broker(ca: &DevelopmentCa, clock: &Clock, directory: &Path) -> Result<Broker, Failure> {
    let validity = Validity::days(clock.now().wall, LEAF_DAYS);
    let tls = directory.join("tls");
    ca.credentials().write(&tls, Overwrite::Never)?;
    let server = ca.issue_server(&["localhost".into(), "127.0.0.1".into()], validity)?;
    server.write(&tls, Overwrite::Never)?;
    ca.issue_device(DEVICE, validity)?
        .write(&tls, Overwrite::Never)?;
    ca.issue_device(OBSERVER, validity)?
        .write(&tls, Overwrite::Never)?;
    Ok(Broker::start(broker::Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        ca: PemSource::File(tls.join("ca.pem")),
        cert: PemSource::File(tls.join("server.pem")),
        key: PemSource::File(tls.join("server.key")),
        crl: None,
        max_connections: 10,
    })?)
}

async fn start_observer(broker: &Broker, directory: &Path) -> Result<Observer, Failure> {
    let tls = directory.join("tls");
    let files = uplink::Files::new(
        tls.join("ca.pem"),
        tls.join(format!("{OBSERVER}.pem")),
        tls.join(format!("{OBSERVER}.key")),
    );
    let config = uplink::tls::load(&files, rustls::pki_types::UnixTime::now())?;
    Observer::start(broker.local_addr(), OBSERVER, config).await
}

/// The device's settings file. Paces and windows are quicker than in the flows' files, so that half a minute shows
/// something.
fn settings(cable: std::net::SocketAddr) -> String {
    format!(
        r#"[device]
id = "{DEVICE}"

[uplink]
url = "mqtts://localhost:{port}"
ca = "tls/ca.pem"
cert = "tls/{DEVICE}.pem"
key = "tls/{DEVICE}.key"
retry_max = "1s"

[board]
kind = "simulated"

[board.simulation]
seed = 7
cooling_pin = 17
inputs.27 = {{ kind = "pulses", hz = 12.0 }}
inputs.22 = {{ kind = "contact", closed_s = 2.0, open_s = 1.0 }}
inputs.23 = {{ kind = "pulses", hz = 2.0 }}
inputs.6 = {{ kind = "pulses", hz = 4.0 }}

[vars]
window = "1s"

[vars.cold-store]
pace = "200ms"
rest = "1s"

[vars.climate]
pace = "500ms"
"#,
        port = cable.port()
    )
}

fn start_device(
    cable: std::net::SocketAddr,
    clock: &Clock,
    directory: &Path,
) -> Result<(Device, Outputs), Failure> {
    let settings_file = directory.join("tidegate.toml");
    std::fs::write(&settings_file, settings(cable))?;
    let flows = directory.join("flows");
    std::fs::create_dir_all(&flows)?;
    for (name, text) in examples::FLOWS {
        std::fs::write(flows.join(format!("{name}.toml")), text)?;
    }
    let (config, diagnostics) = config::load(&settings_file)?;
    let site = Site::load(&config.flows.path, |flow| config.variables_for(flow))?;
    // Its paces are quicker than real sensors, of which `check` warns.
    let mut problems = diagnostics.iter().chain(&site.diagnostics);
    if let Some(problem) = problems.find(|it| it.severity == Severity::Error) {
        return Err(format!("the demonstration's own files are wrong: {problem}").into());
    }
    let board = Simulated::new(&config.board.simulation)?;
    let outputs = board.outputs();
    let device = Device::start(Parts {
        id: DEVICE.into(),
        flows: site.flows,
        board: Box::new(RealTime::start(board, clock)?),
        outbox: Some(config.outbox_settings()),
        pressure: Pressure::default(),
        uplink: config.uplink_settings(),
        clock: clock.clone(),
        subscriptions: Box::new(NoSubscriptions),
        state: None,
        realtime: Realtime::default(),
    })?;
    Ok((device, outputs))
}

/// Looks at everything once a second and says what it sees.
struct Watch<'a> {
    meter: &'a Meter,
    observer: &'a Observer,
    outputs: &'a Outputs,
    screen: &'a Screen,
}

impl Watch<'_> {
    async fn for_a(&self, length: Duration) -> Result<(), Failure> {
        let end = Instant::now() + length;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
            self.line()?;
        }
    }

    fn line(&self) -> Result<(), Failure> {
        let totals = self.meter.read();
        let compressor = Pin::new(17)
            .ok()
            .and_then(|pin| self.outputs.level(pin))
            .is_some_and(|level| level.is_high());
        self.screen
            .status(&totals, self.observer.received().messages(), compressor)
    }
}

/// Where the demonstration is shown.
struct Screen {
    json: bool,
    start: Instant,
}

impl Screen {
    fn say(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(
                out,
                "{}",
                json!({ "seconds": self.seconds(), "text": text })
            )?;
        } else {
            writeln!(out, "{text}")?;
        }
        Ok(out.flush()?)
    }

    fn status(&self, totals: &Totals, received: u64, compressor: bool) -> Result<(), Failure> {
        let link = if totals.is_up == 1 { "up" } else { "DOWN" };
        let mut out = std::io::stdout().lock();
        if self.json {
            let line = json!({
                "seconds": self.seconds(), "readings": totals.readings, "received": received,
                "pending": totals.ledger.pending, "stored": totals.ledger.stored, "disk_bytes": totals.ledger.disk_bytes,
                "link": link, "relay": compressor, "saved_percent": saved_percent(totals.raw_bytes, totals.uplink_bytes),
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(
                out,
                "{:5.1} s  readings {:>6}  at the cloud {:>5}  outbox {:>3} pending {:>4} on disk  link {link:<4}  relay {:<3}  \
                 bytes saved {:.1} %",
                self.seconds(),
                totals.readings,
                received,
                totals.ledger.pending,
                totals.ledger.stored,
                if compressor { "on" } else { "off" },
                saved_percent(totals.raw_bytes, totals.uplink_bytes),
            )?;
        }
        Ok(out.flush()?)
    }

    fn ledger(&self, ledger: &Ledger) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(ledger)?)?;
            return Ok(out.flush()?);
        }
        let Ledger {
            readings,
            accepted,
            acknowledged,
            stored,
            dead_lettered,
            dropped,
            ..
        } = ledger;
        let Ledger {
            duplicates,
            raw_bytes,
            uplink_bytes,
            outage_seconds,
            lost,
            ..
        } = ledger;
        let saved = saved_percent(*raw_bytes, *uplink_bytes);
        writeln!(
            out,
            "\nThe ledger\n\
             {readings:>10} readings       from the sensors, edges included\n\
             {accepted:>10} accepted       records that the flows made of them\n\
             {acknowledged:>10} acknowledged   by the cloud broker\n\
             {stored:>10} stored         still in the outbox\n\
             {dead_lettered:>10} dead_lettered  could never be sent\n\
             {dropped:>10} dropped        by a stated policy\n\
             {duplicates:>10} duplicates     records that the observer got again\n\
             {raw_bytes:>10} raw_bytes      if each reading were published by itself\n\
             {uplink_bytes:>10} uplink_bytes   published: {saved:.1} % saved\n\
             {outage_seconds:>10} outage_seconds\n\
             {lost:>10} lost           accepted, and not received by the observer at the cloud broker"
        )?;
        Ok(out.flush()?)
    }

    fn seconds(&self) -> f64 {
        (self.start.elapsed().as_secs_f64() * 10.0).round() / 10.0
    }
}

fn saved_percent(raw: u64, sent: u64) -> f64 {
    if raw == 0 {
        0.0
    } else {
        (1000.0 * (1.0 - sent as f64 / raw as f64)).round() / 10.0
    }
}
