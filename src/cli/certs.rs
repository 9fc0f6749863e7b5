//! `tidegate certs`: development certificates, and what a certificate holds.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Failure, Outcome};
use crate::certs::{
    CA_DAYS, CertificateInfo, DevelopmentCa, LEAF_DAYS, Overwrite, Validity, describe,
};
use crate::config::DeviceId;
use crate::message::Timestamp;
use crate::runtime::Clock;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Make a development CA, a server certificate and device certificates in a directory
    ///
    /// If the directory has a CA already, its certificates are issued by that one. For production use your own CA.
    New {
        /// Where to put ca.pem, server.pem, server.key, DEVICE.pem, DEVICE.key
        directory: PathBuf,
        /// A device's id; may be given several times. Default: the host's name
        #[arg(long = "device", value_name = "ID")]
        devices: Vec<String>,
        /// A name or address under which devices reach the server; may be given several times
        #[arg(long = "server", value_name = "NAME", default_values = ["localhost", "127.0.0.1"])]
        servers: Vec<String>,
        /// How long server and device certificates are valid
        #[arg(long, value_name = "DAYS", default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// Replace what is there (except the CA)
        #[arg(long)]
        force: bool,
    },
    /// Show what certificates (PEM) hold and how long they are valid
    Show {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let now = Clock::start().now().wall;
    match &arguments.action {
        Action::New {
            directory,
            devices,
            servers,
            days,
            force,
        } => {
            let overwrite = if *force {
                Overwrite::Force
            } else {
                Overwrite::Never
            };
            make(
                directory,
                devices,
                servers,
                Validity::days(now, *days),
                overwrite,
                now,
            )
        }
        Action::Show { files } => show(files, now),
    }
}

fn make(
    directory: &Path,
    devices: &[String],
    servers: &[String],
    validity: Validity,
    overwrite: Overwrite,
    now: Timestamp,
) -> Result<Outcome, Failure> {
    let mut out = std::io::stdout();
    let ca = if directory.join("ca.pem").exists() {
        writeln!(out, "using the CA in {}", directory.display())?;
        DevelopmentCa::load(directory)?
    } else {
        let ca = DevelopmentCa::create(now)?;
        ca.credentials().write(directory, Overwrite::Never)?;
        writeln!(
            out,
            "made {}, valid for {CA_DAYS} days, and its key",
            directory.join("ca.pem").display()
        )?;
        ca
    };
    let own_name = [DeviceId::default().to_string()];
    let devices = if devices.is_empty() {
        &own_name[..]
    } else {
        devices
    };
    let has_server = directory.join("server.pem").exists();
    if has_server && overwrite == Overwrite::Never {
        writeln!(
            out,
            "kept {} (--force replaces it)",
            directory.join("server.pem").display()
        )?;
    } else {
        ca.issue_server(servers, validity)?
            .write(directory, overwrite)?;
        writeln!(
            out,
            "made {} for {}, and its key",
            directory.join("server.pem").display(),
            servers.join(", ")
        )?;
    }
    for device in devices {
        ca.issue_device(device, validity)?
            .write(directory, overwrite)?;
        writeln!(
            out,
            "made {}, and its key",
            directory.join(format!("{device}.pem")).display()
        )?;
    }
    writeln!(out, "\nIn the device's tidegate.toml:\n")?;
    let example = &devices[0];
    let path = |name: String| directory.join(name).display().to_string();
    writeln!(
        out,
        "[device]\nid = \"{example}\"\n[uplink]\nurl = \"mqtts://{}:8883\"\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"",
        servers[0],
        path("ca.pem".into()),
        path(format!("{example}.pem")),
        path(format!("{example}.key")),
    )?;
    writeln!(
        out,
        "\nKeep ca.key off the devices: who has it can make certificates that your broker trusts."
    )?;
    Ok(Outcome::Good)
}

fn show(files: &[PathBuf], now: Timestamp) -> Result<Outcome, Failure> {
    let mut out = std::io::stdout();
    let mut outcome = Outcome::Good;
    for file in files {
        let pem = std::fs::read(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let certificates =
            describe(&pem).map_err(|error| format!("{}: {error}", file.display()))?;
        for certificate in certificates {
            let state = validity(&certificate, now);
            if state.is_err() {
                outcome = Outcome::Bad;
            }
            let (Ok(state) | Err(state)) = state;
            let kind = if certificate.is_ca {
                "CA"
            } else {
                "certificate"
            };
            writeln!(
                out,
                "{}: {kind} `{}`",
                file.display(),
                certificate.common_name.as_deref().unwrap_or("(no name)")
            )?;
            if !certificate.names.is_empty() {
                writeln!(out, "  names:  {}", certificate.names.join(", "))?;
            }
            writeln!(out, "  issuer: {}", certificate.issuer)?;
            writeln!(
                out,
                "  valid:  {} to {}: {state}",
                certificate.not_before, certificate.not_after
            )?;
        }
    }
    Ok(outcome)
}

/// How the certificate stands now; an error if it is not valid.
fn validity(certificate: &CertificateInfo, now: Timestamp) -> Result<String, String> {
    let days = |span: std::time::Duration| span.as_secs() / 86_400;
    if now < certificate.not_before {
        return Err("NOT YET VALID; is this device's clock right?".into());
    }
    if now >= certificate.not_after {
        return Err(format!(
            "EXPIRED {} days ago",
            days(now.saturating_since(certificate.not_after))
        ));
    }
    Ok(format!(
        "{} days left",
        days(certificate.not_after.saturating_since(now))
    ))
}
