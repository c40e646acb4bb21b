//! The machine that is measured on: which CPU does what, its huge pages, and a directory that is gone afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

use crate::error::{Error, Result};

const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";
/// What DPDK and two guests need, in pages of 2 MiB.
const HUGE_PAGES_NEEDED: u64 = 1600;

/// The machine, and what a run needs to know of it.
#[derive(Debug)]
pub struct Host {
    /// The CPU of the guests.
    pub guest_cpu: usize,
    /// The CPUs that forward, one or more; the peers use the first.
    pub switch_cpus: Vec<usize>,
    /// The `vswitch` program.
    pub vswitch: PathBuf,
    /// Whether the user wants to stop.
    pub interrupted: Arc<AtomicBool>,
    huge_pages_before: Option<String>,
}

impl Host {
    /// Prepares the machine: all that is started from now on stays away from the CPUs that forward, except for what forwards. Where CPUs are not named, the
    /// guests get the first that this process may use, and the switch the last.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn new(guest_cpu: Option<usize>, switch_cpus: &[usize], vswitch: PathBuf, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let all = rustix::thread::sched_getaffinity(None).map_err(|error| Error::io("this process's CPUs", error))?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|&cpu| all.is_set(cpu));
        let (first, last) = (usable.next().unwrap_or(0), usable.next_back());
        let guest_cpu = guest_cpu.unwrap_or(first);
        let switch_cpus = if switch_cpus.is_empty() { vec![last.unwrap_or(first)] } else { switch_cpus.to_vec() };
        let mut others = all;
        switch_cpus.iter().for_each(|&cpu| others.unset(cpu));
        if others.count() > 1 {
            others.unset(guest_cpu);
        }
        if others.count() > 0 {
            rustix::thread::sched_setaffinity(None, &others).map_err(|error| Error::io("this process's CPUs", error))?;
        }
        Ok(Self { guest_cpu, switch_cpus, vswitch, interrupted, huge_pages_before: None })
    }

    /// Has enough huge pages reserved, until the host is dropped.
    ///
    /// # Errors
    ///
    /// There is not enough memory, or this is not root.
    pub fn reserve_huge_pages(&mut self) -> Result<()> {
        let before = fs::read_to_string(HUGE_PAGES).map_err(|error| Error::io(HUGE_PAGES, error))?;
        let free = huge_pages_free();
        if free < HUGE_PAGES_NEEDED {
            let reserved: u64 = before.trim().parse().unwrap_or(0);
            fs::write(HUGE_PAGES, (reserved + HUGE_PAGES_NEEDED - free).to_string())
                .map_err(|error| Error::io(format!("{HUGE_PAGES} (are you root?)"), error))?;
            self.huge_pages_before = Some(before);
            if huge_pages_free() < HUGE_PAGES_NEEDED {
                return Err(Error::failed(format!("no {HUGE_PAGES_NEEDED} huge pages of 2 MiB are to be had: free some memory")));
            }
        }
        Ok(())
    }

    /// The CPU that forwards, of those that forward by one.
    pub fn switch_cpu(&self) -> usize {
        self.switch_cpus[0]
    }

    /// Fails if the user wants to stop.
    ///
    /// # Errors
    ///
    /// He does.
    pub fn go_on(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Sleeps, but not for longer than the user wants.
    ///
    /// # Errors
    ///
    /// He does not want to wait any more.
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        let start = Instant::now();
        while let Some(left) = duration.checked_sub(start.elapsed()) {
            self.go_on()?;
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }

    /// Asks `probe` until it gives an answer.
    ///
    /// # Errors
    ///
    /// There is none within `limit`; `what` was waited for.
    pub fn wait<T>(&self, limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(answer) = probe() {
                return Ok(answer);
            }
            if start.elapsed() > limit {
                return Err(Error::failed(format!("waited {limit:?} in vain: {what}")));
            }
            self.sleep(Duration::from_millis(20))?;
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(before) = &self.huge_pages_before {
            let _ = fs::write(HUGE_PAGES, before);
        }
    }
}

fn huge_pages_free() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// What a command printed.
///
/// # Errors
///
/// It can't be started, or failed.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| Error::io(name, error))?;
    if !output.status.success() {
        return Err(Error::failed(format!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program is, on the path or where Debian has what only root runs.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The thread of a process whose name begins like this.
pub fn thread_named(process: u32, prefix: &str) -> Option<i32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    tasks.flatten().find_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        name.starts_with(prefix).then(|| task.file_name().to_str()?.parse().ok())?
    })
}

/// The version of a Debian package.
pub fn package_version(name: &str) -> Option<String> {
    let mut command = Command::new("dpkg-query");
    output(command.args(["--show", "--showformat=${Version}", name])).ok().filter(|version| !version.is_empty())
}

/// The processes that a process has started itself.
pub fn children(process: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Whether a socket is there.
pub fn is_there(path: &Path) -> Option<()> {
    path.exists().then_some(())
}
