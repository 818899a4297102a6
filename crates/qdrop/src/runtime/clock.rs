//! Processor time of the process.

/// Processor time of this process on all its threads, in seconds, in user mode and in the kernel; `None` if the system
/// does not provide it. Only differences between two calls are meaningful.
pub fn processor_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is that of a whole `timespec`, which the call fills.
        let answer = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
        (answer == 0).then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
    }
    #[cfg(not(unix))]
    None
}
