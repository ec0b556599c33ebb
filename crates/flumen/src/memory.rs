//! The memory of processes that mostly wait.

use std::ops::Range;

/// Asks the kernel to give this process memory in small pages, where the allocator has asked for large ones: a page of 2 MB of which little
/// is used is a page of 2 MB. Queries are faster with large ones.
pub fn in_small_pages() {
    for range in large(&std::fs::read_to_string("/proc/self/smaps").unwrap_or_default()) {
        // SAFETY: the range is mapped, and this says nothing but how it is to be filled: its content stays.
        #[allow(unsafe_code, reason = "the allocator has no way to say this to the kernel")]
        unsafe {
            libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_NOHUGEPAGE);
        }
    }
}

/// `mi_option_purge_delay`: after how many milliseconds memory that is free goes back to the system.
const PURGE_DELAY: libc::c_int = 15;

#[allow(unsafe_code, reason = "functions of the allocator, which is written in C")]
unsafe extern "C" {
    // <https://microsoft.github.io/mimalloc/group__options.html>
    safe fn mi_option_set(option: libc::c_int, value: libc::c_long);
    #[cfg(test)]
    safe fn mi_option_get(option: libc::c_int) -> libc::c_long;
    // <https://microsoft.github.io/mimalloc/group__extended.html>
    safe fn mi_collect(force: bool);
}

/// Gives memory that is free back to the system, now and whenever some is free.
pub fn give_back() {
    // A process that sleeps would do it when it wakes up again.
    mi_option_set(PURGE_DELAY, 0);
    mi_collect(true);
}

/// The ranges of addresses for which large pages were asked for, in the text of `/proc/PID/smaps`.
fn large(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut range = 0..0;
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if flags.split_ascii_whitespace().any(|flag| flag == "hg") {
                found.push(range.clone());
            }
        } else if let Some((first, last)) = line.split(' ').next().and_then(|word| word.split_once('-')) {
            let address = |text: &str| usize::from_str_radix(text, 16);
            if let (Ok(first), Ok(last)) = (address(first), address(last)) {
                range = first..last;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn ranges_with_large_pages_are_found() {
        let text = "5b0000-5c0000 rw-p 00000000 00:00 0 \nSize: 64 kB\nVmFlags: rd wr mr mw me ac sd \n\
                    7f00000-7f40000 rw-p 00000000 00:00 0  [anon]\nRss: 4 kB\nVmFlags: rd wr mr mw me ac hg \n";
        assert_eq!(super::large(text), vec![0x7f0_0000..0x7f4_0000; 1]);
        // The kernel takes what is found for this process.
        super::in_small_pages();
        assert!(super::mi_option_get(super::PURGE_DELAY) > 0, "there is a delay by default: it is this option");
        super::give_back();
        assert_eq!(super::mi_option_get(super::PURGE_DELAY), 0);
    }
}
