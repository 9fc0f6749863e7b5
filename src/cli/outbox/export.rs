//! `tidegate outbox export`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::super::{Failure, Outcome, grouped, settings};
use super::manners::with_manners;
use super::{Place, directory};
use crate::outbox::care::{Care, Exported};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Write to this file, which is written anew. Default: the standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write whatever can be read: also what is delivered but not yet removed, and what is in damaged/
    #[arg(long)]
    all: bool,
    /// Copy generations to this directory to open them there. Default: a directory `scratch` in the outbox, which goes again
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (config, diagnostics) = settings(arguments.place.config.as_deref())?;
    let path = directory(&config, &diagnostics)?;
    let care = Care::to_read(path, arguments.scratch.as_deref())?;
    let device = config.device.id.to_string();
    let export =
        |out: &mut dyn Write| with_manners(|watch| care.export(&device, arguments.all, out, watch));
    let exported = match &arguments.out {
        None => export(&mut BufWriter::new(io::stdout().lock())).map_err(say_closed_pipe)?,
        Some(file) => {
            let mut target = Target::at(file, path)?;
            let exported = export(&mut target.out)?;
            target.finish()?;
            exported
        }
    };
    Ok(sum_up(&exported))
}

/// A reader that goes away is no success: it did not get all of it.
fn say_closed_pipe(error: crate::outbox::care::CareError) -> Failure {
    use crate::outbox::care::CareError;
    match &error {
        CareError::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
            "what read the records went away before the end; what is in the outbox is as it was"
                .into()
        }
        _ => error.into(),
    }
}

fn sum_up(exported: &Exported) -> Outcome {
    let records = grouped(exported.records);
    if exported.verdict.is_sound {
        eprintln!("{records} records");
        return Outcome::Good;
    }
    eprintln!("{records} records, and the outbox is damaged:");
    for problem in &exported.verdict.problems {
        eprintln!("  ! {problem}");
    }
    Outcome::Bad
}

/// A file that is written anew: under another name until it is complete, unless it is no plain file.
struct Target {
    out: BufWriter<File>,
    /// The name until then, and the name.
    renamed: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn at(file: &Path, outbox: &Path) -> Result<Target, Failure> {
        // What the path stands for, through links, as far as it is there.
        let real = file.canonicalize().or_else(|_| in_real_directory(file));
        let real = real.map_err(|error| cannot_write(file, &error))?;
        let outbox = outbox.canonicalize()?;
        let mut epoch = outbox.clone().into_os_string();
        epoch.push(".epoch");
        if real.starts_with(&outbox) || real.as_os_str() == epoch {
            return Err(format!(
                "{} belongs to the outbox; write the records to a file elsewhere",
                file.display()
            )
            .into());
        }
        let is_plain = fs::metadata(&real).map_or(true, |data| data.is_file());
        let partial = with_suffix(&real, ".partial");
        let opened = if is_plain {
            File::create(&partial)
        } else {
            File::options().write(true).open(&real)
        };
        Ok(Target {
            out: BufWriter::new(opened.map_err(|error| cannot_write(file, &error))?),
            renamed: is_plain.then_some((partial, real)),
        })
    }

    fn finish(mut self) -> Result<(), Failure> {
        let Some((partial, file)) = self.renamed.take() else {
            return Ok(());
        };
        let done = self
            .out
            .get_ref()
            .sync_all()
            .and_then(|()| fs::rename(&partial, &file));
        done.map_err(|error| cannot_write(&file, &error))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.renamed {
            // It is of no use, and the failure is said already.
            let _ = fs::remove_file(partial);
        }
    }
}

fn in_real_directory(file: &Path) -> io::Result<PathBuf> {
    let name = file.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok(directory.canonicalize()?.join(name))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn cannot_write(file: &Path, error: &io::Error) -> Failure {
    format!(
        "cannot write {}: {error}; see that its directory is there, that this user may write there and that the disk is not full",
        file.display()
    )
    .into()
}
