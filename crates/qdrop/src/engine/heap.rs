//! The allocator of the process, its memory, and that of the machine.

use std::sync::OnceLock;

/// Blocks of this many bytes or more go back to the system when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: std::ffi::c_int = 128 << 10;

/// Lets large blocks go back to the system as soon as they are freed, for the rest of the process. The GNU C library keeps
/// them by default, up to twice what is in use; other allocators are left alone. A program calls this once, at its start.
pub fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes plain numbers and may be called at any time; a value it refuses changes nothing.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}

/// Bytes of memory that the machine has, where it says so; asked once.
pub fn installed() -> Option<u64> {
    static INSTALLED: OnceLock<Option<u64>> = OnceLock::new();
    *INSTALLED.get_or_init(system::installed)
}

/// Most bytes of memory that this process has had, where the system says so.
pub fn peak() -> Option<u64> {
    system::peak()
}

#[cfg(target_os = "linux")]
mod system {
    /// A figure in kB of a file below `/proc`, in bytes.
    fn figure(file: &str, name: &str) -> Option<u64> {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }

    pub fn installed() -> Option<u64> {
        figure("/proc/meminfo", "MemTotal:")
    }

    pub fn peak() -> Option<u64> {
        figure("/proc/self/status", "VmHWM:")
    }
}

#[cfg(target_os = "macos")]
#[allow(unsafe_code)]
mod system {
    use std::mem::{size_of, zeroed};
    use std::ptr::{from_mut, null_mut};

    pub fn installed() -> Option<u64> {
        let (mut bytes, mut size) = (0u64, size_of::<u64>());
        // SAFETY: the name ends with 0, and `size` is that of the number which the call fills.
        let answer = unsafe {
            libc::sysctlbyname(c"hw.memsize".as_ptr(), from_mut(&mut bytes).cast(), &mut size, null_mut(), 0)
        };
        (answer == 0 && size == size_of::<u64>()).then_some(bytes)
    }

    pub fn peak() -> Option<u64> {
        // SAFETY: a `rusage` holds plain numbers, and the call fills it.
        let (answer, usage) = unsafe {
            let mut usage: libc::rusage = zeroed();
            (libc::getrusage(libc::RUSAGE_SELF, &mut usage), usage)
        };
        // In bytes on this system.
        if answer == 0 { usage.ru_maxrss.try_into().ok() } else { None }
    }
}

#[cfg(windows)]
#[allow(unsafe_code)]
mod system {
    use std::mem::{size_of, zeroed};
    use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
    use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
    use windows_sys::Win32::System::Threading::GetCurrentProcess;

    pub fn installed() -> Option<u64> {
        // SAFETY: the structure holds plain numbers and says its size, as the call requires.
        let (answer, status) = unsafe {
            let mut status = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..zeroed() };
            (GlobalMemoryStatusEx(&mut status), status)
        };
        (answer != 0).then_some(status.ullTotalPhys)
    }

    pub fn peak() -> Option<u64> {
        let size = size_of::<PROCESS_MEMORY_COUNTERS>() as u32;
        // SAFETY: the structure holds plain numbers, and the call is told its size.
        let (answer, counters) = unsafe {
            let mut counters: PROCESS_MEMORY_COUNTERS = zeroed();
            (K32GetProcessMemoryInfo(GetCurrentProcess(), &mut counters, size), counters)
        };
        (answer != 0).then_some(counters.PeakWorkingSetSize as u64)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
mod system {
    pub fn installed() -> Option<u64> {
        None
    }

    pub fn peak() -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(target_os = "linux", target_os = "macos", windows))]
    fn memory_is_told_in_bytes() {
        let (installed, peak) = (installed().unwrap(), peak().unwrap());
        assert!(installed > 256 << 20 && installed < 1 << 50, "{installed}");
        assert!(peak > 1 << 20 && peak < installed, "{peak} of {installed}");
    }
}
