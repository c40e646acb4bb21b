//! Child processes that end with their owner, and waiting with a limit.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a step may take on a slow and busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks `probe` until it gives an answer.
///
/// # Panics
///
/// Panics, naming `what`, if there is none within `limit`.
pub fn until<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running program. Dropping it kills it and what it started; the end of the thread that started it does so, too.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    dir: PathBuf,
}

impl Process {
    /// Starts `program`. Its output goes to the files `NAME.out` and `NAME.err` in `dir`.
    pub fn start(dir: &Path, name: &str, program: impl AsRef<OsStr>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Process {
        let file = |suffix| File::create(dir.join(format!("{name}.{suffix}"))).expect("the test's directory takes files");
        // setpriv replaces itself by the program, which then hears of our death even if no destructor runs.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args.into_iter().map(Into::into));
        let child = command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Process { child, name: name.to_owned(), dir: dir.to_owned() }
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.output("out")
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.output("err")
    }

    fn output(&self, suffix: &str) -> String {
        let bytes = fs::read(self.dir.join(format!("{}.{suffix}", self.name))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// Asks it to end (SIGTERM) and waits for its status.
    ///
    /// # Panics
    ///
    /// Panics if it is still there after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        signal(self.id(), Signal::TERM);
        let what = format!("{} ends after SIGTERM", self.name);
        until(limit, &what, || self.exited())
    }

    /// Kills it (SIGKILL) with everything it started, at once, and waits for its end.
    pub fn kill(&mut self) {
        if self.exited().is_none() {
            for id in self.family() {
                signal(id, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }

    /// Stops it (SIGSTOP) with everything it started, until [`Process::go_on`].
    pub fn pause(&self) {
        self.family().into_iter().for_each(|id| signal(id, Signal::STOP));
    }

    /// Takes [`Process::pause`] back.
    pub fn go_on(&self) {
        self.family().into_iter().for_each(|id| signal(id, Signal::CONT));
    }

    /// The share of one processor that it uses, with what it started, measured for `window`.
    pub fn cpu_share(&self, window: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.cpu_time());
        std::thread::sleep(window);
        (self.cpu_time() - before).as_secs_f64() / start.elapsed().as_secs_f64()
    }

    /// The private memory that it uses, with what it started, in bytes: what it mapped of others' is not counted.
    pub fn memory(&self) -> u64 {
        let kibibytes = |id: u32| -> u64 {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
            line.trim_end_matches("kB").trim().parse().unwrap_or_default()
        };
        self.family().into_iter().map(|id| 1024 * kibibytes(id)).sum()
    }

    /// How many file descriptors it has open, with what it started.
    pub fn descriptors(&self) -> usize {
        self.family().into_iter().map(|id| fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)).sum()
    }

    /// The processor time that it has used, with what it started.
    pub fn cpu_time(&self) -> Duration {
        let nanoseconds = |id: u32| -> u64 {
            let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
            let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
            stats.filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok()).sum()
        };
        Duration::from_nanos(self.family().into_iter().map(nanoseconds).sum())
    }

    /// The process and its descendants.
    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.id()];
        let mut next = 0;
        while let Some(id) = family.get(next) {
            let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
            let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
            family.extend(lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>()));
            next += 1;
        }
        family
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} wrote, before this test failed:\n{}{}", self.name, self.stdout(), self.stderr());
        }
    }
}

fn signal(id: u32, signal: Signal) {
    // It may be gone already.
    let _ = Pid::from_raw(id as i32).map(|pid| kill_process(pid, signal));
}
