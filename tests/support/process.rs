//! What the kernel tells of a process.

use std::fs;

/// A line of `/proc/PID/status`, in MiB.
pub(crate) fn memory(pid: i32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .expect("it tells its memory");
    kilobytes.trim().parse::<f64>().expect("a number") / 1024.0
}

/// Processor time of a process so far, in seconds.
pub(crate) fn processor(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat.rsplit_once(')').expect("a name").1;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u32 = ticks.filter_map(|field| field.parse::<u32>().ok()).sum();
    f64::from(ticks) / 100.0
}

/// Lets `VmHWM` begin anew.
pub(crate) fn forget_peak(pid: i32) {
    // proc_pid_clear_refs(5): 5 resets the peak resident set size.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("it may be reset");
}
