//! The computer itself: how warm, how busy, how full, how well supplied.
//!
//! All of it is in files of the kernel; each function names the document that says what its file means.
//!
//! Must not: hold a value back that the machine does not have: what is asked for and not there is an error that names the file.

use std::path::Path;
use std::thread;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::kernel::{Inside, KernelError, names_in, number, number_in, read_text};
use crate::sensors::{About, Chip, Hardware, Part, Physical, Quantity, Scene, Trouble};

/// Reads the computer itself: temperature and use of the processor, memory, disk, supply, Wi-Fi.
///
/// What there is to read: `cpu_temperature` (degC), `load1` (runnable threads, mean of a minute), `cpu_use` (% of all processors since
/// the reading before), `memory_use` (%), `memory_available` (MB), `disk_use` (%), `uptime` (s), `undervoltage` and `throttled` (0 or 1,
/// on a Raspberry Pi), `wifi_signal` (dBm).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct System {
    /// What to read. Default: `["cpu_temperature", "load1", "cpu_use", "memory_use", "disk_use", "uptime"]`. What this computer does not have is an
    /// error.
    #[serde(default = "usual")]
    pub values: Vec<Wanted>,
    /// A folder on the disk that `disk_use` is of. Default: `/`.
    #[serde(default = "root")]
    pub path: String,
}

/// Something that can be read of a computer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    CpuTemperature,
    Load1,
    CpuUse,
    MemoryUse,
    MemoryAvailable,
    DiskUse,
    Uptime,
    Undervoltage,
    Throttled,
    WifiSignal,
}

fn usual() -> Vec<Wanted> {
    vec![
        Wanted::CpuTemperature,
        Wanted::Load1,
        Wanted::CpuUse,
        Wanted::MemoryUse,
        Wanted::DiskUse,
        Wanted::Uptime,
    ]
}

fn root() -> String {
    "/".to_owned()
}

impl Wanted {
    const fn quantity(self) -> Quantity {
        const SHARE: (f64, f64) = (0.0, 100.0);
        match self {
            // Silicon is dead outside of it.
            Wanted::CpuTemperature => Quantity::new("cpu_temperature", "degC", (-40.0, 150.0), 1),
            Wanted::Load1 => Quantity::new("load1", "", (0.0, 1e6), 2),
            Wanted::CpuUse => Quantity::new("cpu_use", "%", SHARE, 1),
            Wanted::MemoryUse => Quantity::new("memory_use", "%", SHARE, 1),
            Wanted::MemoryAvailable => Quantity::new("memory_available", "MB", (0.0, 1e9), 0),
            Wanted::DiskUse => Quantity::new("disk_use", "%", SHARE, 1),
            Wanted::Uptime => Quantity::new("uptime", "s", (0.0, 1e10), 0),
            Wanted::Undervoltage => Quantity::new("undervoltage", "", (0.0, 1.0), 0),
            Wanted::Throttled => Quantity::new("throttled", "", (0.0, 1.0), 0),
            // Thermal noise of a channel is about -100 dBm.
            Wanted::WifiSignal => Quantity::new("wifi_signal", "dBm", (-120.0, 20.0), 0),
        }
    }
}

/// The mean of the processors is taken over no less than this; between readings it is longer.
const LEAST_SPAN: Duration = Duration::from_millis(200);

impl Part for System {
    type Place = Inside;
    const NAME: &'static str = "system";
    const ABOUT: About = About {
        title: "The computer itself",
        quantities: &[
            Wanted::CpuTemperature.quantity(),
            Wanted::Load1.quantity(),
            Wanted::CpuUse.quantity(),
            Wanted::MemoryUse.quantity(),
            Wanted::DiskUse.quantity(),
            Wanted::Uptime.quantity(),
        ],
        addresses: &[],
        wiring: &[],
        setup: "None. `undervoltage` and `throttled` want a Raspberry Pi; `throttled` a kernel of Raspberry Pi OS.",
        notes: "`disk_use` is as `df` has it: of what users may fill. A disk that is not mounted shows the one that its folder is on. \
                Where only the driver rpi_volt tells, `undervoltage` means the last two seconds. A virtual machine has no `cpu_temperature`: \
                leave it out of `values`.",
        data_sheet: "kernel Documentation/filesystems/proc.rst and Documentation/ABI/testing/sysfs-class-thermal",
        takes_ms: 250,
    };
    const EXAMPLE: &'static str = r#"
[nodes.pi]
type = "system"
values = ["cpu_temperature", "cpu_use", "disk_use", "undervoltage"]
path = "/home"
every = "1m"

[nodes.show]
type = "debug"
from = "pi"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.values.is_empty() {
            problems.push((
                "values",
                "must have at least one; leave it out for the usual ones".to_owned(),
            ));
        }
        for (place, value) in self.values.iter().enumerate() {
            if self.values[..place].contains(value) {
                let message = format!("`{}` is there twice", value.quantity().name);
                problems.push(("values", message));
            }
        }
        if !self.path.starts_with('/') || self.path.contains('\0') {
            let message = format!("`{}` does not begin with `/`", self.path);
            problems.push(("path", message));
        }
        problems
    }

    fn quantities(&self) -> Vec<Quantity> {
        self.values.iter().map(|value| value.quantity()).collect()
    }

    fn open(&self, hardware: Hardware) -> Result<Box<dyn Chip>, Trouble> {
        Ok(Box::new(Computer {
            values: self.values.clone(),
            disk: self.path.clone(),
            hardware,
            busy: None,
            wait: thread::sleep,
        }))
    }

    fn twin(&self, scene: Scene) -> Box<dyn Chip> {
        let values = self.values.clone();
        Box::new(move || {
            let share = scene.value(Physical::Share);
            let simulated = |value: &Wanted| match value {
                // A Pi in its case: idle at 40 degC, busy at 75.
                Wanted::CpuTemperature => 40.0 + 0.35 * share,
                Wanted::Load1 => share / 25.0,
                Wanted::CpuUse | Wanted::MemoryUse | Wanted::DiskUse => share,
                Wanted::MemoryAvailable => 40.0 * (100.0 - share),
                Wanted::Uptime => scene.value(Physical::Uptime),
                Wanted::Undervoltage | Wanted::Throttled => 0.0,
                Wanted::WifiSignal => -80.0 + 0.3 * share,
            };
            Ok(values.iter().map(simulated).collect())
        })
    }
}

struct Computer {
    values: Vec<Wanted>,
    /// The folder whose disk is looked at.
    disk: String,
    hardware: Hardware,
    /// What the processors had done at the reading before.
    busy: Option<Busy>,
    wait: fn(Duration),
}

impl Chip for Computer {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        let values = self.values.clone();
        let values = values.into_iter().map(|value| self.value(value));
        Ok(values.collect::<Result<_, KernelError>>()?)
    }
}

impl Computer {
    fn value(&mut self, value: Wanted) -> Result<f64, KernelError> {
        let (proc, sys) = (&self.hardware.proc, &self.hardware.sys);
        match value {
            Wanted::CpuTemperature => cpu_degc(&sys.join("class/thermal")),
            Wanted::Load1 => first_number(&proc.join("loadavg")),
            Wanted::CpuUse => self.cpu_use(),
            Wanted::MemoryUse => Memory::read(&proc.join("meminfo")).map(Memory::percent_used),
            Wanted::MemoryAvailable => {
                Memory::read(&proc.join("meminfo")).map(|memory| memory.available_kib * 1.024e-3)
            }
            Wanted::DiskUse => disk_use(Path::new(&self.disk)),
            Wanted::Uptime => first_number(&proc.join("uptime")),
            Wanted::Undervoltage => undervoltage(sys),
            Wanted::Throttled => throttled(sys, THROTTLED_NOW),
            Wanted::WifiSignal => wifi_dbm(&proc.join("net/wireless")),
        }
    }

    fn cpu_use(&mut self) -> Result<f64, KernelError> {
        let path = self.hardware.proc.join("stat");
        let before = match self.busy {
            Some(before) => before,
            None => {
                let first = Busy::read(&path)?;
                (self.wait)(LEAST_SPAN);
                first
            }
        };
        let now = Busy::read(&path)?;
        self.busy = Some(now);
        Ok(now.percent_since(before))
    }
}

/// Time that the processors have spent since the start, in ticks.
#[derive(Clone, Copy, Debug)]
struct Busy {
    idle: f64,
    total: f64,
}

impl Busy {
    /// The first line of /proc/stat (proc.rst, 1.7): `cpu`, then user, nice, system, idle, iowait, irq, softirq, steal; guests
    /// are in `user` already.
    fn read(path: &Path) -> Result<Busy, KernelError> {
        let text = read_text(path)?;
        let line = text.lines().next().unwrap_or_default();
        let ticks = line.strip_prefix("cpu ").unwrap_or_default();
        let ticks: Vec<f64> = ticks
            .split_whitespace()
            .take(8)
            .map_while(|tick| tick.parse().ok())
            .collect();
        let [_, _, _, idle, rest @ ..] = ticks.as_slice() else {
            return Err(KernelError::Malformed {
                path: path.to_owned(),
                text: line.to_owned(),
                expected: "`cpu` and at least four numbers of ticks",
            });
        };
        Ok(Busy {
            idle: idle + rest.first().unwrap_or(&0.0),
            total: ticks.iter().sum(),
        })
    }

    /// The share of time that was not idle. `iowait` may go back (proc.rst, 1.7), and a tick may not have come.
    fn percent_since(self, before: Busy) -> f64 {
        let total = self.total - before.total;
        if total <= 0.0 {
            return 0.0;
        }
        let idle = self.idle - before.idle;
        (100.0 * (1.0 - idle / total)).clamp(0.0, 100.0)
    }
}

/// The memory that there is and that programs could have without swapping (proc.rst, `meminfo`): the kernel's kB are 1024 bytes.
#[derive(Clone, Copy, Debug)]
struct Memory {
    total_kib: f64,
    available_kib: f64,
}

impl Memory {
    fn read(path: &Path) -> Result<Memory, KernelError> {
        let text = read_text(path)?;
        let find = |name: &'static str, expected: &'static str| {
            let mut lines = text.lines();
            let rest = lines.find_map(|line| line.strip_prefix(name));
            let kib = rest.and_then(|rest| rest.trim().strip_suffix("kB"));
            kib.and_then(|kib| kib.trim().parse::<f64>().ok())
                .filter(|kib| *kib >= 0.0)
                .ok_or_else(|| KernelError::Malformed {
                    path: path.to_owned(),
                    text: rest.unwrap_or_default().trim().to_owned(),
                    expected,
                })
        };
        let total_kib = find("MemTotal:", "`MemTotal` in kB")?;
        Ok(Memory {
            total_kib,
            available_kib: find("MemAvailable:", "`MemAvailable` in kB")?.min(total_kib),
        })
    }

    fn percent_used(self) -> f64 {
        100.0 * (1.0 - self.available_kib / self.total_kib)
    }
}

/// What the kernel calls the zone of the processor: on a Pi, on other ARM boards, on a PC.
const CPU_ZONES: [&str; 3] = ["cpu-thermal", "cpu_thermal", "x86_pkg_temp"];

/// Thousandths of a degC (sysfs-class-thermal).
fn cpu_degc(zones: &Path) -> Result<f64, KernelError> {
    let mut present = Vec::new();
    for zone in names_in(zones) {
        let folder = zones.join(zone);
        let Ok(kind) = read_text(&folder.join("type")) else {
            continue;
        };
        if CPU_ZONES.contains(&kind.trim()) {
            return Ok(number_in(&folder.join("temp"))? / 1000.0);
        }
        present.push(kind.trim().to_owned());
    }
    Err(KernelError::NoDevice {
        device: CPU_ZONES[0].to_owned(),
        path: zones.to_owned(),
        present,
    })
}

fn first_number(path: &Path) -> Result<f64, KernelError> {
    let text = read_text(path)?;
    number(text.split_whitespace().next().unwrap_or_default(), path)
}

#[cfg(target_os = "linux")]
fn disk_use(path: &Path) -> Result<f64, KernelError> {
    let disk = rustix::fs::statvfs(path).map_err(|error| KernelError::Unreadable {
        path: path.to_owned(),
        source: error.into(),
    })?;
    percent_full(disk.f_blocks, disk.f_bfree, disk.f_bavail).ok_or_else(|| KernelError::NotHere {
        what: "disk",
        path: path.to_owned(),
        remedy: "the kernel keeps that folder, and it has no size",
    })
}

#[cfg(not(target_os = "linux"))]
fn disk_use(path: &Path) -> Result<f64, KernelError> {
    Err(KernelError::NotHere {
        what: "disk",
        path: path.to_owned(),
        remedy: "`disk_use` needs Linux",
    })
}

/// Of the blocks that users may fill (statvfs(3)): those that only root may use count as neither full nor free. None if there are none.
#[cfg(target_os = "linux")]
fn percent_full(blocks: u64, free: u64, free_to_users: u64) -> Option<f64> {
    let used = blocks.saturating_sub(free) as f64;
    let fillable = used + free_to_users as f64;
    (fillable > 0.0).then(|| 100.0 * used / fillable)
}

/// Bits of what the firmware says (Raspberry Pi documentation, `vcgencmd get_throttled`).
const UNDERVOLTAGE_NOW: u32 = 1 << 0;
const THROTTLED_NOW: u32 = 1 << 2;

fn undervoltage(sys: &Path) -> Result<f64, KernelError> {
    let hwmon = sys.join("class/hwmon");
    if firmware(sys).is_none() {
        for chip in names_in(&hwmon) {
            let folder = hwmon.join(chip);
            let name = read_text(&folder.join("name")).unwrap_or_default();
            if name.trim() == "rpi_volt" {
                // Documentation/hwmon/raspberrypi-hwmon.rst.
                return number_in(&folder.join("in0_lcrit_alarm"));
            }
        }
    }
    throttled(sys, UNDERVOLTAGE_NOW)
}

/// One bit of the firmware's word, which the kernel shows in hexadecimal digits.
fn throttled(sys: &Path, bit: u32) -> Result<f64, KernelError> {
    let Some(path) = firmware(sys) else {
        return Err(KernelError::NotHere {
            what: "word of a Raspberry Pi's firmware",
            path: sys.join("devices/platform/soc/soc:firmware/get_throttled"),
            remedy: "leave `undervoltage` and `throttled` out of `values` on another computer or kernel (`undervoltage` alone may also come \
                     from the driver rpi_volt under /sys/class/hwmon)",
        });
    };
    let text = read_text(&path)?;
    let digits = text.trim();
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let word = u32::from_str_radix(digits, 16).map_err(|_| KernelError::Malformed {
        path,
        text: text.clone(),
        expected: "hexadecimal digits",
    })?;
    Ok(f64::from(u8::from(word & bit != 0)))
}

/// The file in which the firmware tells; the folders carry an address on a Pi 5: `soc@107c000000`.
fn firmware(sys: &Path) -> Option<std::path::PathBuf> {
    let platform = sys.join("devices/platform");
    let mut socs = names_in(&platform);
    socs.retain(|name| name.starts_with("soc"));
    let files = socs.iter().flat_map(|soc| {
        let soc = platform.join(soc);
        let mut parts = names_in(&soc);
        parts.retain(|name| name.ends_with(":firmware"));
        parts
            .into_iter()
            .map(move |part| soc.join(part).join("get_throttled"))
    });
    files.into_iter().find(|file| file.exists())
}

/// The first interface of /proc/net/wireless (Wireless Extensions): after its name status, link and level.
fn wifi_dbm(path: &Path) -> Result<f64, KernelError> {
    let none = || KernelError::NotHere {
        what: "Wi-Fi that is up",
        path: path.to_owned(),
        remedy: "or it names no interface; leave `wifi_signal` out of `values` without Wi-Fi",
    };
    if !path.exists() {
        return Err(none());
    }
    let text = read_text(path)?;
    // Two lines of headings.
    let line = text.lines().nth(2).ok_or_else(none)?;
    let level = line.split_whitespace().nth(3).unwrap_or_default();
    number(level.trim_end_matches('.'), path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::kernel::sysfs;

    /// A Raspberry Pi 4 with Raspberry Pi OS.
    const PI: &[(&str, &str)] = &[
        ("sys/class/thermal/thermal_zone0/type", "gpu-thermal\n"),
        ("sys/class/thermal/thermal_zone0/temp", "99000\n"),
        ("sys/class/thermal/thermal_zone1/type", "cpu-thermal\n"),
        ("sys/class/thermal/thermal_zone1/temp", "48686\n"),
        (
            "sys/devices/platform/soc/soc:firmware/get_throttled",
            "50005\n",
        ),
        ("proc/loadavg", "0.42 0.30 0.21 1/187 2741\n"),
        (
            "proc/stat",
            "cpu  1000 0 500 8000 500 0 0 0 0 0\ncpu0 1 2 3 4\n",
        ),
        (
            "proc/meminfo",
            "MemTotal:        3884360 kB\nMemFree:         1200000 kB\nMemAvailable:    2913270 kB\n",
        ),
        ("proc/uptime", "350735.47 234388.90\n"),
        (
            "proc/net/wireless",
            "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n \
             face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n \
             wlan0: 0000   54.  -56.  -256        0      0      0      0     34        0\n",
        ),
    ];

    fn computer(root: &Path, values: &[Wanted]) -> Box<dyn Chip> {
        let system = System {
            values: values.to_vec(),
            path: "/".to_owned(),
        };
        let hardware = Hardware {
            sys: root.join("sys"),
            proc: root.join("proc"),
            ..Hardware::real()
        };
        system.open(hardware).unwrap()
    }

    fn read(files: &[(&str, &str)], value: Wanted) -> Result<f64, String> {
        let root = sysfs(files);
        let measured = computer(root.path(), &[value]).measure();
        measured
            .map(|values| values[0])
            .map_err(|trouble| trouble.to_string())
    }

    #[test]
    fn what_the_kernel_says_is_read_in_the_units_that_people_write() {
        let check = |value: Wanted, expected: f64| {
            let found = read(PI, value).unwrap();
            assert!((found - expected).abs() < 1e-6, "{value:?}: {found}");
        };
        check(Wanted::CpuTemperature, 48.686);
        check(Wanted::Load1, 0.42);
        // 2913270 of 3884360 KiB are available, a quarter is not.
        check(Wanted::MemoryUse, 25.0);
        check(Wanted::MemoryAvailable, 2_983.188_48);
        check(Wanted::Uptime, 350_735.47);
        check(Wanted::Undervoltage, 1.0);
        check(Wanted::Throttled, 1.0);
        check(Wanted::WifiSignal, -56.0);
    }

    #[test]
    fn what_is_asked_for_and_not_there_names_its_file() {
        let check = |files: &[(&str, &str)], value: Wanted, expected: &[&str]| {
            let error = read(files, value).unwrap_err();
            for expected in expected {
                assert!(error.contains(expected), "{value:?}: {error}");
            }
        };
        let headings = ("proc/net/wireless", "Inter-|\n face |\n");
        let other = ("sys/class/thermal/thermal_zone0/type", "acpitz\n");
        let odd = ("proc/meminfo", "MemTotal: 12 kB\n");
        let spoilt = (
            "sys/devices/platform/soc/soc:firmware/get_throttled",
            "what\n",
        );
        check(
            &[other],
            Wanted::CpuTemperature,
            &["sys/class/thermal", "acpitz"],
        );
        check(&[], Wanted::Load1, &["proc/loadavg"]);
        check(&[], Wanted::CpuUse, &["proc/stat"]);
        check(
            &[("proc/stat", "cpu 1 2\n")],
            Wanted::CpuUse,
            &["proc/stat", "four numbers"],
        );
        check(&[odd], Wanted::MemoryUse, &["meminfo", "MemAvailable"]);
        check(
            &[],
            Wanted::Throttled,
            &["soc:firmware/get_throttled", "`values`"],
        );
        check(&[], Wanted::Undervoltage, &["soc:firmware/get_throttled"]);
        check(&[spoilt], Wanted::Throttled, &["hexadecimal"]);
        check(&[], Wanted::WifiSignal, &["proc/net/wireless", "Wi-Fi"]);
        check(&[headings], Wanted::WifiSignal, &["proc/net/wireless"]);
    }

    #[test]
    fn the_bits_of_the_firmware_are_told_apart_from_what_once_was() {
        let check = |word: &str, undervoltage: f64, is_throttled: f64| {
            let path = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled";
            let files = [(path, word)];
            assert_eq!(
                read(&files, Wanted::Undervoltage),
                Ok(undervoltage),
                "{word}"
            );
            assert_eq!(read(&files, Wanted::Throttled), Ok(is_throttled), "{word}");
        };
        check("0\n", 0.0, 0.0);
        check("1\n", 1.0, 0.0);
        check("4\n", 0.0, 1.0);
        check("50000\n", 0.0, 0.0);
        check("0x50005\n", 1.0, 1.0);
    }

    #[test]
    fn without_the_word_of_the_firmware_the_driver_of_the_supply_tells() {
        let files = [
            ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
            ("sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
            ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n"),
        ];
        assert_eq!(read(&files, Wanted::Undervoltage), Ok(1.0));
        assert!(read(&files, Wanted::Throttled).is_err());
    }

    #[test]
    fn the_use_of_the_processors_is_that_since_the_reading_before() {
        let root = sysfs(PI);
        let mut chip = computer(root.path(), &[Wanted::CpuUse]);
        // Nothing moved during the first one.
        assert_eq!(chip.measure().unwrap(), [0.0]);
        let mut after = |line: &str, expected: f64| {
            std::fs::write(root.path().join("proc/stat"), line).unwrap();
            assert_eq!(chip.measure().unwrap(), [expected], "{line}");
        };
        // 100 ticks more: 20 user, 5 system, 60 idle, 15 waiting for a disk.
        after("cpu  1020 0 505 8060 515 0 0 0 0 0\n", 25.0);
        // All of 40 ticks; guests are in `user` already.
        after("cpu  1060 0 505 8060 515 0 0 0 40 0\n", 100.0);
        // Waiting went back, as the kernel warns that it may.
        after("cpu  1070 0 505 8060 513 0 0 0 40 0\n", 100.0);
    }

    #[test]
    fn a_disk_is_as_full_as_users_find_it() {
        // 100 blocks, 50 used, 5 for root only: 50 of 95, as `df` shows it.
        assert_eq!(percent_full(100, 50, 45).map(f64::round), Some(53.0));
        assert_eq!(percent_full(100, 0, 0), Some(100.0));
        assert_eq!(percent_full(0, 0, 0), None);

        let folder = tempfile::tempdir().unwrap();
        let percent = disk_use(folder.path()).unwrap();
        assert!((0.0..=100.0).contains(&percent), "{percent}");
        let error = disk_use(&folder.path().join("gone")).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
        let error = disk_use(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().contains("no size"), "{error}");
    }

    #[test]
    fn options_that_cannot_be_are_told() {
        let check = |values: &[Wanted], path: &str, expected: &[&str]| {
            let system = System {
                values: values.to_vec(),
                path: path.to_owned(),
            };
            let found: Vec<_> = system.problems().into_iter().map(|(at, _)| at).collect();
            assert_eq!(found, expected);
        };
        check(&usual(), "/", &[]);
        check(&[], "/", &["values"]);
        check(&[Wanted::Load1, Wanted::Load1], "/", &["values"]);
        check(&usual(), "home", &["path"]);
    }

    #[test]
    fn a_simulated_computer_has_all_of_it() {
        let all = [
            Wanted::CpuTemperature,
            Wanted::Load1,
            Wanted::CpuUse,
            Wanted::MemoryUse,
            Wanted::MemoryAvailable,
            Wanted::DiskUse,
            Wanted::Uptime,
            Wanted::Undervoltage,
            Wanted::Throttled,
            Wanted::WifiSignal,
        ];
        let system = System {
            values: all.to_vec(),
            path: root(),
        };
        let scene = Scene::still(&[(Physical::Share, 20.0), (Physical::Uptime, 12.0)]);
        let measured = system.twin(scene).measure().unwrap();
        assert_eq!(
            measured,
            [47.0, 0.8, 20.0, 20.0, 3_200.0, 20.0, 12.0, 0.0, 0.0, -74.0]
        );
        for (quantity, value) in system.quantities().iter().zip(measured) {
            assert_eq!(quantity.plausible(value).unwrap(), value);
        }
    }
}
