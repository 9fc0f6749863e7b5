//! A disk that can stand still and be full: ext4 in a file, mounted through a loop device.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub(super) struct Disk {
    mounted_at: PathBuf,
}

impl Disk {
    pub(super) fn new(directory: &Path, megabytes: u64) -> Result<Disk, String> {
        let (image, mounted_at) = (directory.join("disk.img"), directory.join("disk"));
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(megabytes * 1024 * 1024)
            .map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&image))?;
        std::fs::create_dir(&mounted_at).map_err(|error| error.to_string())?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&mounted_at))?;
        Ok(Disk { mounted_at })
    }

    pub(super) fn path(&self) -> &Path {
        &self.mounted_at
    }

    /// Writes until nothing more fits.
    pub(super) fn fill(&self) {
        let mut file = File::create(self.mounted_at.join("filler")).expect("there is room yet");
        std::io::copy(&mut std::io::repeat(0x5a), &mut file).expect_err("a disk comes to an end");
    }

    /// Writes and syncs wait for 0.4 s of each 0.5 s, until this is dropped (fsfreeze(8)).
    pub(super) fn stand_still_again_and_again(&self) -> Freezing {
        let stop = Arc::<AtomicBool>::default();
        let (place, ended) = (self.mounted_at.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let freeze = |how: &str| run(Command::new("fsfreeze").arg(how).arg(&place));
                freeze("--freeze").expect("it can be frozen");
                std::thread::sleep(Duration::from_millis(400));
                freeze("--unfreeze").expect("it was frozen");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Freezing {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(&self.mounted_at)
            .status();
    }
}

pub(super) struct Freezing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Freezing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("{name}: {error}")),
    }
}
