//! A disk of its own: an ext4 file system in a file, mounted through a loop device, that can lose its power and be filled.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::process::{as_root, done};
use crate::support::until;

pub(super) struct Disk {
    image: PathBuf,
    pub(super) mounted_at: PathBuf,
}

impl Disk {
    /// A new disk of this size, whose file lies in `directory`, mounted there as `disk`.
    pub(super) fn new(directory: &Path, megabytes: u64) -> Disk {
        let disk = Disk {
            image: directory.join("disk.img"),
            mounted_at: directory.join("disk"),
        };
        let image = File::create(&disk.image).unwrap();
        image.set_len(megabytes * 1024 * 1024).unwrap();
        done(
            Command::new("mkfs.ext4")
                .args(["-q", "-F", "-m", "0", "-E", "nodiscard,root_owner"])
                .arg(&disk.image),
        );
        std::fs::create_dir(&disk.mounted_at).unwrap();
        disk.mount();
        disk
    }

    fn mount(&self) {
        done(
            as_root("mount")
                .args(["-o", "loop,errors=remount-ro"])
                .arg(&self.image)
                .arg(&self.mounted_at),
        );
    }

    /// Cuts the power: what was not synced is gone, also from the journal.
    ///
    /// That is the ioctl EXT4_IOC_SHUTDOWN, 0x8004587d, with EXT4_GOING_FLAGS_NOLOGFLUSH, 2 (Linux, fs/ext4/ext4.h).
    pub(super) fn cut_power(&self) {
        let code = "import fcntl, os, struct, sys\n\
                    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        done(as_root("python3").args(["-c", code]).arg(&self.mounted_at));
    }

    /// The power is back, and nobody has the disk in use any more.
    pub(super) fn power_on(&self) {
        let device = self.loop_device();
        done(as_root("umount").arg(&self.mounted_at));
        assert!(
            !Path::new("/sys/fs/ext4").join(&device).exists(),
            "{device} is still mounted in another mount namespace: it would come back as it is, without power"
        );
        self.mount();
    }

    /// An error in the file system, after which the kernel takes no more writes: EROFS, also for files that are open.
    ///
    /// That is what writing to `trigger_fs_error` is for (Linux, Documentation/ABI/testing/sysfs-fs-ext4).
    pub(super) fn become_read_only(&self) {
        let name = self.loop_device();
        let provoke = format!("echo provoked > /sys/fs/ext4/{name}/trigger_fs_error");
        done(as_root("sh").args(["-c", &provoke]));
    }

    /// What a person does about it: unmounts it, which has to wait until nobody has a file open there, checks it, and mounts it.
    pub(super) fn mend(&self) {
        until("nobody uses the disk", || {
            let unmounted = as_root("umount")
                .arg(&self.mounted_at)
                .stderr(Stdio::null())
                .status();
            unmounted.unwrap().success().then_some(())
        });
        // 1 is what it gives when it has corrected something; e2fsck(8).
        let checked = as_root("e2fsck").arg("-fp").arg(&self.image).status();
        let code = checked.unwrap().code();
        assert!(code <= Some(1), "e2fsck ended with {code:?}");
        self.mount();
    }

    /// What it is mounted through: `loop0`, say.
    fn loop_device(&self) -> String {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let place = self.mounted_at.display().to_string();
        let mut fields = mounts.lines().map(|line| line.split(' '));
        let device =
            fields.find_map(|mut line| line.next().filter(|_| line.next() == Some(&place)));
        let device = device.expect("it is mounted");
        device.trim_start_matches("/dev/").to_owned()
    }

    /// Writes a file until nothing more fits.
    pub(super) fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        let error = std::io::copy(&mut std::io::repeat(0x5a), &mut file)
            .expect_err("a disk comes to an end");
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    }

    pub(super) fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.mounted_at.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left it in use.
        let _ = as_root("umount").arg("-l").arg(&self.mounted_at).status();
    }
}
