//! What the kernel says of this process. Numbers it does not tell are `None`, never guessed.

use std::fs;
use std::time::Duration;

/// Ticks per second of `/proc/self/stat`: 100 for programs on every Linux, whatever the kernel's own rate.
const TICKS_PER_SECOND: u64 = 100;

/// What INFO shows of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Resident memory in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// The most there ever was of it, in bytes.
    pub(super) resident_bytes_max: Option<u64>,
    /// Time spent in the program.
    pub(super) user: Option<Duration>,
    /// Time spent in the kernel on its behalf.
    pub(super) system: Option<Duration>,
}

impl Process {
    /// As of now.
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self::parse(&status, &stat)
    }

    fn parse(status: &str, stat: &str) -> Self {
        let kib = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        // The name of the program may hold blanks; what follows its closing parenthesis does not.
        let after_name: Vec<&str> =
            stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| rest.split(' ').collect());
        let ticks = |index: usize| -> Option<Duration> {
            let ticks = after_name.get(index)?.parse::<u64>().ok()?;
            Some(Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND)))
        };
        Self {
            resident_bytes: kib("VmRSS:"),
            resident_bytes_max: kib("VmHWM:"),
            user: ticks(12),
            system: ticks(13),
        }
    }
}

/// Whether this process is about to take all the memory that there is.
#[derive(Debug, Default)]
pub(super) struct Strain {
    looks: u32,
    is_said: bool,
}

impl Strain {
    /// Looks now and then, and says so once each time it comes to that.
    pub(super) fn look(&mut self) {
        self.looks = self.looks.wrapping_add(1);
        if self.looks % STRAIN_EVERY != 1 {
            return;
        }
        let (resident, machine) = (Process::read().resident_bytes, machine_bytes());
        let is_strained = is_strained(resident, machine);
        if is_strained && !self.is_said {
            let (resident, machine) = (resident.unwrap_or(0) >> 20, machine.unwrap_or(0) >> 20);
            tracing::warn!(
                resident_mib = resident,
                machine_mib = machine,
                "this node takes most of the memory there is: the kernel may end it; give it a maxmemory, or more memory"
            );
        }
        self.is_said = is_strained;
    }
}

/// Looks of the node's upkeep between two at the memory: about a second.
const STRAIN_EVERY: u32 = 10;

/// Whether so much resident memory is most of what the machine, or the process' share of it, has.
pub(super) fn is_strained(resident: Option<u64>, machine: Option<u64>) -> bool {
    resident.zip(machine).is_some_and(|(resident, machine)| resident > machine / 5 * 4)
}

/// The memory that the machine has, or the control group that this process is in where that is less, in bytes.
pub(super) fn machine_bytes() -> Option<u64> {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line =
            text.lines().find_map(|line| line.strip_prefix("MemTotal:").map(str::to_owned))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    });
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .min();
    total.into_iter().chain(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 90 0 0 0 250 1 0 0 20 0 1 0 5 6 7";
        let process = Process::parse(status, stat);
        assert_eq!(process.resident_bytes, Some(1024 * 1024));
        assert_eq!(process.resident_bytes_max, Some(2048 * 1024));
        assert_eq!(process.user, Some(Duration::from_millis(2500)));
        assert_eq!(process.system, Some(Duration::from_millis(10)));
        assert!(Process::read().resident_bytes.is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn four_fifths_of_what_there_is_are_a_strain() {
        assert!(is_strained(Some(81), Some(100)));
        assert!(!is_strained(Some(80), Some(100)));
        assert!(!is_strained(None, Some(100)) && !is_strained(Some(1), None));
        assert!(machine_bytes().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn what_is_not_told_is_none() {
        for (status, stat) in [("", ""), ("VmRSS: x kB", "7 (x) S"), ("VmRSS:", "no name")] {
            assert_eq!(Process::parse(status, stat), Process::default());
        }
    }
}
