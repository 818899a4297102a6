//! The allocator of the process, and the memory of the machine.

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
    *INSTALLED.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    })
}
