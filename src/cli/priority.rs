//! This process behind others.

use std::io;

/// As much as `nice` without a number.
const NICENESS: i32 = 10;

/// Lowers the priority of every thread of the process; those that they start inherit it.
pub fn lower() -> io::Result<()> {
    for thread in std::fs::read_dir("/proc/self/task")? {
        let Ok(id) = thread?.file_name().to_string_lossy().parse::<libc::id_t>() else { continue };
        // SAFETY: `setpriority` takes any numbers and touches no memory of ours. Linux knows priorities by thread.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, id, NICENESS) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ESRCH) {
                return Err(error); // not that the thread has ended
            }
        }
    }
    Ok(())
}
