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
    #[cfg(windows)]
    {
        use windows_sys::Win32::Foundation::FILETIME;
        use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessTimes};
        let mut times = [FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 }; 4];
        let [created, ended, kernel, user] = &mut times;
        // SAFETY: the pointers are those of whole `FILETIME`s, which the call fills.
        let answer = unsafe { GetProcessTimes(GetCurrentProcess(), created, ended, kernel, user) };
        let seconds = |t: FILETIME| (u64::from(t.dwHighDateTime) << 32 | u64::from(t.dwLowDateTime)) as f64 * 1e-7;
        (answer != 0).then_some(seconds(times[2]) + seconds(times[3]))
    }
    #[cfg(not(any(unix, windows)))]
    None
}
