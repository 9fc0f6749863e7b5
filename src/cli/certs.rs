//! `tidegate certs`: development certificates, and what a certificate holds.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Failure, Outcome, settings};
use crate::certs::{
    CA_DAYS, CertificateInfo, DevelopmentCa, LEAF_DAYS, Overwrite, Validity, describe,
};
use crate::config::DeviceId;
use crate::message::Timestamp;
use crate::revocation::{RevocationError, RevocationList};
use crate::runtime::Clock;
use crate::uplink::expiry::WARN_DAYS;
use crate::uplink::tls::Ca;

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
    /// Show what certificates and revocation lists (PEM) hold and how long they are valid
    Show {
        /// Without any: those of `[uplink]` in the settings file
        files: Vec<PathBuf>,
        /// The settings file. Default: tidegate.toml
        #[arg(long, value_name = "FILE", conflicts_with = "files")]
        config: Option<PathBuf>,
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
        Action::Show { files, config } if files.is_empty() => {
            show(&of_settings(config.as_deref())?, now)
        }
        Action::Show { files, .. } => show(files, now),
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

/// The files that `[uplink]` names, but for the key. The authorities of the operating system are too many to show.
fn of_settings(config: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    let (config, _) = settings(config)?;
    let files = config
        .uplink_settings()
        .ok_or("the settings have no usable [uplink], so there are no certificates to show: name files, or see `tidegate check`")?
        .files;
    let ca = match files.ca {
        Ca::File(path) => Some(path),
        Ca::System => None,
    };
    Ok([Some(files.cert), ca, files.crl]
        .into_iter()
        .flatten()
        .collect())
}

fn show(files: &[PathBuf], now: Timestamp) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::Good;
    for file in files {
        let pem = std::fs::read(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let is_good = match RevocationList::read(&pem) {
            Err(RevocationError::NoList) => {
                let certificates =
                    describe(&pem).map_err(|error| format!("{}: {error}", file.display()))?;
                show_certificates(file, &certificates, now)?
            }
            lists => {
                let lists = lists.map_err(|error| format!("{}: {error}", file.display()))?;
                show_lists(file, &lists, now)?
            }
        };
        if !is_good {
            outcome = Outcome::Bad;
        }
    }
    Ok(outcome)
}

/// Says whether all are valid now.
fn show_certificates(
    file: &Path,
    certificates: &[CertificateInfo],
    now: Timestamp,
) -> Result<bool, Failure> {
    let mut out = std::io::stdout();
    let mut is_good = true;
    for certificate in certificates {
        let state = validity(certificate, now);
        is_good &= state.is_ok();
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
        writeln!(out, "  subject: {}", certificate.subject)?;
        if !certificate.names.is_empty() {
            writeln!(out, "  names:   {}", certificate.names.join(", "))?;
        }
        writeln!(out, "  issuer:  {}", certificate.issuer)?;
        writeln!(
            out,
            "  valid:   {} to {}: {state}",
            certificate.not_before, certificate.not_after
        )?;
    }
    Ok(is_good)
}

/// Says whether all are current.
fn show_lists(file: &Path, lists: &[RevocationList], now: Timestamp) -> Result<bool, Failure> {
    let mut out = std::io::stdout();
    let mut is_good = true;
    for list in lists {
        writeln!(out, "{}: revocation list", file.display())?;
        writeln!(out, "  issuer:  {}", list.issuer)?;
        writeln!(out, "  revoked: {}", list.revoked)?;
        match list.next_update {
            None => writeln!(out, "  valid:   for ever, as it names no end")?,
            Some(until) if now > until => {
                is_good = false;
                let days = whole_days(now.saturating_since(until));
                writeln!(out, "  valid:   to {until}: EXPIRED {days} days ago")?;
            }
            Some(until) => {
                let days = whole_days(until.saturating_since(now));
                writeln!(out, "  valid:   to {until}: {days} days left")?;
            }
        }
    }
    Ok(is_good)
}

fn whole_days(span: std::time::Duration) -> u64 {
    span.as_secs() / 86_400
}

/// How the certificate stands now; an error if it is not valid.
fn validity(certificate: &CertificateInfo, now: Timestamp) -> Result<String, String> {
    if now < certificate.not_before {
        return Err("NOT YET VALID; is this device's clock right?".into());
    }
    if now >= certificate.not_after {
        let days = whole_days(now.saturating_since(certificate.not_after));
        return Err(format!("EXPIRED {days} days ago"));
    }
    let days = whole_days(certificate.not_after.saturating_since(now));
    let soon = if days < WARN_DAYS.cast_unsigned() {
        "; RENEW IT NOW"
    } else {
        ""
    };
    Ok(format!("{days} days left{soon}"))
}
